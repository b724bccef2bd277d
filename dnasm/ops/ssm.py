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
    step = 1 << math.ceil(math.log2(max(length, 1)) / 2)
    fine = waves(log_poles, torch.arange(step, device=log_poles.device))
    coarse = coefficients[..., None] * waves(log_poles, torch.arange(0, length, step, device=log_poles.device))
    rows = torch.cat([coarse.real, -coarse.imag], 1).to(dtype)
    columns = torch.cat([fine.real, fine.imag], 1).to(dtype)
    return 2 * torch.bmm(rows.transpose(1, 2), columns).flatten(1)[:, :length]


def waves(log_poles: Complex[Tensor, "h n"], times: Tensor) -> Complex[Tensor, "h n t"]:
    """Each pole to the power of each time."""
    t = times.to(log_poles.real.dtype)
    return torch.polar((log_poles.real[..., None] * t).exp(), log_poles.imag[..., None] * t)
