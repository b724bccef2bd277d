"""The kernels on a device, by the same checker as every other body (`make gpu`)."""

from dataclasses import replace

import pytest
import torch

from dnasm.errors import BackendUnavailable
from dnasm.ops import fftconv, hyena_operator, record_calls, reference, spectrum
from tests.parity.checks import Case, Engine, assert_right, noise, row_errors

pytestmark = pytest.mark.gpu

KERNELS = Engine("cuda", "native", "cuda")
INTERNAL, FILTER = 7e-4, 1.5e-3
"""What fp16 operands may add to the rounding of white-noise rows, and what the filter's gradient may err."""


@pytest.fixture(autouse=True, scope="module")
def _device() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.mark.parametrize("length", [1, 2, 7, 100, 256, 1000, 1024, 4096, 10007, 32768])
@pytest.mark.parametrize("taps", ["some", "all", "more"])
def test_lengths_and_filters(length: int, taps: str) -> None:
    count = {"some": length // 3 + 1, "all": length, "more": 2 * length + 5}[taps]
    assert_right(KERNELS, noise(3, 5, length, count, dtype=torch.bfloat16), INTERNAL, FILTER)


@pytest.mark.parametrize("gates", ["", "i", "o", "io"])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_operand_alone(gates: str, skip: bool, bidirectional: bool) -> None:
    case = noise(2, 3, 1000, 1000, gates=gates, skip=skip, bidirectional=bidirectional, dtype=torch.bfloat16)
    assert_right(KERNELS, case, INTERNAL, FILTER)


@pytest.mark.parametrize(("length", "taps"), [(600, 7), (8192, 128), (10_007, 300), (100_000, 500)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_few_taps_are_multiplied_out(length: int, taps: int, bidirectional: bool) -> None:
    count = taps // 2 if bidirectional else taps
    case = noise(2, 3, length, count, bidirectional=bidirectional, dtype=torch.bfloat16)
    assert_right(KERNELS, case, INTERNAL, FILTER)
    case = case.to("cuda")
    with record_calls() as calls:
        fftconv(case.u, case.k, bidirectional=bidirectional)
    assert calls[0].plan == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [100, 1000, 4096])
def test_the_hyena_operator(length: int, dtype: torch.dtype) -> None:
    generator = torch.Generator("cuda").manual_seed(1)

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device="cuda", generator=generator)

    projection, k = leaf(2, length, 96).to(dtype).mT, leaf(32, length) / length**0.5
    inputs = [t.requires_grad_() for t in (projection, k, leaf(96, 3), leaf(96), leaf(32))]
    wide = [t.detach().double().requires_grad_() for t in inputs]
    found, right = (
        call(t[0], t[1], short_weight=t[2], short_bias=t[3], skip=t[4])
        for call, t in ((hyena_operator, inputs), (reference.hyena_operator, wide))
    )
    dy = leaf(2, 32, length).to(dtype)
    gradients = torch.autograd.grad(found, inputs, dy)
    expected = torch.autograd.grad(right, wide, dy.double())
    for got, want in zip((found, *gradients), (right, *expected), strict=True):
        assert (got.double() - want).norm() <= (2e-2 if dtype == torch.bfloat16 else 1e-5) * want.norm()


@pytest.mark.parametrize("length", [1024, 65536])
def test_float16(length: int) -> None:
    case = noise(2, 3, length, length, dtype=torch.float16)
    assert_right(KERNELS, replace(case, k=case.k / length**0.5), 8e-4, FILTER)


@pytest.mark.parametrize("length", [1, 100, 1024, 10007, 65536, 1_000_000])
@pytest.mark.parametrize("taps", ["some", "all"])
def test_float32(length: int, taps: str) -> None:
    assert_right(KERNELS, noise(1, 3, length, length if taps == "all" else length // 3 + 1))


@pytest.mark.parametrize("length", [32769, 65536, 131_079, 1 << 20])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_past_one_block(length: int, bidirectional: bool) -> None:
    case = noise(2, 3, length, length, bidirectional=bidirectional, dtype=torch.bfloat16)
    assert_right(KERNELS, case, INTERNAL, FILTER)


@pytest.mark.parametrize("length", [(1 << 24) - 3, 1 << 24])
def test_sixteen_million_positions(length: int) -> None:
    case = noise(1, 1, length, length, gates="i" if length % 2 else "", dtype=torch.bfloat16)
    assert_right(KERNELS, case, INTERNAL, FILTER)


@pytest.mark.parametrize(("batch", "channels", "length"), [(2049, 1024, 1024), (8193, 2, 131_072)])
def test_more_than_2_to_the_31_elements(batch: int, channels: int, length: int) -> None:
    """Only the first and the last row of the batch hold anything: what lands elsewhere, or comes from there, shows."""
    ends = [0, batch - 1]

    def among_zeros(case: Case) -> dict[str, torch.Tensor]:
        def spread(rows: torch.Tensor) -> torch.Tensor:
            whole = torch.zeros(batch, channels, length, dtype=rows.dtype, device="cuda")
            assert whole.numel() > 2**31
            whole[ends] = rows.cuda()
            return whole

        case = replace(case, u=spread(case.u), dy=spread(case.dy))
        leaves = {name: value.cuda().requires_grad_() for name, value in case.operands().items()}
        y = fftconv(**leaves, backend="cuda")
        found = {"y": y.detach(), **dict(zip(leaves, torch.autograd.grad(y, [*leaves.values()], case.dy), strict=True))}
        for name in ("y", "u"):
            assert not found[name][1:-1].any()
            found[name] = found[name][ends]
        return {name: value.cpu() for name, value in found.items()}

    assert_right(among_zeros, noise(2, channels, length, length, gates="", dtype=torch.bfloat16), INTERNAL, FILTER)


def test_packed_sequences_do_not_see_each_other() -> None:
    bounds = [0, 1, 1, 8, 300, 301, 812, 1000]
    assert_right(KERNELS, noise(2, 3, 1000, 400, bounds=bounds, dtype=torch.bfloat16), INTERNAL, FILTER)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")  # torch says that it is a prototype
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_packed_sequences_under_a_promised_length_wait_for_nothing(dtype: torch.dtype) -> None:
    bounds = [0, 1, 1, 8, 300, 301, 812, 1000]
    accuracy = (INTERNAL, FILTER) if dtype == torch.bfloat16 else ()
    case = replace(noise(2, 3, 1000, 400, bounds=bounds, dtype=dtype), max_seqlen=511)
    assert_right(KERNELS, case, *accuracy)
    on = case.to("cuda")
    graph, u = torch.cuda.CUDAGraph(), on.u.requires_grad_()
    try:
        torch.cuda.set_sync_debug_mode("error")
        run = lambda: fftconv(u, on.k, cu_seqlens=on.cu_seqlens, max_seqlen=511, backend="cuda")  # noqa: E731
        expected = run()
        torch.autograd.grad(expected, u, on.dy)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with torch.no_grad(), torch.cuda.graph(graph):
        y = run()
    y.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(y, expected)


def test_packed_sequences_of_one_block_and_of_many() -> None:
    case = noise(1, 2, 90_000, 300, bounds=[0, 100, 40_100, 40_200, 90_000], dtype=torch.bfloat16)
    assert_right(KERNELS, case, 1.2e-3, FILTER)


def test_rows_of_a_projection_are_read_in_place() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        projected, k = torch.randn(8, 48, 1024, device="cuda", dtype=dtype), torch.randn(16, 1024, device="cuda") / 1024
        u, in_gate, out_gate = projected.split(16, 1)
        dense = fftconv(u.contiguous(), k, in_gate=in_gate.contiguous(), out_gate=out_gate.contiguous(), backend="cuda")
        torch.cuda.synchronize()
        before = torch.cuda.memory_stats()["allocation.all.allocated"]
        y = fftconv(u, k, in_gate=in_gate, out_gate=out_gate, backend="cuda")
        assert (
            torch.cuda.memory_stats()["allocation.all.allocated"] - before == 2
        )  # the result and the filter's spectrum
        assert torch.equal(y, dense)


def test_named_precision_is_float32_s() -> None:
    case = noise(2, 3, 1000, 1000, dtype=torch.bfloat16).to("cuda")
    with record_calls() as calls:
        y = fftconv(case.u, case.k, precision="float32")
    assert calls[0].body == "native"
    exact = reference.fftconv(case.u.double(), case.k.double())
    assert (row_errors(y, exact) <= 1e-5 + 1.1 * row_errors(exact.bfloat16(), exact)).all()


def test_lengths_past_the_kernels_raise_by_name_and_fall_back_on_auto() -> None:
    u, k = torch.randn(1, 1, 1 << 25, device="cuda", dtype=torch.bfloat16), torch.randn(1, 1000, device="cuda")
    with pytest.raises(BackendUnavailable, match="no kernel covers length"):
        fftconv(u, k, backend="cuda")
    with record_calls() as calls:
        fftconv(u, k)
    assert (calls[0].backend, calls[0].body) == ("reference", "torch")


def test_views_and_spectra() -> None:
    projected = torch.randn(2, 1000, 9, device="cuda", dtype=torch.bfloat16)
    v, x1, x2 = (part.transpose(1, 2) for part in projected.chunk(3, -1))
    k = torch.randn(3, 1000, device="cuda")
    kept = spectrum(k, 1000)
    assert kept.values is not None
    plain = fftconv(v, k, in_gate=x1, out_gate=x2, backend="cuda")
    assert torch.equal(fftconv(v, kept, in_gate=x1, out_gate=x2, backend="cuda"), plain)


def test_the_same_bits_twice() -> None:
    case = noise(8, 5, 4096, 4096, dtype=torch.bfloat16)
    first, again = KERNELS(case), KERNELS(case)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_graph_replays_it() -> None:
    case = noise(2, 3, 1024, 1024, dtype=torch.bfloat16, gates="").to("cuda")
    run = lambda: fftconv(case.u, case.k, backend="cuda")  # noqa: E731
    expected = run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = run()
    y.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(y, expected)


def test_a_second_stream() -> None:
    case = noise(2, 3, 1024, 1024, dtype=torch.bfloat16).to("cuda")
    expected = fftconv(case.u, case.k, backend="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        y = fftconv(case.u, case.k, backend="cuda")
    stream.synchronize()
    assert torch.equal(y, expected)
