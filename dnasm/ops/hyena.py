"""The operator of a Hyena block as one: three short convolutions, both gates and the skip around a long convolution."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dnasm.ops import backends, registration, shortconv
from dnasm.ops.library import Operator, register
from dnasm.ops.operands import PRECISIONS, Operands, require_tensor
from dnasm.ops.operands import check as check_operands
from dnasm.ops.spectrum import Spectrum


def hyena_operator(
    projection: Float[Tensor, "b e l"],
    k: Tensor | Spectrum,
    *,
    short_weight: Float[Tensor, "e taps"],
    short_bias: Float[Tensor, " e"] | None = None,
    skip: Float[Tensor, " d"] | None = None,
    bidirectional: bool = False,
    backend: str = "auto",
    precision: str | None = None,
) -> Float[Tensor, "b d l"]:
    """Return `x0 * (conv(x1 * v, k) + skip * (x1 * v))`, x0, x1 and v a projection's thirds, each through a few taps.

    `dnasm.ops.reference.hyena_operator` is the definition. The short convolutions, and the gate x1 on v, are one kernel
    that reads the projection once, as it lies; `fftconv` takes the rest. Backward computes the short convolutions again
    and keeps nothing but the inputs. Differentiable in every tensor, twice.

    Args:
        projection: (b, 3 d, l): the channels of x0, of x1 and of v; any strides, as a linear layer leaves it.
        k: Filter, or its spectrum, as `fftconv` takes it.
        short_weight: Taps for each channel of the projection, the last one for the present base; with `bidirectional`
            they are centred.
        short_bias: Added to each channel after them.
        skip: Weight of `x1 * v` itself, one a channel.
        bidirectional: Whether k has a future too.
        backend: As for `fftconv`; the short convolutions run on the device's own kernels wherever those are.
        precision: As for `fftconv`.

    Raises:
        BackendUnavailable: If the named backend cannot run here.
        TypeError: If a dtype does not fit.
        ValueError: If a shape, a device or an option does not fit.
    """
    require_tensor("projection", projection)
    require_tensor("short_weight", short_weight)
    if projection.dim() != 3 or projection.shape[1] % 3:
        raise ValueError(
            f"projection has shape {tuple(projection.shape)}; it must be (batch, 3 d, length): x0, x1 and v in turn"
        )
    if precision not in PRECISIONS:
        raise ValueError(f"no precision {precision!r}; pass 'float32' or None")
    ahead = short_weight.shape[-1] // 2 if bidirectional else 0
    shortconv.check(projection, short_weight, short_bias, ahead)
    values = None
    if isinstance(k, Spectrum):
        k.check(bidirectional)
        values, k = (k.values if projection.shape[-1] == k.length else None), k.k
    check_operands(Operands(projection.chunk(3, 1)[2], k, skip=skip, bidirectional=bidirectional), autocast=True)
    return torch.ops.dnasm.hyena_operator(
        projection, short_weight, short_bias, k, skip, values, ahead, bidirectional, precision,
        backends.check_name(backend),
    )  # fmt: skip


def _run(
    projection: Tensor, weight: Tensor, bias: Tensor | None, k: Tensor, skip: Tensor | None, values: Tensor | None,
    ahead: int, bidirectional: bool, precision: str | None, backend: str,
) -> Tensor:  # fmt: skip
    gate, z = shortconv.forward(projection, weight, bias, ahead, 3)
    op = Operands(z, k, out_gate=gate, skip=skip, values=values, bidirectional=bidirectional, precision=precision)
    return backends.forward(op, backend)


def _fake(projection: Tensor, *_: object) -> Tensor:
    b, e, length = projection.shape
    return projection.new_empty(b, e // 3, length)


def _gated(x: Tensor, weight: Tensor, bias: Tensor | None, ahead: int) -> tuple[Tensor, Tensor]:
    gate, z = shortconv.forward(x, weight, bias, ahead, 3)
    return gate, z


def _gated_backward(
    dgate: Tensor, dz: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, ahead: int
) -> tuple[Tensor, Tensor, Tensor]:
    return shortconv.backward(dgate, dz, x, weight, bias, ahead)


def _fake_gated(x: Tensor, weight: Tensor, bias: Tensor | None, ahead: int) -> tuple[Tensor, Tensor]:
    return _fake(x), _fake(x)


def _fake_gated_backward(
    dgate: Tensor, dz: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, ahead: int
) -> tuple[Tensor, Tensor, Tensor]:
    return shortconv.fake_gradients(x, weight, bias)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.options = inputs[6:]


def _gradient(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    """The short convolutions again, then the long one's gradient, then theirs; by ops that have gradients if asked."""
    projection, weight, bias, k, skip, values = ctx.saved_tensors
    ahead, bidirectional, precision, backend = ctx.options
    short, twice = (projection, weight, bias), torch.is_grad_enabled()
    if twice:
        gate, left, right = torch.ops.dnasm.short_conv(*short, ahead).chunk(3, 1)
        z = left * right
    else:
        gate, z = torch.ops.dnasm.gated_short_conv(*short, ahead)
    needs = [True, ctx.needs_input_grad[3], False, True, ctx.needs_input_grad[4]]
    op = Operands(z, k, out_gate=gate, skip=skip, values=values, bidirectional=bidirectional, precision=precision)
    inputs = (getattr(op, field.name) for field in fields(op) if field.init)
    dz, dk, _, dgate, dskip = registration.fftconv_backward(dy, *inputs, backend, needs)
    if twice:
        dc = torch.cat([dgate, dz * right, dz * left], 1)
        found = torch.ops.dnasm.short_conv_backward(dc, *short, ahead)
    else:
        found = torch.ops.dnasm.gated_short_conv_backward(dgate, dz, *short, ahead)
    wanted = (grad if need else None for grad, need in zip((*found, dk, dskip), ctx.needs_input_grad, strict=False))
    return (*wanted, None, None, None, None, None)


def _autocast(device: str) -> Callable[..., Tensor]:
    def cast(projection: Tensor, *rest: Any) -> Tensor:
        """The projection takes autocast's dtype; filters, taps and biases keep theirs."""
        dtype = projection.dtype if projection.dtype == torch.float64 else torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return torch.ops.dnasm.hyena_operator(projection.to(dtype), *rest)

    return cast


_SHORT = "Tensor weight, Tensor? bias"
_library = register(
    Operator(
        f"hyena_operator(Tensor projection, {_SHORT}, Tensor k, Tensor? skip, Tensor? values, int ahead, "
        "bool bidirectional, str? precision, str backend) -> Tensor",
        _run, _fake, _gradient, _remember, _autocast,
    ),
    Operator(f"gated_short_conv(Tensor x, {_SHORT}, int ahead) -> (Tensor, Tensor)", _gated, _fake_gated),
    Operator(
        f"gated_short_conv_backward(Tensor dgate, Tensor dz, Tensor x, {_SHORT}, int ahead) "
        "-> (Tensor, Tensor, Tensor)",
        _gated_backward, _fake_gated_backward,
    ),
)  # fmt: skip
