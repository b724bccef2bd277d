"""The direct product for short filters, run on the CPU by the emulator, against float64."""

from pathlib import Path

import pytest
import torch

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
from tests.csrc.kernels import KernelError
from tests.csrc.short_kernels import DirectKernels, short_library
from tests.csrc.test_one_block import BF16, assert_white, gradient_like, hard_inputs

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.fixture(scope="module")
def kernels(objects: Path) -> DirectKernels:
    return DirectKernels(short_library(objects, ("float16", "bfloat16")))


def check(kernels: DirectKernels, case: Case, room: float = 4e-4) -> None:
    dy = gradient_like(case)
    y, gradients = run(kernels, case, dy)
    wanted, wanted_gradients = exact(case, dy)
    assert gradients is not None
    pairs = {"u": (gradients.du, case.u), "in_gate": (gradients.din_gate, case.in_gate)}
    pairs["out_gate"] = (gradients.dout_gate, case.out_gate)
    assert_white(y, wanted, room)
    for name, (found, given) in pairs.items():
        if given is not None:
            assert found is not None
            assert_white(found, wanted_gradients[name], room)
    reached = wanted_gradients["k"] != 0
    assert (gradients.dk[~reached] == 0).all()
    assert row_errors(gradients.dk, wanted_gradients["k"]).max() <= 8e-4
    if case.skip is not None:
        torch.testing.assert_close(gradients.dskip.double(), wanted_gradients["skip"], rtol=5e-3, atol=0.5)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("b", "d", "length", "taps"),
    [
        (1, 3, 1100, 7),  # a unit and a bit, few taps
        (3, 2, 256, 256),  # whole, a ragged batch of short rows
        (5, 1, 255, 16),
        (3, 2, 512, 300),
        (2, 1, 700, 17),  # three tiles a row
        (3, 1, 130, 200),  # more taps than positions
        (1, 2, 9000, 33),  # more units than warps of a block
        (1, 1, 1500, 400),  # two groups of lag blocks
    ],
)
def test_parity(kernels: DirectKernels, b: int, d: int, length: int, taps: int, bidirectional: bool) -> None:
    check(kernels, noise_case(b, d, length, taps, BF16, bidirectional=bidirectional))


@pytest.mark.parametrize("gates", ["", "i", "o"])
def test_each_gate_alone_in_float16(kernels: DirectKernels, gates: str) -> None:
    case = noise_case(2, 3, 600, 64, torch.float16, gates=gates, skip=gates == "i")
    case.k /= 8
    check(kernels, case)


@pytest.mark.parametrize("length", [1, 2, 15, 17, 333, 1031])
def test_rows_that_start_at_odd_addresses(kernels: DirectKernels, length: int) -> None:
    case = noise_case(3, 3, length, 19, BF16)
    y, _ = run(kernels, case)
    wanted, _ = exact(case)
    assert row_errors(y.flatten()[None], wanted.flatten()[None]) <= floor(wanted.flatten()[None], BF16) + 4e-4


@pytest.mark.parametrize("name", list(hard_inputs(8)))
def test_the_law_holds_on_every_row(kernels: DirectKernels, name: str) -> None:
    x, k = hard_inputs(2048)[name]
    case = Case(x.to(BF16), k[:, :200].contiguous())
    y, _ = run(kernels, case)
    wanted, _ = exact(case)
    error = (y.double() - wanted).norm(dim=-1)
    room = 5e-4 * largest_response(case.k, 2048) * case.u.double().norm(dim=-1)
    allowed = (wanted.to(BF16).double() - wanted).norm(dim=-1) + room
    assert (error <= allowed).all(), f"{(error / allowed).max():.2f} of what is allowed"


def test_powers_of_two_change_no_bit_however_large(kernels: DirectKernels) -> None:
    case = noise_case(2, 1, 300, 40, BF16, gates="", skip=False)
    dy = gradient_like(case)
    plain, gradients = run(kernels, case, dy)
    small, large = 2.0**-100, 2.0**90  # together beyond one factor of a float
    y, scaled = run(kernels, Case(case.u * large, case.k * small), dy * small)
    assert torch.equal(y, plain * 2.0**-10)
    assert gradients is not None
    assert scaled is not None
    assert torch.equal(scaled.dk, gradients.dk * 2.0**-10)
    y, _ = run(kernels, Case(case.u * large, case.k * 2.0**30))
    assert torch.equal(y, plain * 2.0**120)
    y, _ = run(kernels, Case(case.u * small, case.k * 2.0**-20))
    assert torch.equal(y, plain * 2.0**-120)


def test_rounding_does_not_reach_back_in_time(kernels: DirectKernels) -> None:
    case = noise_case(1, 1, 4096, 100, BF16, gates="", skip=False)
    clean, _ = run(kernels, case)
    case.u[..., 3000:] *= 100
    y, _ = run(kernels, case)
    assert torch.equal(y[..., :3000], clean[..., :3000])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_inf_stay_within_the_filter_s_reach(kernels: DirectKernels, bad: float) -> None:
    case = noise_case(5, 2, 250, 40, BF16, gates="")
    clean, _ = run(kernels, case)
    case.u[2, 1, 100] = bad
    y, _ = run(kernels, case)
    assert not y[2, 1, 100].isfinite()
    keep = torch.ones_like(y, dtype=torch.bool)
    keep[2, 1, 96:160] = False  # blocks of 16 share a product
    assert torch.equal(y[keep], clean[keep])


def test_neither_the_batch_nor_the_thread_order_changes_a_bit(kernels: DirectKernels) -> None:
    case = noise_case(9, 2, 500, 100, BF16)
    case.u[3] *= 1e20
    assert_order_changes_no_bit(kernels, case, gradient_like(case), alone=4)


@pytest.mark.parametrize("k_dtype", [torch.float64, BF16])
def test_filters_of_every_float_type_and_strided_rows(kernels: DirectKernels, k_dtype: torch.dtype) -> None:
    together = torch.randn(2, 9, 512, generator=torch.Generator().manual_seed(3)).to(BF16)
    u, in_gate, out_gate = together.split(3, 1)
    k = torch.randn(3, 30, generator=torch.Generator().manual_seed(4)).to(k_dtype)
    case = Case(u, k, in_gate, out_gate)
    assert_white(run(kernels, case)[0], exact(case)[0])


def test_what_is_not_possible_is_said(kernels: DirectKernels) -> None:
    with pytest.raises(KernelError, match="1024 taps"):
        run(kernels, noise_case(1, 1, 2000, 1025, BF16))
    with pytest.raises(KernelError, match="dtype"):
        run(kernels, noise_case(1, 1, 200, 5, torch.float32))
