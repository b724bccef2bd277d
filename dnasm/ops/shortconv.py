"""The short depthwise convolution, 3 to 7 taps, beside the long one: our kernels, or torch's where those do not reach.

Also the three of a Hyena operator with the gate between two of them, which `hyena` builds on: 1 or 3 streams.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dnasm.ops import backends, cpu, cuda, reference
from dnasm.ops.library import Operator, register
from dnasm.ops.operands import require_tensor

MAX_TAPS = {"cpu": 64, "cuda": 8}
"""More are a long filter: the kernels hold a span and its neighbours in a buffer."""


def short_conv(
    x: Float[Tensor, "b d l"], weight: Float[Tensor, "d taps"], bias: Float[Tensor, " d"] | None = None, *,
    ahead: int = 0,
) -> Float[Tensor, "b d l"]:  # fmt: skip
    """Convolve each channel with a few taps in torch's order: `weight[:, -1 - ahead]` meets the present base.

    `dnasm.ops.reference.short_conv` is the definition. A view (b, d, l) of a (b, l, d) projection is read as it lies.

    Args:
        x: Signal in float32, bfloat16, float16 or float64.
        weight: Taps of each channel, any float dtype.
        bias: Added to each channel.
        ahead: How many of the taps look ahead; none: causal.

    Raises:
        TypeError: If a tensor is not floating point.
        ValueError: If a shape does not fit.
    """
    check(x, weight, bias, ahead)
    return torch.ops.dnasm.short_conv(x, weight, bias, ahead)


def check(x: Tensor, weight: Tensor, bias: Tensor | None, ahead: int) -> None:
    """Refuse what cannot be convolved, by name."""
    require_tensor("x", x)
    require_tensor("weight", weight)
    require_tensor("bias", bias, optional=True)
    for name, tensor in (("x", x), ("weight", weight), ("bias", bias)):
        require_tensor(name, tensor, optional=name == "bias")
        if tensor is not None and not tensor.is_floating_point():
            raise TypeError(f"{name} is {tensor.dtype}; it must be floating point: {name}.float()")
        if tensor is not None and tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device}, x on {x.device}; move it: {name}.to(x.device)")
    if x.dim() != 3 or weight.dim() != 2 or weight.shape[0] != x.shape[1] or weight.shape[1] == 0:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, weight {tuple(weight.shape)}; they must be (batch, channels, length) and "
            "(channels, taps)"
        )
    if x.shape[2] == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}: no positions to convolve; leave empty sequences out")
    if bias is not None and bias.shape != x.shape[1:2]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}; it takes one number a channel: ({x.shape[1]},)")
    if not 0 <= ahead < weight.shape[1]:
        raise ValueError(f"ahead is {ahead} for {weight.shape[1]} taps; it must be 0 to {weight.shape[1] - 1}")


def _native(x: Tensor, weight: Tensor) -> bool:
    device = x.device.type
    if x.numel() == 0 or torch.float64 in (x.dtype, weight.dtype) or weight.shape[1] > MAX_TAPS.get(device, 0):
        return False
    why = cpu.unavailable() if device == "cpu" else cuda.short_unavailable(x.dtype, x.device.index)
    if why and device == "cuda":
        backends.say_once(f"short convolutions run through torch on {x.device}, more slowly: {why}")
    return not why


def _kernels(x: Tensor) -> Any:
    """Operators of csrc/bindings.cpp for a tensor's device."""
    return torch.ops.dnasm_cuda if x.device.type == "cuda" else torch.ops.dnasm_cpu


def _plain(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return weight.float().contiguous(), None if bias is None else bias.float().contiguous()


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, ahead: int, streams: int) -> list[Tensor]:
    """Return the convolution, or of three streams the first's and the product of the other two's."""
    native = _native(x, weight)
    backends.note(backends.Call(x.device.type, "native" if native else "torch", "short", x.numel()))
    if not native:
        y = reference.short_conv(x, weight.to(x.dtype), bias, ahead=ahead).contiguous()
        if streams == 1:
            return [y]
        gate, left, right = y.chunk(3, 1)
        return [gate.contiguous(), left * right]
    results = _kernels(x).short_convolve(x, *_plain(weight, bias), streams, ahead)
    return list(results[: 1 + (streams == 3)])


def backward(
    dy: Tensor, dmixed: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor | None, ahead: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; `dmixed` is the product's, where there are three streams."""
    streams = 1 if dmixed is None else 3
    if not _native(x, weight):
        dx, dweight, dbias = _torch_backward(dy, dmixed, x, weight, bias, ahead)
    else:
        dx = torch.empty_like(x)
        dweight, dbias = _kernels(x).short_gradients(dy, dmixed, x, *_plain(weight, bias), streams, ahead, dx)
    return dx, dweight.to(weight.dtype), dbias.to(weight.dtype if bias is None else bias.dtype)


def _torch_backward(
    dy: Tensor, dmixed: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor | None, ahead: int
) -> tuple[Tensor, Tensor, Tensor]:
    if dmixed is not None:
        _, left, right = reference.short_conv(x, weight.to(x.dtype), bias, ahead=ahead).chunk(3, 1)
        dy = torch.cat([dy, dmixed * right, dmixed * left], 1)
    past = weight.shape[1] - 1 - ahead
    back = torch.nn.functional.pad(dy, (ahead, past)), weight.flip(1)[:, None].to(dy.dtype)
    dx = torch.empty_like(x).copy_(torch.nn.functional.conv1d(*back, groups=x.shape[1]))
    seen = torch.nn.functional.pad(x, (past, ahead)).unfold(-1, x.shape[-1], 1)  # (b, d, taps, l)
    return dx, (dy[:, :, None] * seen).sum((0, 3)), dy.sum((0, 2))


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, ahead: int) -> Tensor:
    return forward(x, weight, bias, ahead, 1)[0]


def _run_backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, ahead: int
) -> tuple[Tensor, Tensor, Tensor]:
    return backward(dy, None, x, weight, bias, ahead)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, ahead: int) -> Tensor:
    return x.new_empty(x.shape)


def fake_gradients(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes, dtypes and strides of what `backward` returns."""
    like = weight if bias is None else bias
    return torch.empty_like(x), weight.new_empty(weight.shape), like.new_empty(weight.shape[0])


def _fake_backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, ahead: int
) -> tuple[Tensor, Tensor, Tensor]:
    return fake_gradients(x, weight, bias)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.ahead = inputs
    ctx.save_for_backward(*tensors)


def _gradient(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    grads = torch.ops.dnasm.short_conv_backward(dy, *ctx.saved_tensors, ctx.ahead)
    return (*(grad if need else None for grad, need in zip(grads, ctx.needs_input_grad, strict=False)), None)


def _second_gradient(ctx: Any, x1: Tensor, weight1: Tensor, bias1: Tensor) -> tuple[Any, ...]:
    """Gradient of <dy, y'>, y' the derivative of y when x moves toward x1 and so on: y is linear in each."""
    dy, x, weight, bias = ctx.saved_tensors
    conv, backward = torch.ops.dnasm.short_conv, torch.ops.dnasm.short_conv_backward
    moved = conv(x1, weight, None, ctx.ahead) + conv(x, weight1.to(weight.dtype), None, ctx.ahead)
    if bias is not None:
        moved = moved + bias1[:, None].to(moved.dtype)
    dx = backward(dy, x, weight1.to(weight.dtype), None, ctx.ahead)[0]
    dweight = backward(dy, x1, weight, None, ctx.ahead)[1]
    return moved, dx, dweight, None if bias is None else torch.zeros_like(bias), None


def _autocast(device: str) -> Callable[..., Tensor]:
    def cast(x: Tensor, weight: Tensor, bias: Tensor | None, ahead: int) -> Tensor:
        dtype = x.dtype if x.dtype == torch.float64 else torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return torch.ops.dnasm.short_conv(x.to(dtype), weight, bias, ahead)

    return cast


_INPUTS = "Tensor x, Tensor weight, Tensor? bias, int ahead"
_library = register(
    Operator(f"short_conv({_INPUTS}) -> Tensor", _run, _fake, _gradient, _remember, _autocast),
    Operator(
        f"short_conv_backward(Tensor dy, {_INPUTS}) -> (Tensor, Tensor, Tensor)",
        _run_backward, _fake_backward, _second_gradient, _remember,
    ),
)  # fmt: skip
