"""What a convolution must be: one checker for every backend, loose enough for none that is wrong."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dnasm.ops import Call, fftconv, record_calls, reference

OPERANDS = ("u", "k", "in_gate", "out_gate", "skip")


@dataclass(frozen=True)
class Case:
    """Inputs of one call and the gradient that comes back; None leaves an operand out."""

    u: Tensor
    k: Tensor
    dy: Tensor
    in_gate: Tensor | None = None
    out_gate: Tensor | None = None
    skip: Tensor | None = None
    bidirectional: bool = False
    cu_seqlens: Tensor | None = None
    max_seqlen: int | None = None

    def operands(self) -> dict[str, Tensor]:
        return {name: value for name in OPERANDS if (value := getattr(self, name)) is not None}

    def options(self) -> dict[str, object]:
        return {"bidirectional": self.bidirectional, "cu_seqlens": self.cu_seqlens}

    def promises(self) -> dict[str, object]:
        return {"max_seqlen": self.max_seqlen}

    def to(self, device: str) -> "Case":
        moved = {n: v.to(device) for n in (*OPERANDS, "dy", "cu_seqlens") if (v := getattr(self, n)) is not None}
        return replace(self, **moved)


def noise(
    b: int, d: int, length: int, taps: int, *, dtype: torch.dtype = torch.float32, gates: str = "io", skip: bool = True,
    bidirectional: bool = False, bounds: list[int] | None = None, seed: int = 0,
) -> Case:  # fmt: skip
    """White noise; `gates` holds i and o for the input's and the output's."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return Case(
        draw(b, d, length).to(dtype),
        draw(d, 2, taps) if bidirectional else draw(d, taps),
        draw(b, d, length).to(dtype),
        draw(b, d, length).to(dtype) if "i" in gates else None,
        draw(b, d, length).to(dtype) if "o" in gates else None,
        draw(d) if skip else None,
        bidirectional,
        None if bounds is None else torch.tensor(bounds, dtype=torch.int32),
    )


@dataclass(frozen=True)
class Engine:
    """One body of one backend, which a run must prove to have used."""

    backend: str
    body: str
    device: str = "cpu"

    def __call__(self, case: Case) -> dict[str, Tensor]:
        """y under "y", and the gradient of every operand under its name."""
        leaves = {name: value.clone().requires_grad_() for name, value in case.to(self.device).operands().items()}
        with record_calls() as calls:
            y = fftconv(**leaves, **case.to(self.device).options(), **case.promises(), backend=self.backend)
            grads = torch.autograd.grad(y, list(leaves.values()), case.dy.to(self.device))
        assert [(c.backend, c.body, c.direction) for c in calls] == [
            (self.backend, self.body, "forward"),
            (self.backend, self.body, "backward"),
        ]
        return {"y": y.detach().cpu(), **{name: g.cpu() for name, g in zip(leaves, grads, strict=True)}}


Runner = Callable[[Case], dict[str, Tensor]]


def exact(case: Case) -> dict[str, Tensor]:
    """The definition in float64, gradients by autograd."""
    leaves = {name: value.double().requires_grad_() for name, value in case.operands().items()}
    y = reference.fftconv(**leaves, **case.options())
    grads = torch.autograd.grad(y, list(leaves.values()), case.dy.double())
    return {"y": y.detach(), **dict(zip(leaves, grads, strict=True))}


FLOAT32 = 1e-5
"""Relative error of a row in float32, with room: 3e-7 is usual."""


def row_errors(actual: Tensor, expected: Tensor) -> Tensor:
    """Relative L2 error along the last dimension; a row that should be zero counts its norm."""
    size = expected.norm(dim=-1)
    return (actual.double() - expected).norm(dim=-1) / torch.where(size == 0, 1.0, size)


def assert_right(run: Runner, case: Case, internal: float = FLOAT32, of_filter: float | None = None) -> None:
    """Every output of a run, row by row, against float64: `internal`, and what rounding the row to its dtype costs.

    `of_filter` is what the gradients of the filter and the skip, sums that no 16-bit rounding hides, may err instead.
    The float64 side is computed where an `Engine` runs.

    A row of few samples may cancel to next to nothing, so that its error is measured against the row's scale: at least
    the mean row of the same output.
    """
    expected, found = {n: t.cpu() for n, t in exact(case.to(getattr(run, "device", "cpu"))).items()}, run(case)
    assert found.keys() == expected.keys()
    for name, right in expected.items():
        actual = found[name]
        like = case.u if name == "y" else getattr(case, name)
        assert actual.dtype == like.dtype, f"{name} is {actual.dtype}"
        assert actual.shape == right.shape, f"{name} has shape {tuple(actual.shape)}"
        assert torch.isfinite(actual).all(), f"{name} is not finite"
        scale = right.norm(dim=-1).clamp(min=right.norm(dim=-1).mean())
        rounding = (right.to(like.dtype).double() - right).norm(dim=-1)
        own = of_filter if name in ("k", "skip") and of_filter is not None else internal
        allowed = own * scale + 1.1 * rounding
        assert (allowed < 0.01 * scale).all() or not scale.any(), "too loose to tell right from wrong"
        error = (actual.double() - right).norm(dim=-1)
        worst = (error - allowed).argmax()
        assert (error <= allowed).all(), (
            f"{name}: relative error {(error / scale).flatten()[worst]:.2g}, "
            f"allowed {(allowed / scale).flatten()[worst]:.2g}"
        )


def work(calls: list[Call]) -> int:
    return sum(call.work for call in calls)
