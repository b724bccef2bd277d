"""Calls outside of any compiler, on CUDA, straight to the kernels' operator.

The way through `dnasm::fftconv` is for tracers, transforms and first calls: its checks, its two dispatches into Python
and autograd's general wrapper take longer than the kernels of a short signal. A call of a kind that has gone that way
once takes this one: the same kernels, behind one operator in C++ that believes nothing, and one `autograd.Function`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from dnasm.ops import backends, cuda, registration
from dnasm.ops.operands import bits

_PLAIN = frozenset((Tensor, Parameter))
_DEVICE = "cuda"
_SMALL = 128 << 20
"""Bytes of a transform that are always worth keeping: to make it again takes as long as a whole batch of one."""


def fftconv(
    u: Tensor, k: Tensor, in_gate: Tensor | None, out_gate: Tensor | None, skip: Tensor | None, values: Tensor | None,
    bidirectional: bool, precision: str | None, backend: str,
) -> Tensor | None:  # fmt: skip
    """The convolution, or None where the call must take the long way."""
    number = cuda.routes.get((u.shape[-1:], k.shape[-1:], u.dtype, k.dtype, u.device.index, precision, backend))
    if number is None or bidirectional != (k.dim() == 3):
        return None
    grad = False
    for t in (u, k, in_gate, out_gate, skip):
        if t is not None:
            if type(t) not in _PLAIN:
                return None
            grad |= t.requires_grad
    if torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active():
        return None
    if torch.is_autocast_enabled(_DEVICE) and u.dtype != torch.get_autocast_dtype(_DEVICE):
        return None
    try:
        if grad and torch.is_grad_enabled():
            y = _apply(u, k, in_gate, out_gate, skip, values, precision, number)
        else:
            y = torch.ops.dnasm_cuda.convolve(u, k, in_gate, out_gate, skip, values, number)[0]
    except RuntimeError:
        return None  # the long way says in words what is wrong
    if backends.recording():
        _note(u, number, "forward")
    return y


def _note(u: Tensor, number: int, direction: str) -> None:
    plan = cuda.plan(u.shape[-1], number)
    backends.note(backends.Call("cuda", "native", direction, u.shape[0] * u.shape[1] * (plan or u.shape[-1]), plan))


class _Convolution(torch.autograd.Function):
    """Keeps the filter's transform too, unless it is large, larger than the signal and than half of all else kept."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, k: Tensor, in_gate: Tensor | None, out_gate: Tensor | None, skip: Tensor | None,
        values: Tensor | None, precision: str | None, number: int,
    ) -> Tensor:  # fmt: skip
        y, spectrum = torch.ops.dnasm_cuda.convolve(u, k, in_gate, out_gate, skip, values, number)
        tensors = u, k, in_gate, out_gate, skip
        if values is None and spectrum is not None:
            anyway = sum(t.nbytes for t in tensors if t is not None)
            values = spectrum if spectrum.nbytes <= max(u.nbytes, anyway // 2, _SMALL) else None
        ctx.save_for_backward(*tensors, values)
        ctx.options = precision, number
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        *tensors, values = ctx.saved_tensors
        precision, number = ctx.options
        needs = ctx.needs_input_grad[: len(tensors)]
        if torch.is_grad_enabled():  # the gradient is to have one itself
            rest = (None, None, tensors[1].dim() == 3, None, precision, "cuda", list(needs))
            grads = registration.fftconv_backward(dy, *tensors, *rest)
            grads = [grad if need else None for grad, need in zip(grads, needs, strict=True)]
        else:
            number = cuda.way_back(tensors[0], tensors[1], number)
            if backends.recording():
                _note(tensors[0], number, "backward")
            grads = torch.ops.dnasm_cuda.gradients(dy, *tensors, values, number, bits(needs))
        return (*grads, None, None, None)


_apply: Callable[..., Tensor] = super(torch.autograd.Function, _Convolution).apply
"""Past the checks for torch.func, which `fftconv` has made."""
