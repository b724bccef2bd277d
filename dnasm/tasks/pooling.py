"""Turn the hidden states of a sequence into one vector; N and padding are left out."""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from dnasm.models.likelihood import is_base

Pool = Literal["mean", "max", "last"]


def pool_states(hidden: Float[Tensor, "b l d"], tokens: Integer[Tensor, "b l"], pool: Pool) -> Float[Tensor, "b d"]:
    """Pool over the positions that hold A, C, G or T; `last` takes the last of them.

    A sequence without such a position gives nan. Sums run in float64, the result is float32.
    """
    return pool_pieces([(hidden, tokens)], pool)


def pool_pieces(pieces: Iterable[tuple[Tensor, Tensor]], pool: Pool) -> Float[Tensor, "b d"]:
    """Pool as `pool_states` does over hidden states and tokens that come piece by piece."""
    found: Tensor | None = None
    number: Tensor | int = 0
    for hidden, tokens in pieces:
        bases = is_base(tokens)
        number = number + bases.sum(1, keepdim=True)
        part = _POOLS[pool](hidden, bases)
        if found is None:
            found = part
        elif pool == "mean":
            found += part
        else:
            found = torch.maximum(found, part) if pool == "max" else part.where(bases.any(1, keepdim=True), found)
    assert found is not None
    assert isinstance(number, Tensor)
    pooled = found / number.clamp(min=1) if pool == "mean" else found
    return pooled.float().masked_fill(number == 0, torch.nan)


def _sum(hidden: Float[Tensor, "b l d"], bases: Bool[Tensor, "b l"]) -> Float[Tensor, "b d"]:
    return hidden.double().masked_fill(~bases[..., None], 0.0).sum(1)


def _max(hidden: Float[Tensor, "b l d"], bases: Bool[Tensor, "b l"]) -> Float[Tensor, "b d"]:
    return hidden.masked_fill(~bases[..., None], -torch.inf).amax(1)


def _last(hidden: Float[Tensor, "b l d"], bases: Bool[Tensor, "b l"]) -> Float[Tensor, "b d"]:
    last = (torch.arange(hidden.shape[1], device=hidden.device) * bases).amax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]


_POOLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mean": _sum, "max": _max, "last": _last}
