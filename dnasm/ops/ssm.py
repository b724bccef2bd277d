"""The kernel of a diagonal state-space model, without ever holding its states over time."""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def vandermonde(
    coefficients: Complex[Tensor, "h n"],
    log_poles: Complex[Tensor, "h n"],
    length: int,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "h l"]:
    """Sum decaying waves: `k[h, t] = 2 * Re(sum_n coefficients[h, n] * exp(t * log_poles[h, n]))`, t from 0.

    Time is split as `t = coarse + fine`, so that the sum over n becomes one real matrix product per channel. What is
    held besides the result grows with the square root of the length, never as `h * n * l`, and autograd does the rest.

    Args:
        coefficients: Weight of each wave. Give both in complex128: at position t a phase loses log2(t) bits.
        log_poles: Logarithms of the poles; real parts at most 0.
        length: Number of taps.
        dtype: In which the waves are multiplied and summed.
    """
    parts = (coefficients.real, coefficients.imag), (log_poles.real, log_poles.imag)
    return real_vandermonde(*parts, length, dtype)


def real_vandermonde(
    coefficients: tuple[Float[Tensor, "h n"], Float[Tensor, "h n"]],
    log_poles: tuple[Float[Tensor, "h n"], Float[Tensor, "h n"]],
    length: int,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "h l"]:
    """Do the same with real and imaginary parts in float64, which compilers fuse."""
    device = log_poles[0].device
    step = 1 << math.ceil(math.log2(max(length, 1)) / 2)
    fine = _real_waves(log_poles, torch.arange(step, device=device))
    coarse = _real_waves(log_poles, torch.arange(0, length, step, device=device))
    real, imag = (part[..., None] for part in coefficients)
    rows = torch.cat([real * coarse[0] - imag * coarse[1], -real * coarse[1] - imag * coarse[0]], 1).to(dtype)
    columns = torch.cat(fine, 1).to(dtype)
    return 2 * torch.bmm(rows.transpose(1, 2), columns).flatten(1)[:, :length]


def _real_waves(
    log_poles: tuple[Float[Tensor, "h n"], Float[Tensor, "h n"]], times: Tensor
) -> tuple[Float[Tensor, "h n t"], Float[Tensor, "h n t"]]:
    decay, angle = (part[..., None] * times.to(part.dtype) for part in log_poles)
    size = decay.exp()
    return size * angle.cos(), size * angle.sin()


def waves(log_poles: Complex[Tensor, "h n"], times: Tensor) -> Complex[Tensor, "h n t"]:
    """Each pole to the power of each time."""
    t = times.to(log_poles.real.dtype)
    return torch.polar((log_poles.real[..., None] * t).exp(), log_poles.imag[..., None] * t)
