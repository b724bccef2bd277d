"""The one-block kernels, run on the CPU by the emulator, against float64."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.csrc.exact import (
    Case,
    assert_order_changes_no_bit,
    exact,
    floor,
    largest_response,
    noise_case,
    row_errors,
    run,
)
from tests.csrc.kernels import KernelError, Kernels, make_params
from tests.csrc.toolchain import host_library

PLANS = [256 << i for i in range(8)]
BF16 = torch.bfloat16


def gradient_like(case: Case) -> Tensor:
    return torch.randn(case.u.shape, generator=torch.Generator().manual_seed(9)).to(case.u.dtype)


def assert_white(actual: Tensor, wanted: Tensor, room: float = 4e-4) -> None:
    """White noise: 2.0e-3, or on short rows, whose own floor wanders up to there, little above that floor."""
    error, least = row_errors(actual, wanted), floor(wanted, actual.dtype)
    allowed = torch.maximum(least + room, torch.full_like(least, 2.0e-3 if actual.dtype == BF16 else 0.0))
    assert (error <= allowed).all(), f"{error.max():.2e} where rounding alone gives {least.max():.2e}"


@pytest.mark.parametrize("length", PLANS)
@pytest.mark.parametrize("full", [True, False])
def test_white_noise_meets_the_bounds(bf16: Kernels, length: int, full: bool) -> None:
    n, taps = (length, 2 * length) if full else (length - length // 5 - 1, length // 3)
    case = noise_case(3 if length <= 8192 else 1, 2, n, taps, BF16)
    dy = gradient_like(case)
    y, gradients = run(bf16, case, dy)
    wanted, wanted_gradients = exact(case, dy)
    assert gradients is not None
    assert gradients.din_gate is not None
    assert gradients.dout_gate is not None
    assert_white(y, wanted)
    assert_white(gradients.du, wanted_gradients["u"])
    assert_white(gradients.din_gate, wanted_gradients["in_gate"])
    assert_white(gradients.dout_gate, wanted_gradients["out_gate"])
    assert row_errors(gradients.dk[:, :n], wanted_gradients["k"][:, :n]).max() <= 1.5e-3
    assert (gradients.dk[:, n:] == 0).all()
    torch.testing.assert_close(gradients.dskip.double(), wanted_gradients["skip"], rtol=5e-3, atol=0.5)


@pytest.mark.parametrize("gates", ["", "i", "o"])
@pytest.mark.parametrize("length", [256, 1000, 4096])
def test_each_gate_alone(bf16: Kernels, length: int, gates: str) -> None:
    case = noise_case(2, 3, length, length, BF16, gates=gates, skip=gates == "i")
    dy = gradient_like(case)
    y, gradients = run(bf16, case, dy)
    wanted, wanted_gradients = exact(case, dy)
    assert gradients is not None
    assert_white(y, wanted)
    assert_white(gradients.du, wanted_gradients["u"])
    assert row_errors(gradients.dk, wanted_gradients["k"]).max() <= 1.5e-3
    if gates == "i":
        assert gradients.din_gate is not None
        assert_white(gradients.din_gate, wanted_gradients["in_gate"])
    if gates == "o":
        assert gradients.dout_gate is not None
        assert_white(gradients.dout_gate, wanted_gradients["out_gate"])


@pytest.mark.parametrize("length", [1, 2, 3, 255, 257, 1001, 10007])
def test_any_length_with_rows_that_start_at_odd_addresses(bf16: Kernels, length: int) -> None:
    case = noise_case(3, 3, length, min(length, 77), BF16)
    dy = gradient_like(case)
    y, gradients = run(bf16, case, dy)
    wanted, wanted_gradients = exact(case, dy)
    assert gradients is not None
    if length < 200:  # too few numbers for a statement about one row
        y, wanted = y.flatten()[None], wanted.flatten()[None]
        gradients.du, wanted_gradients["u"] = gradients.du.flatten()[None], wanted_gradients["u"].flatten()[None]
    assert_white(y, wanted, room=1e-3)
    assert_white(gradients.du, wanted_gradients["u"], room=1e-3)
    assert row_errors(gradients.dk.flatten(), wanted_gradients["k"].flatten()) <= 1.5e-3


@pytest.mark.parametrize("length", [256, 700, 4096])
def test_both_directions(bf16: Kernels, length: int) -> None:
    case = noise_case(2, 2, length, length, BF16, bidirectional=True)
    dy = gradient_like(case)
    y, gradients = run(bf16, case, dy)
    wanted, wanted_gradients = exact(case, dy)
    assert gradients is not None
    assert_white(y, wanted)
    assert_white(gradients.du, wanted_gradients["u"])
    assert row_errors(gradients.dk, wanted_gradients["k"]).max() <= 1.5e-3
    assert (gradients.dk[:, 1, -1] == 0).all()  # a lag as long as the sequence reaches nothing


def hard_inputs(length: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Rows and filters on which a transform's rounding shows: name -> (x, k)."""
    x = torch.randn(2, 2, length, generator=torch.Generator().manual_seed(1))
    white = torch.randn(2, length, generator=torch.Generator().manual_seed(2))
    n = torch.arange(length)
    loud = torch.where(n < length // 2, 1.0, 1000.0)
    spike = x.clone()
    spike[..., length // 3] *= 1000
    channel = x.clone()
    channel[:, 0] *= 1e4
    smooth = torch.exp(-n / 500).expand(2, -1)
    return {
        "quiet before loud": (x * loud, white),
        "smooth filter": (x, smooth),
        "smooth filter, differenced": (x.diff(prepend=x[..., :1]), smooth),
        "ones, alternating": ((1.0 - 2.0 * (n % 2)).expand_as(x), torch.ones(2, length)),
        "spike": (spike, white),
        "six decades": (x * 10.0 ** (-6 * n / length), white),
        "one loud channel": (channel, white),
        "constant": (torch.ones_like(x), torch.ones(2, length)),
        "tiny": (x * 1e-30, white),
        "huge": (x * 1e30, white),
        "tiny filter": (x, white * 1e-30),
        "huge filter": (x, white * 1e30),
        "huge by tiny": (x * 1e30, white * 1e-30),
    }


@pytest.mark.parametrize("name", list(hard_inputs(8)))
@pytest.mark.parametrize("length", [256, 4096, 32768])
def test_the_law_holds_on_every_row(bf16: Kernels, length: int, name: str) -> None:
    x, k = hard_inputs(length)[name]
    if length == 32768:
        x, k = x[:1, :1], k[:1]
    case = Case(x.to(BF16), k.contiguous())
    y, _ = run(bf16, case)
    wanted, _ = exact(case)
    error = (y.double() - wanted).norm(dim=-1)
    allowed = (wanted.to(BF16).double() - wanted).norm(dim=-1) + 7e-4 * largest_response(
        k, length
    ) * case.u.double().norm(dim=-1)
    assert (error <= allowed).all(), f"{(error / allowed).max():.2f} of what is allowed"


def test_zero_rows_and_zero_filters_give_zeros(bf16: Kernels) -> None:
    case = noise_case(2, 2, 4096, 4096, BF16, gates="")
    case.u[0] = 0
    case.k[1] = 0
    case.skip = None
    y, _ = run(bf16, case)
    assert (y[0] == 0).all()
    assert (y[:, 1] == 0).all()
    assert (y[1, 0] != 0).any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("length", [256, 512, 4096])
def test_nan_and_inf_stay_in_their_row(bf16: Kernels, length: int, bad: float) -> None:
    case = noise_case(5, 2, length, length, BF16, gates="")
    clean, _ = run(bf16, case)
    case.u[2, 1, 17] = bad
    y, _ = run(bf16, case)
    assert y[2, 1].isnan().all()
    keep = torch.ones(5, 2, dtype=torch.bool)
    keep[2, 1] = False
    assert torch.equal(y[keep], clean[keep])


def test_neither_the_batch_nor_the_thread_order_changes_a_bit(bf16: Kernels) -> None:
    case = noise_case(5, 2, 512, 512, BF16)
    assert_order_changes_no_bit(bf16, case, gradient_like(case), alone=3)


def test_blocks_that_go_from_channel_to_channel(bf16: Kernels) -> None:
    case = noise_case(9, 530, 256, 256, BF16, gates="", skip=False)  # two groups a channel, two or three a block
    y, _ = run(bf16, case)
    few = [0, 1, 2, 263, 264, 265, 528, 529]
    assert torch.equal(y[:, few], run(bf16, Case(case.u[:, few], case.k[few]))[0])  # a block for each group
    assert row_errors(y, exact(case)[0]).max() < 5e-3


def test_rows_of_a_projection_are_read_in_place(bf16: Kernels) -> None:
    together = torch.randn(2, 9, 1024, generator=torch.Generator().manual_seed(3)).to(BF16)
    u, in_gate, out_gate = together.split(3, 1)
    k = torch.randn(3, 1024, generator=torch.Generator().manual_seed(4))
    case = Case(u, k, in_gate, out_gate)
    assert_white(run(bf16, case)[0], exact(case)[0])


@pytest.mark.parametrize("longest", [256, 400, 1500])
def test_packed_sequences_share_rows(bf16: Kernels, longest: int) -> None:
    bounds = [0, 1, 1, 8, 8 + longest, 8 + 2 * longest, 20 + 2 * longest]
    case = noise_case(2, 3, bounds[-1], longest, BF16)
    dy = gradient_like(case)
    y, gradients = run(bf16, case, dy, bounds=bounds)
    wanted, wanted_gradients = exact(case, dy, bounds)
    assert gradients is not None
    assert_white(y, wanted)
    assert_white(gradients.du, wanted_gradients["u"])
    assert row_errors(gradients.dk, wanted_gradients["k"]).max() <= 1.5e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_rows_of_other_dtypes(objects: Path, dtype: torch.dtype) -> None:
    kernels = Kernels(host_library(objects, [(256, str(dtype).removeprefix("torch."))]))
    for length in (256, 201):
        case = noise_case(3, 2, length, length, dtype)
        case.k /= 256  # inside float16's range
        dy = gradient_like(case)
        y, gradients = run(kernels, case, dy)
        wanted, wanted_gradients = exact(case, dy)
        assert gradients is not None
        for found, right in ((y, wanted), (gradients.du, wanted_gradients["u"])):
            assert (row_errors(found, right) <= 1.1 * floor(right, dtype) + 7e-4).all()
        assert row_errors(gradients.dk, wanted_gradients["k"]).max() <= 1.5e-3


@pytest.mark.parametrize("k_dtype", [torch.float64, torch.float16, BF16])
def test_filters_of_every_float_type(bf16: Kernels, k_dtype: torch.dtype) -> None:
    case = noise_case(1, 2, 512, 300, BF16, k_dtype=k_dtype)
    assert_white(run(bf16, case)[0], exact(case)[0])


@pytest.mark.parametrize("length", PLANS)
def test_rounded_matrices_leave_the_gain_alone(objects: Path, length: int) -> None:
    kernels = Kernels(host_library(objects, [(length, "float32")], ["-O0"]))  # compiles fast, and runs 16,384 elements
    case = noise_case(max(2, 16384 // length), 1, length, length, torch.float32, gates="", skip=False)
    case.k.zero_()[:, 0] = 1
    y, _ = run(kernels, case)
    wanted, _ = exact(case)
    assert abs((y * wanted).sum() / (wanted * wanted).sum() - 1) < 3e-5
    assert row_errors(y, wanted).max() < 7.5e-4  # fp16 inside, whatever the interface


def test_what_is_not_possible_is_said(bf16: Kernels) -> None:
    case = noise_case(1, 1, (1 << 24) + 1, 8, BF16, gates="")
    with pytest.raises(KernelError, match="length"):
        bf16.spectrum(make_params(**case.operands()), case.u.device)
    half = noise_case(1, 1, 300, 8, torch.float16, gates="")
    with pytest.raises(KernelError, match="no kernels for this length and dtype"):
        run(bf16, half)
    with pytest.raises(KernelError, match="no kernels for this length and dtype"):
        run(bf16, noise_case(1, 1, 300, 8, BF16), precision=1)
    with pytest.raises(KernelError, match="precision"):
        run(bf16, noise_case(1, 1, 300, 8, BF16), precision=2)
