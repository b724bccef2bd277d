"""The Vandermonde sum against its definition, its gradient, and what it holds."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dnasm.ops import ssm
from dnasm.ops.ssm import real_vandermonde, vandermonde


def _waves(h: int, n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    coefficients = torch.randn(h, n, dtype=torch.complex128, generator=generator)
    decay = -torch.rand(h, n, dtype=torch.float64, generator=generator) * 0.05 - 1e-4
    return coefficients, torch.complex(decay, torch.rand(h, n, dtype=torch.float64, generator=generator) * math.pi)


@pytest.mark.parametrize("length", [1, 2, 3, 16, 17, 1000, 4096])
def test_it_is_the_sum_of_waves(length: int) -> None:
    coefficients, log_poles = _waves(3, 5)
    times = torch.arange(length, dtype=torch.float64)
    exact = 2 * (coefficients[..., None] * torch.exp(log_poles[..., None] * times)).sum(1).real
    torch.testing.assert_close(vandermonde(coefficients, log_poles, length, torch.float64), exact, atol=1e-11, rtol=0)
    torch.testing.assert_close(vandermonde(coefficients, log_poles, length).double(), exact, atol=1e-5, rtol=0)


def test_far_positions_keep_their_phase() -> None:
    coefficients, log_poles = _waves(2, 4)
    log_poles = torch.complex(log_poles.real * 1e-4, log_poles.imag)
    length = 1 << 18
    exact = 2 * (coefficients * torch.exp(log_poles * (length - 1))).sum(1).real
    torch.testing.assert_close(vandermonde(coefficients, log_poles, length)[:, -1].double(), exact, atol=2e-6, rtol=0)


def test_gradients() -> None:
    coefficients, log_poles = (x.requires_grad_() for x in _waves(2, 3))
    torch.autograd.gradcheck(lambda c, p: vandermonde(c, p, 21, torch.float64), (coefficients, log_poles))


def test_second_gradients() -> None:
    coefficients, log_poles = (x.requires_grad_() for x in _waves(2, 2))
    torch.autograd.gradgradcheck(lambda c, p: vandermonde(c, p, 9, torch.float64), (coefficients, log_poles))
    frozen = log_poles.detach()
    torch.autograd.gradgradcheck(lambda c: vandermonde(c, frozen, 9, torch.float64).square(), coefficients)


def test_gradients_in_float32_are_those_of_float64() -> None:
    gradients = []
    for dtype in (torch.float32, torch.float64):
        parts = [part.clone().requires_grad_() for x in _waves(4, 3) for part in (x.real, x.imag)]
        k = real_vandermonde((parts[0], parts[1]), (parts[2], parts[3]), 3000, dtype)
        k.backward(torch.randn(4, 3000, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype))
        gradients.append([part.grad for part in parts])
    for single, exact in zip(*gradients, strict=True):
        torch.testing.assert_close(single, exact, rtol=0, atol=2e-6 * exact.abs().max().item())


def test_it_is_one_operator_to_a_compiler() -> None:
    parts = [part.clone().requires_grad_() for x in _waves(2, 3) for part in (x.real, x.imag)]
    torch.library.opcheck(torch.ops.dnasm.vandermonde.default, (*parts, 37, torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        k = real_vandermonde((parts[0], parts[1]), (parts[2], parts[3]), 37)
    torch.testing.assert_close(k, real_vandermonde((parts[0], parts[1]), (parts[2], parts[3]), 37), rtol=0, atol=0)


class _Largest(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that any operation made."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return result


def test_no_state_is_held_over_time() -> None:
    h, n, length = 2, 32, 1 << 16
    parts = [part for x in _waves(h, n) for part in (x.real, x.imag)]
    with _Largest() as largest:
        k = ssm._run(*parts, length, torch.float32)
        ssm._run_backward(k, *parts, length, torch.float32)
    assert largest.bytes <= max(4 * h * length, 16 * h * n * 2 * math.isqrt(length))
