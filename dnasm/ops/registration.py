"""`dnasm::fftconv` and its gradient as torch operators: fake tensors, autograd and its second derivative, autocast."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dnasm.ops import backends
from dnasm.ops.library import Operator, register
from dnasm.ops.operands import GRADIENTS, Operands

_INPUTS = (
    "Tensor u, Tensor k, Tensor? in_gate, Tensor? out_gate, Tensor? skip, Tensor? cu_seqlens, Tensor? values, "
    "bool bidirectional, int? max_seqlen, str? precision, str backend"
)
"""The fields of `Operands`, and the backend: no function below names them again."""


def _run(*inputs: Any) -> Tensor:
    *operands, backend = inputs
    return backends.forward(Operands(*operands), backend)


def _run_backward(dy: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    *operands, backend, needs = inputs
    found = backends.backward(Operands(*operands), dy, tuple(needs), backend)
    return tuple(dy.new_empty(0) if grad is None else grad.contiguous() for grad in found)


def _fake(u: Tensor, *_: object) -> Tensor:
    return u.new_empty(u.shape)


def _fake_backward(dy: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    needs = inputs[-1]
    return tuple(
        t.new_empty(t.shape) if need and t is not None else dy.new_empty(0)
        for t, need in zip(inputs[: len(needs)], needs, strict=True)
    )


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Keep the tensors, which come first, and the options, of which `bidirectional` is the first."""
    tensors = next(i for i, x in enumerate(inputs) if isinstance(x, bool))
    ctx.save_for_backward(*inputs[:tensors])
    ctx.options = inputs[tensors:]


def _gradient(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    needs = list(ctx.needs_input_grad[: len(GRADIENTS)])
    grads = fftconv_backward(dy, *ctx.saved_tensors, *ctx.options, needs)
    wanted = [grad if need else None for grad, need in zip(grads, needs, strict=True)]
    return (*wanted, *[None] * (len(ctx.needs_input_grad) - len(wanted)))


def _second_gradient(ctx: Any, *toward: Tensor) -> tuple[Any, ...]:
    """Gradient of `<dy, y'>`, y' the derivative of y when each input p moves toward `toward[p]`.

    With x = in_gate * u and C = conv(x, k) + skip * x this is `y' = out_gate' C + out_gate C'`, where C' is C of (x',
    k, skip) plus C of (x, k', skip'): convolutions and their gradients again, so every order of derivative works.
    """
    dy, u, k, in_gate, out_gate, skip, cu_seqlens, _ = ctx.saved_tensors
    needs = ctx.options[-1]
    rest = (cu_seqlens, None, *ctx.options[:-1])

    def times(a: Tensor, gate: Tensor | None) -> Tensor:
        return a if gate is None else a * gate

    def direction(index: int, like: Tensor | None) -> Tensor | None:
        return toward[index] if needs[index] and like is not None else None

    u1, k1, in1, out1, skip1 = (direction(i, t) for i, t in enumerate((u, k, in_gate, out_gate, skip)))
    zero = torch.zeros_like(u)
    x = times(u, in_gate)
    x1 = (zero if u1 is None else times(u1, in_gate)) + (zero if in1 is None else u * in1)
    k1 = torch.zeros_like(k) if k1 is None else k1
    skip1 = torch.zeros_like(skip) if skip1 is None and skip is not None else skip1

    conv = fftconv(x, k, None, None, skip, *rest)
    conv1 = fftconv(x1, k, None, None, skip, *rest) + fftconv(x, k1, None, None, skip1, *rest)
    g = times(dy, out_gate)
    g1 = zero if out1 is None else dy * out1
    plain = [True, True, False, False, skip is not None]
    dx, dk, _, _, dskip = fftconv_backward(g1, x, k, None, None, skip, *rest, plain)
    dx1, dk1, _, _, dskip1 = fftconv_backward(g, x1, k, None, None, skip, *rest, plain)
    dx = dx + fftconv_backward(g, x, k1, None, None, skip1, *rest, [True, False, False, False, False])[0]

    grads = (
        times(conv1, out_gate) + (zero if out1 is None else out1 * conv),
        times(dx, in_gate) + times(dx1, in1 if in1 is not None else zero),
        dk + dk1,
        None if in_gate is None else u * dx + (zero if u1 is None else u1 * dx1),
        None if out_gate is None else dy * conv1,
        None if skip is None else dskip + dskip1,
    )
    wanted = [grad if need else None for grad, need in zip(grads, ctx.needs_input_grad, strict=False)]
    return (*wanted, *[None] * (len(ctx.needs_input_grad) - len(wanted)))


def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return tensor if tensor is None or tensor.dtype == torch.float64 else tensor.to(dtype)


def _autocast(device: str) -> Callable[..., Tensor]:
    def cast(u: Tensor, k: Tensor, in_gate: Tensor | None, out_gate: Tensor | None, *rest: Any) -> Tensor:
        """Signals take autocast's dtype; the filter and the skip keep theirs, they are small and want their digits."""
        dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return fftconv(_cast(u, dtype), k, _cast(in_gate, dtype), _cast(out_gate, dtype), *rest)

    return cast


_library = register(
    Operator(f"fftconv({_INPUTS}) -> Tensor", _run, _fake, _gradient, _remember, _autocast),
    Operator(
        f"fftconv_backward(Tensor dy, {_INPUTS}, bool[5] needs) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        _run_backward, _fake_backward, _second_gradient, _remember,
    ),
)  # fmt: skip
fftconv = torch.ops.dnasm.fftconv.default
"""The convolution; arguments as `dnasm.ops.fftconv`, which checks them, plus k's spectrum if it is known."""
fftconv_backward = torch.ops.dnasm.fftconv_backward.default
"""Gradients for u, k, in_gate, out_gate and skip; an empty tensor stands for one that is not needed."""
