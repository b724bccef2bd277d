"""Every backend against the definition in float64: outputs and all gradients, row by row."""

import math

import pytest
import torch

from dnasm.ops import fftconv, record_calls, reference, spectrum
from dnasm.ops.backends import Call
from tests.parity.checks import FLOAT32, Case, Engine, assert_right, exact, noise, row_errors

LENGTHS = [1, 2, 3, 7, 63, 64, 65, 100, 127, 128, 192, 320, 1000, 1024, 1600, 4097, 10007]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("taps", ["one", "some", "all", "more"])
def test_lengths_and_filters(engine: Engine, length: int, taps: str) -> None:
    count = {"one": 1, "some": length // 3 + 1, "all": length, "more": 2 * length + 5}[taps]
    b, d = (3, 3) if length < 4000 else (1, 3)
    assert_right(engine, noise(b, d, length, count, seed=length))


@pytest.mark.parametrize("length", [65536, 100_000, 300_000])
def test_long(engine: Engine, length: int) -> None:
    assert_right(engine, noise(1, 1, length, length))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("length", "taps"), [(10007, 100), (4096, 64), (4097, 700), (130, 64), (100_000, 900)])
def test_short_filters_skip_work_in_tiles(length: int, taps: int, bidirectional: bool) -> None:
    engine = Engine("cpu", "native")
    with record_calls() as short:
        assert_right(engine, noise(2, 3, length, taps, bidirectional=bidirectional))
    with record_calls() as dense:
        engine(noise(2, 3, length, length, bidirectional=bidirectional))
    if length > 4 * 900:

        def cost(call: Call) -> float:  # a transform's, by its length
            return call.work * math.log2(call.plan)

        assert cost(short[0]) <= 0.9 * cost(dense[0])
        assert short[0].plan <= 4 * taps * (1 + bidirectional)
        assert taps > 100 or cost(short[0]) <= 0.65 * cost(dense[0])


@pytest.mark.parametrize("gates", ["", "i", "o", "io"])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_operand_alone(engine: Engine, gates: str, skip: bool, bidirectional: bool) -> None:
    assert_right(engine, noise(2, 3, 300, 300, gates=gates, skip=skip, bidirectional=bidirectional))


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 1000, 4097])
@pytest.mark.parametrize("taps", ["one", "some", "all", "more"])
def test_both_directions(engine: Engine, length: int, taps: str) -> None:
    count = {"one": 1, "some": length // 3 + 1, "all": length, "more": 2 * length + 5}[taps]
    assert_right(engine, noise(2, 3, length, count, bidirectional=True))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed_sequences_do_not_see_each_other(engine: Engine, bidirectional: bool) -> None:
    bounds = [0, 1, 1, 8, 300, 301, 812, 1000]
    assert_right(engine, noise(2, 3, 1000, 400, bounds=bounds, bidirectional=bidirectional))


@pytest.mark.parametrize(("b", "d"), [(1, 1), (1, 7), (3, 1), (5, 3), (70, 1)])
def test_odd_batches_and_channels(engine: Engine, b: int, d: int) -> None:
    assert_right(engine, noise(b, d, 200, 200))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("length", [257, 1024, 5000])
def test_dtypes(engine: Engine, dtype: torch.dtype, length: int) -> None:
    case = noise(2, 3, length, length, dtype=dtype)
    if dtype == torch.float16:  # keep the result inside the dtype's range
        case = Case(case.u, case.k / length, case.dy, case.in_gate, case.out_gate, case.skip)
    assert_right(engine, case)


def test_filters_of_another_dtype(engine: Engine) -> None:
    case = noise(2, 3, 300, 300)
    assert case.skip is not None
    k, skip = case.k.bfloat16(), case.skip.bfloat16()
    found = fftconv(case.u, k, skip=skip, backend=engine.backend)
    right = reference.fftconv(case.u.double(), k.double(), skip=skip.double())
    assert row_errors(found, right).max() < FLOAT32


def test_empty_batch_and_no_channels(engine: Engine) -> None:
    for b, d in ((0, 3), (2, 0)):
        u, k = torch.zeros(b, d, 9, requires_grad=True), torch.zeros(d, 4, requires_grad=True)
        y = fftconv(u, k, backend=engine.backend)
        assert y.shape == u.shape
        _, dk = torch.autograd.grad(y.sum(), (u, k))
        assert dk.shape == k.shape
        assert not dk.any()


def test_views_of_a_projection(engine: Engine) -> None:
    projected = torch.randn(2, 300, 9, generator=torch.Generator().manual_seed(1))
    v, x1, x2 = (part.transpose(1, 2) for part in projected.chunk(3, -1))
    assert not v.is_contiguous()
    k = noise(2, 3, 300, 300).k
    found = fftconv(v, k, in_gate=x1, out_gate=x2, backend=engine.backend)
    right = reference.fftconv(v.double(), k.double(), in_gate=x1.double(), out_gate=x2.double())
    assert row_errors(found, right).max() < FLOAT32
    assert found.is_contiguous()
    wide = torch.randn(2, 3, 700)[..., ::2], torch.randn(3, 600)[:, :: -1 + 3]
    assert (
        row_errors(fftconv(*wide, backend=engine.backend), reference.fftconv(*(t.double() for t in wide))).max()
        < FLOAT32
    )


def test_an_expanded_gradient(engine: Engine) -> None:
    case = noise(2, 3, 300, 300)
    assert_right(engine, Case(case.u, case.k, torch.ones(1).expand(2, 3, 300), case.in_gate, case.out_gate, case.skip))


@pytest.mark.parametrize(("b", "d", "length"), [(40, 5, 3000), (3, 1, 20_000), (2, 2, 300_000)])
def test_the_same_bits_every_time_and_with_any_threads(b: int, d: int, length: int) -> None:
    case, engine, threads = noise(b, d, length, length), Engine("cpu", "native"), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first = engine(case)
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            again = engine(case)
            for name, value in first.items():
                assert torch.equal(value, again[name]), f"{name} differs with {count} threads"
    finally:
        torch.set_num_threads(threads)


def test_a_nan_stays_in_its_row(engine: Engine) -> None:
    case = noise(3, 4, 200, 200)
    case.u[1, 2, 50] = float("nan")
    found = engine(case)
    bad = torch.zeros(3, 4, dtype=torch.bool)
    bad[1, 2] = True
    for name in ("y", "u", "in_gate", "out_gate"):
        assert torch.isfinite(found[name][~bad]).all(), name
    assert torch.isnan(found["y"][1, 2]).any()
    assert torch.isfinite(found["k"][[0, 1, 3]]).all()
    assert torch.isnan(found["k"][2]).any()


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
@pytest.mark.parametrize("what", ["u", "k"])
def test_any_scale(engine: Engine, scale: float, what: str) -> None:
    case = noise(2, 3, 1000, 1000, gates="", skip=False)
    u, k = (case.u * scale, case.k) if what == "u" else (case.u, case.k * scale)
    found, right = fftconv(u, k, backend=engine.backend), reference.fftconv(u.double(), k.double())
    assert row_errors(found, right).max() < FLOAT32


def _hard(length: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    white = torch.randn(2, 3, length, generator=generator)
    quiet = white.clone()
    quiet[..., length // 2 :] *= 1000
    spike = white.clone()
    spike[..., length // 3] = 1000.0
    alone = white.clone()
    alone[:, 1] *= 1e4
    return {
        "quiet before loud": quiet,
        "differenced": white.diff(dim=-1, prepend=white[..., :1]),
        "alternating": white.abs() * (1 - 2 * (torch.arange(length) % 2)),
        "spike": spike,
        "decades": white * torch.logspace(0, -6, length),
        "one loud channel": alone,
        "zeros": torch.zeros(2, 3, length),
    }


@pytest.mark.parametrize("name", list(_hard(8)))
@pytest.mark.parametrize("smooth", [False, True])
def test_the_law_of_errors_on_hard_data(engine: Engine, name: str, smooth: bool) -> None:
    length = 2000
    u = _hard(length)[name]
    k = torch.exp(-torch.arange(length) / 500.0).expand(3, length) if smooth else noise(1, 3, 1, length).k
    right = reference.fftconv(u.double(), k.double())
    top = torch.fft.rfft(k.double(), 2 * length).abs().amax(-1)
    allowed = FLOAT32 * 0.1 * top * u.double().norm(dim=-1)
    error = (fftconv(u, k, backend=engine.backend).double() - right).norm(dim=-1)
    assert (error <= allowed).all()


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("length", [1000, 5000])
def test_a_spectrum_is_the_filter(length: int, bidirectional: bool) -> None:
    case = noise(2, 3, length, 300, bidirectional=bidirectional)
    kept = spectrum(case.k, length, bidirectional=bidirectional)
    plain = fftconv(case.u, case.k, bidirectional=bidirectional, backend="cpu")
    assert torch.equal(fftconv(case.u, kept, bidirectional=bidirectional, backend="cpu"), plain)
    shorter = case.u[..., :200]
    again = fftconv(shorter, kept, bidirectional=bidirectional, backend="cpu")
    right = reference.fftconv(shorter.double(), case.k.double(), bidirectional=bidirectional)
    assert row_errors(again, right).max() < FLOAT32


def test_a_spectrum_lets_the_gradient_through() -> None:
    case = noise(2, 3, 300, 300, gates="", skip=False)
    k = case.k.clone().requires_grad_()
    dk = torch.autograd.grad(fftconv(case.u, spectrum(k, 300), backend="cpu"), k, case.dy)[0]
    assert row_errors(dk, exact(case)["k"]).max() < FLOAT32


def test_many_short_sequences_cost_at_most_twice_one_long_one() -> None:
    u, k = torch.randn(1, 2, 100_000), torch.randn(2, 100)
    bounds = torch.arange(0, 100_001, 100, dtype=torch.int32)
    with record_calls() as packed:
        fftconv(u, k, cu_seqlens=bounds, backend="cpu")
    with record_calls() as dense:
        fftconv(u, torch.randn(2, 100_000), backend="cpu")
    assert packed[0].work <= 2 * dense[0].work
    assert packed[0].plan == 128
