"""The short depthwise convolution, 3 to 7 taps, beside the long one: C++ on a CPU, torch's own elsewhere."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dnasm.ops import backends, cpu, reference

MAX_TAPS = 64
"""More are a long filter: the C++ body holds a span and its neighbours in a buffer."""


def short_conv(
    x: Float[Tensor, "b d l"], weight: Float[Tensor, "d taps"], bias: Float[Tensor, " d"] | None = None
) -> Float[Tensor, "b d l"]:
    """Convolve each channel with a few taps, causally, in torch's order: `weight[:, -1]` meets the present base.

    `dnasm.ops.reference.short_conv` is the definition. A view (b, d, l) of a (b, l, d) projection is read as it lies.

    Args:
        x: Signal in float32, bfloat16, float16 or float64.
        weight: Taps of each channel, any float dtype.
        bias: Added to each channel.

    Raises:
        TypeError: If a tensor is not floating point.
        ValueError: If a shape does not fit.
    """
    for name, tensor in (("x", x), ("weight", weight), ("bias", bias)):
        if tensor is not None and not tensor.is_floating_point():
            raise TypeError(f"{name} is {tensor.dtype}; it must be floating point: {name}.float()")
    if x.dim() != 3 or weight.dim() != 2 or weight.shape[0] != x.shape[1] or weight.shape[1] == 0:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, weight {tuple(weight.shape)}; they must be (batch, channels, length) and "
            "(channels, taps)"
        )
    if bias is not None and bias.shape != x.shape[1:2]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}; it takes one number a channel: ({x.shape[1]},)")
    return torch.ops.dnasm.short_conv(x, weight, bias)


def _native(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and torch.float64 not in (x.dtype, weight.dtype)
        and weight.shape[1] <= MAX_TAPS
        and not cpu.unavailable()
    )


def _run(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    native = _native(x, weight)
    backends.note(backends.Call(x.device.type, "native" if native else "torch", "short", x.numel()))
    if not native:
        return reference.short_conv(x, weight.to(x.dtype), bias).contiguous()
    y = torch.empty(x.shape, dtype=x.dtype)
    torch.ops.dnasm_cpu.short_forward(
        x, weight.float().contiguous(), None if bias is None else bias.float().contiguous(), y
    )
    return y


def _run_backward(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty_like(x)
    if _native(x, weight):
        dweight, dbias = torch.zeros(weight.shape), torch.zeros(weight.shape[0])
        torch.ops.dnasm_cpu.short_backward(dy, x, weight.float().contiguous(), dx, dweight, dbias)
    else:
        taps = weight.shape[1]
        back = torch.nn.functional.pad(dy, (0, taps - 1)), weight.flip(1)[:, None].to(dy.dtype)
        dx.copy_(torch.nn.functional.conv1d(*back, groups=x.shape[1]))
        past = torch.nn.functional.pad(x, (taps - 1, 0)).unfold(-1, x.shape[-1], 1)  # (b, d, taps, l)
        dweight, dbias = (dy[:, :, None] * past).sum((0, 3)), dy.sum((0, 2))
    return dx, dweight.to(weight.dtype), dbias.to(weight.dtype if bias is None else bias.dtype)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape)


def _fake_backward(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    like = weight if bias is None else bias
    return torch.empty_like(x), weight.new_empty(weight.shape), like.new_empty(weight.shape[0])


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    grads = torch.ops.dnasm.short_conv_backward(dy, *ctx.saved_tensors)
    return tuple(grad if need else None for grad, need in zip(grads, ctx.needs_input_grad, strict=True))


def _second_gradient(ctx: Any, x1: Tensor, weight1: Tensor, bias1: Tensor) -> tuple[Any, ...]:
    """Gradient of <dy, y'>, y' the derivative of y when x moves toward x1 and so on: y is linear in each."""
    dy, x, weight, bias = ctx.saved_tensors
    conv, backward = torch.ops.dnasm.short_conv, torch.ops.dnasm.short_conv_backward
    moved = conv(x1, weight, None) + conv(x, weight1.to(weight.dtype), None)
    if bias is not None:
        moved = moved + bias1[:, None].to(moved.dtype)
    dx = backward(dy, x, weight1.to(weight.dtype), None)[0]
    dweight = backward(dy, x1, weight, None)[1]
    return moved, dx, dweight, None if bias is None else torch.zeros_like(bias)


def _autocast(device: str) -> Callable[..., Tensor]:
    def cast(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        dtype = x.dtype if x.dtype == torch.float64 else torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return torch.ops.dnasm.short_conv(x.to(dtype), weight, bias)

    return cast


def _register() -> torch.library.Library:
    library = torch.library.Library("dnasm", "FRAGMENT")  # type: ignore[no-untyped-call]
    inputs = "Tensor x, Tensor weight, Tensor? bias"
    operators: list[tuple[str, Callable[..., Any], Callable[..., Any]]] = [
        (f"short_conv({inputs}) -> Tensor", _run, _fake),
        (f"short_conv_backward(Tensor dy, {inputs}) -> (Tensor, Tensor, Tensor)", _run_backward, _fake_backward),
    ]
    for schema, run, fake in operators:
        name = schema.split("(")[0]
        library.define(schema, tags=torch.Tag.pt2_compliant_tag)  # type: ignore[no-untyped-call]
        library.impl(name, run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"dnasm::{name}", fake, lib=library)
    library.impl("short_conv", _autocast("cpu"), "AutocastCPU")  # type: ignore[no-untyped-call]
    library.impl("short_conv", _autocast("cuda"), "AutocastCUDA")  # type: ignore[no-untyped-call]
    torch.library.register_autograd("dnasm::short_conv", _gradient, setup_context=_remember, lib=library)
    torch.library.register_autograd(
        "dnasm::short_conv_backward", _second_gradient, setup_context=_remember, lib=library
    )
    return library


_library = _register()
