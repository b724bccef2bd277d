"""The recurrence in pieces, against one position after the other in complex128."""

import pytest
import torch
from torch import Tensor

from dnasm.models.diagonal_steps import DiagonalSteps
from dnasm.models.filters import DiagonalKernel


def _one_by_one(kernel: DiagonalKernel, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """What an old state adds to each output, and the state at the end."""
    log_poles, b, c = kernel.discretized()
    echoes, old = [], state
    for t in range(u.shape[-1]):
        old, state = log_poles.exp() * old, log_poles.exp() * state + b * u[..., t, None]
        echoes.append(2 * (c * old).real.sum(-1))
    return torch.stack(echoes, -1), state


@pytest.mark.parametrize("length", [2, 256, 257, 700])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@torch.no_grad()
def test_pieces_are_steps(length: int, dtype: torch.dtype, error: float) -> None:
    torch.manual_seed(0)
    kernel = DiagonalKernel(3, 8).to(dtype)
    steps, u = kernel.steps(), torch.randn(2, 3, length, dtype=dtype)
    assert steps.dtype == dtype
    state = torch.randn(2, 3, 4, dtype=torch.complex128)
    for fresh in (False, True):
        expected, last = _one_by_one(kernel, u.double(), state * (not fresh))
        parts = [part.to(dtype) * (not fresh) for part in (state.real, state.imag)]
        echo, real, imag = steps.absorb(u, *parts, fresh=fresh)
        assert (torch.complex(real, imag) - last).norm() <= error * last.norm()
        assert (echo is None) == fresh
        if echo is not None:
            assert (echo - expected).norm() <= error * expected.norm()


def test_nothing_is_computed_before_it_is_needed() -> None:
    asked = []

    def discretized() -> tuple[Tensor, Tensor, Tensor]:
        asked.append(1)
        one = torch.ones(3, 4, dtype=torch.complex128)
        return -one / 10, one, one

    steps = DiagonalSteps(discretized, torch.float32)
    assert not asked
    assert len(steps.planes) == 6
    assert steps.poles.dtype == torch.complex64
    assert len(asked) == 1


@pytest.mark.gpu
@torch.no_grad()
def test_bfloat16_inputs_lose_nothing_on_a_gpu() -> None:
    torch.manual_seed(0)
    kernel = DiagonalKernel(64, 64).cuda()
    u = torch.randn(8, 64, 700, device="cuda").bfloat16()
    nothing = torch.zeros(8, 64, 32, device="cuda")
    wide, short = (kernel.steps().absorb(x, nothing, nothing, fresh=True)[1:] for x in (u.float(), u))
    for a, b in zip(wide, short, strict=True):
        assert b.dtype == torch.float32
        assert (a - b).norm() / a.norm() < 3e-5
