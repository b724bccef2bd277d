"""The operator in float64, and how far a kernel may be from it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dnasm.ops import reference
from tests.csrc.kernels import Gradients, Kernels, make_params, pack


@dataclass
class Case:
    """Inputs of one call; `None` leaves an operand out."""

    u: Tensor
    k: Tensor
    in_gate: Tensor | None = None
    out_gate: Tensor | None = None
    skip: Tensor | None = None
    bidirectional: bool = False

    def operands(self) -> dict[str, Tensor]:
        names = ("u", "k", "in_gate", "out_gate", "skip")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def noise_case(
    b: int, d: int, length: int, taps: int, dtype: torch.dtype, *, gates: str = "io", skip: bool = True,
    bidirectional: bool = False, seed: int = 0, k_dtype: torch.dtype = torch.float32,
) -> Case:  # fmt: skip
    """White noise; `gates` holds i and o for the input's and the output's."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return Case(
        noise(b, d, length).to(dtype),
        noise(d, 2, taps).to(k_dtype) if bidirectional else noise(d, taps).to(k_dtype),
        noise(b, d, length).to(dtype) if "i" in gates else None,
        noise(b, d, length).to(dtype) if "o" in gates else None,
        noise(d) if skip else None,
        bidirectional,
    )


def exact(case: Case, dy: Tensor | None = None, bounds: list[int] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """y, and with dy the gradient of every operand, in float64; `bounds` of packed sequences."""
    wide = {name: value.double().requires_grad_(dy is not None) for name, value in case.operands().items()}
    cu_seqlens = None if bounds is None else torch.tensor(bounds, dtype=torch.int32)
    y = reference.fftconv(**wide, bidirectional=case.bidirectional, cu_seqlens=cu_seqlens)
    if dy is None:
        return y, {}
    y.backward(dy.double())
    return y.detach(), {name: value.grad for name, value in wide.items() if value.grad is not None}


def run(
    kernels: Kernels, case: Case, dy: Tensor | None = None, precision: int = 0, bounds: list[int] | None = None
) -> tuple[Tensor, Gradients | None]:
    """The same through the kernels; outputs and scratch start as NaNs."""
    params = make_params(**case.operands(), bidirectional=case.bidirectional, precision=precision)
    places = None if bounds is None else torch.tensor(bounds)
    if places is not None:
        pack(params, places)
    keep = kernels.spectrum(params, case.u.device)
    y = kernels.forward(params, case.u)
    gradients = None if dy is None else kernels.backward(params, case.u, case.k, dy)
    del keep, places
    return y, gradients


def assert_order_changes_no_bit(kernels: Kernels, case: Case, dy: Tensor, alone: int) -> None:
    """Neither the order of threads nor, for row `alone`, the rest of the batch."""
    kernels.seed(1)
    y, first = run(kernels, case, dy)
    kernels.seed(2)
    again, second = run(kernels, case, dy)
    assert first is not None
    assert second is not None
    assert torch.equal(y, again)
    assert torch.equal(first.dk, second.dk)
    assert torch.equal(first.dskip, second.dskip)
    here = slice(alone, alone + 1)
    gates = (None if gate is None else gate[here] for gate in (case.in_gate, case.out_gate))
    assert torch.equal(run(kernels, Case(case.u[here], case.k, *gates, case.skip))[0], y[here])


def row_errors(actual: Tensor, wanted: Tensor) -> Tensor:
    """Relative L2 error of each row; zeros for zeros, NaN for NaN."""
    off, size = (actual.double() - wanted).norm(dim=-1), wanted.norm(dim=-1)
    return torch.where(size == 0, off, off / size)


def floor(wanted: Tensor, dtype: torch.dtype) -> Tensor:
    """The error of each row if nothing but its output is rounded."""
    return row_errors(wanted.to(dtype), wanted)


def largest_response(k: Tensor, plan: int) -> Tensor:
    """max |K| of each channel at the roots of z^L = i, the transform's own frequencies."""
    n = torch.arange(plan, dtype=torch.float64)
    cut = torch.nn.functional.pad(k.double(), (0, max(0, plan - k.shape[-1])))[..., :plan]
    return (torch.fft.ifft(cut * torch.exp(0.5j * torch.pi * n / plan)) * plan).abs().amax(-1)
