"""Fewer and larger kernels where a model only reads: what a step or a prompt on a GPU spends most of its time between.

Every operation that runs by itself reads its operands once more and writes its result. What comes again and again is
compiled, which takes seconds once; the rest takes the forms that the matrix products have ready.
"""

import logging
import time
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, rms_norm

_log = logging.getLogger(__name__)
Result = TypeVar("Result")
Norm = nn.LayerNorm | nn.RMSNorm
_SHORT = (torch.bfloat16, torch.float16)


def compiled(function: Callable[..., Result], name: str) -> Callable[..., Result]:
    """Return the function compiled for each shape that it meets; as it is, said once, where no compiler works."""
    fused: Callable[..., Result] | None = None
    able = True

    def run(*inputs: Any) -> Result:
        nonlocal able, fused
        if not able:
            return function(*inputs)
        first, began = fused is None, time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the compiler, about parts of torch
                if fused is None:
                    _log.info("compiling %s for this GPU, once for this process ...", name)
                    fused = torch.compile(function, dynamic=False)
                result = fused(*inputs)
        except Exception as error:  # compilers fail in many ways; nothing has been written by then
            able = False
            _log.warning("%s runs uncompiled, and slower: %s", name, str(error).splitlines()[0])
            return function(*inputs)
        if first:
            _log.info("compiled %s in %.1f s", name, time.monotonic() - began)
        return result

    return run


def add_norm(
    x: Float[Tensor, "b l d"], y: Float[Tensor, "b l d"] | None, norm: Norm, *, again: bool
) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b l d"]]:
    """Return `x + y` and its norm, in the norm's dtype; one kernel where it comes `again` and again on a GPU."""
    if y is not None and again and x.is_cuda and plain(norm):
        rows = x.flatten(0, 1), y.flatten(0, 1)
        total, h = _compiled_add_norm()(*rows, norm.weight, getattr(norm, "bias", None), norm.eps)
        return total.view(x.shape), h.view(x.shape)
    x = x if y is None else x + y
    return x, norm(x.to(norm.weight.dtype))


def _add_norm(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    x = x + y
    h, shape = x.to(weight.dtype), weight.shape
    return x, rms_norm(h, shape, weight, eps) if bias is None else layer_norm(h, shape, weight, bias, eps)


@lru_cache(maxsize=1)
def _compiled_add_norm() -> Callable[..., tuple[Tensor, Tensor]]:
    return compiled(_add_norm, "a sum and its norm")


def plain(module: nn.Module) -> bool:
    """Whether a layer is torch's own and nobody listens to it, so that its weights say all that it does."""
    listeners = module._forward_hooks or module._forward_pre_hooks
    return type(module) in (nn.Linear, nn.Conv1d, nn.Embedding, nn.LayerNorm, nn.RMSNorm) and not listeners


def reads_only(x: Tensor, *layers: nn.Module) -> bool:
    """Whether 16-bit products on a GPU may take a form of their own: no gradient, no autocast, plain layers.

    Others' tools put layers of their own in place of linear ones, as PEFT does: those are called as they are.
    """
    if not x.is_cuda or x.dtype not in _SHORT or torch.is_grad_enabled():
        return False
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cuda"):  # a compiler has forms of its own
        return False
    return all(plain(layer) and layer.weight.dtype == x.dtype and layer.bias is not None for layer in layers)


def linear_gelu(linear: nn.Module, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b e"]:
    """Return `gelu(linear(x))`, tanh form; on a GPU that only reads, as the end of the product itself."""
    if reads_only(x, linear):  # torch's tanh form on CUDA
        assert isinstance(linear, nn.Linear)
        rows = x.reshape(-1, x.shape[-1])
        return torch._addmm_activation(linear.bias, rows, linear.weight.T, use_gelu=True).view(*x.shape[:-1], -1)
    return gelu(linear(x), approximate="tanh")


def turned_linear(linear: nn.Linear, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b e l"]:
    """Return `linear(x)` with a channel's positions side by side, made so by the product: for `reads_only`."""
    weight = linear.weight.expand(x.shape[0], -1, -1)
    return _everywhere(linear.bias[:, None], (*weight.shape[:2], x.shape[1])).baddbmm_(weight, x.mT)


def linear_of_turned(linear: nn.Linear, x: Float[Tensor, "b d l"]) -> Float[Tensor, "b l e"]:
    """Return `linear` of what lies with a channel's positions side by side: for `reads_only`."""
    weight = linear.weight.T.expand(x.shape[0], -1, -1)
    return _everywhere(linear.bias, (x.shape[0], x.shape[2], weight.shape[2])).baddbmm_(x.mT, weight)


def _everywhere(bias: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Lay a bias out to a shape of its own, 16 bytes at a time: torch does it number by number, four times slower."""
    count = 16 // bias.element_size()
    if shape[-1] % count:
        return torch.empty(shape, dtype=bias.dtype, device=bias.device).copy_(bias)
    row = bias.expand(*bias.shape[:-1], max(bias.shape[-1], count))
    words = row.clone(memory_format=torch.contiguous_format).view(torch.complex128)
    laid = torch.empty(*shape[:-1], shape[-1] // count, dtype=words.dtype, device=bias.device)
    return laid.copy_(words).view(bias.dtype)


def joined(*layers: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Weights and biases of several plain layers one above the other, so that one product computes all; else None."""
    own = [layer for layer in layers if isinstance(layer, nn.Linear) and plain(layer)]
    if len(own) < len(layers):
        return None
    return torch.cat([layer.weight for layer in own]), torch.cat([layer.bias for layer in own])
