"""The kernel of a diagonal state-space model, without ever holding its states over time.

`dnasm::vandermonde` is an operator that compilers do not look into: few launches do it, while sines of float64 numbers
by the million, fused with what surrounds them, take a compiler minutes.
"""

import math
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from dnasm.ops.library import Operator, register

Parts = tuple[Float[Tensor, "h n"], Float[Tensor, "h n"]]
"""Real and imaginary parts."""


def vandermonde(
    coefficients: Complex[Tensor, "h n"],
    log_poles: Complex[Tensor, "h n"],
    length: int,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "h l"]:
    """Sum decaying waves: `k[h, t] = 2 * Re(sum_n coefficients[h, n] * exp(t * log_poles[h, n]))`, t from 0.

    Time is split as `t = coarse + fine`, so that the sum over n becomes one real matrix product per channel. What is
    held besides the result grows with the square root of the length, never as `h * n * l`, and for the gradient only
    the arguments are kept.

    Args:
        coefficients: Weight of each wave. Give both in complex128: at position t a phase loses log2(t) bits.
        log_poles: Logarithms of the poles; real parts at most 0.
        length: Number of taps.
        dtype: In which the waves are multiplied and summed.
    """
    parts = (coefficients.real, coefficients.imag), (log_poles.real, log_poles.imag)
    return real_vandermonde(*parts, length, dtype)


def real_vandermonde(
    coefficients: Parts, log_poles: Parts, length: int, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "h l"]:
    """Do the same with real and imaginary parts in float64, which compilers fuse."""
    return torch.ops.dnasm.vandermonde(*coefficients, *log_poles, length, dtype)


def waves(log_poles: Complex[Tensor, "h n"], times: Tensor) -> Complex[Tensor, "h n t"]:
    """Each pole to the power of each time."""
    t = times.to(log_poles.real.dtype)
    return torch.polar((log_poles.real[..., None] * t).exp(), log_poles.imag[..., None] * t)


def _step(length: int) -> int:
    """How many times are fine: about the square root of all."""
    return 1 << math.ceil(math.log2(max(length, 1)) / 2)


def _powers(
    log_poles: Parts, step: int, count: int, dtype: torch.dtype, weight: Tensor | None = None
) -> Complex[Tensor, "h t n"]:
    """`weight` times each pole to the powers `0, step, ...`, `count` of them; of two exponentials each is a product.

    The exponentials are taken in float64, of about as many times as the square root of `count`; their products, in
    `dtype`, add a rounding.
    """
    device = log_poles[0].device
    few = 1 << (count - 1).bit_length() // 2
    times = torch.cat([torch.arange(few, device=device), few * torch.arange(-(-count // few), device=device)]) * step
    decay, angle = (part[:, None] * times.to(part.dtype)[:, None] for part in log_poles)
    factors = torch.polar(decay.exp_(), angle)
    fine, coarse = factors[:, :few], factors[:, few:]
    if weight is not None:
        fine = fine * weight[:, None]
    fine, coarse = fine.to(dtype.to_complex()), coarse.to(dtype.to_complex())
    return (coarse[:, :, None] * fine[:, None]).flatten(1, 2)[:, :count]


def _pairs(x: Complex[Tensor, "h t n"]) -> Float[Tensor, "h t two_n"]:
    return torch.view_as_real(x).flatten(2)


def _run(real: Tensor, imag: Tensor, decay: Tensor, angle: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    step = _step(length)
    with torch.autocast(real.device.type, enabled=False):
        # Re(c * p^coarse * p^fine) is the dot product of pairs (re, im) where the first factor is conjugate
        rows = _powers((decay, -angle), step, -(-length // step), dtype, 2 * torch.complex(real, -imag))
        columns = _powers((decay, angle), 1, step, dtype)
        return torch.bmm(_pairs(rows), _pairs(columns).mT).flatten(1)[:, :length].contiguous()


def _run_backward(
    dk: Tensor, real: Tensor, imag: Tensor, decay: Tensor, angle: Tensor, length: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """By `sum_t dk[t] * p^t`, whose parts belong to the weights, and `sum_t t * dk[t] * p^t`, for the poles."""
    step = _step(length)
    count = -(-length // step)
    with torch.autocast(real.device.type, enabled=False):
        dk = torch.nn.functional.pad(dk.to(dtype), (0, count * step - length)).reshape(-1, count, step)
        fine = torch.arange(step, device=dk.device, dtype=dtype)
        columns = _pairs(_powers((decay, angle), 1, step, dtype))
        shape = (*dk.shape[:2], real.shape[1], 2)
        plain, late = (torch.view_as_complex(torch.bmm(x, columns).view(*shape)) for x in (dk, dk * fine))
        coarse = _powers((decay, angle), step, count, dtype)
        late = late.add_(plain * (step * torch.arange(count, device=dk.device, dtype=dtype))[:, None])
        total, timed = ((coarse * x).sum(1).to(torch.complex128) for x in (plain, late))
        poles = torch.complex(real, imag).to(torch.complex128) * timed
    found = (2 * total.real, -2 * total.imag, 2 * poles.real, -2 * poles.imag)
    return tuple(grad.to(real.dtype) for grad in found)  # type: ignore[return-value]


def _plain(
    real: Tensor, imag: Tensor, decay: Tensor, angle: Tensor, length: int, dtype: torch.dtype
) -> Float[Tensor, "h l"]:
    """The definition, with as many derivatives as are asked for."""
    times = torch.arange(length, device=real.device)
    log_poles = torch.complex(decay, angle)
    return 2 * (torch.complex(real, imag)[..., None] * waves(log_poles, times)).sum(1).real.to(dtype)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.length, ctx.dtype = inputs[4:]


def _gradient(ctx: Any, dk: Tensor) -> tuple[Any, ...]:
    inputs, needs = ctx.saved_tensors, ctx.needs_input_grad
    if torch.is_grad_enabled():  # a derivative of this one will be wanted
        k = _plain(inputs[0], inputs[1], inputs[2], inputs[3], ctx.length, ctx.dtype)
        wanted = [x for x, need in zip(inputs, needs, strict=False) if need]
        found = iter(torch.autograd.grad(k, wanted, dk, create_graph=True))
        return (*(next(found) if need else None for need in needs[:4]), None, None)
    grads = torch.ops.dnasm.vandermonde_backward(dk, *inputs, ctx.length, ctx.dtype)
    return (*(grad if need else None for grad, need in zip(grads, needs, strict=False)), None, None)


def _fake(real: Tensor, imag: Tensor, decay: Tensor, angle: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    return real.new_empty(real.shape[0], length, dtype=dtype)


def _fake_backward(
    dk: Tensor, real: Tensor, imag: Tensor, decay: Tensor, angle: Tensor, length: int, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    return tuple(real.new_empty(real.shape) for _ in range(4))


_INPUTS = "Tensor real, Tensor imag, Tensor decay, Tensor angle, SymInt length, ScalarType dtype"
_library = register(
    Operator(f"vandermonde({_INPUTS}) -> Tensor", _run, _fake, _gradient, _remember),
    Operator(
        f"vandermonde_backward(Tensor dk, {_INPUTS}) -> (Tensor, Tensor, Tensor, Tensor)", _run_backward, _fake_backward
    ),
)
