"""Turn the hidden states of a sequence into one vector; N and padding are left out."""

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
    bases = is_base(tokens)
    if pool == "mean":
        pooled = _mean(hidden, bases)
    elif pool == "max":
        pooled = hidden.masked_fill(~bases[..., None], -torch.inf).amax(1)
    else:
        last = (torch.arange(tokens.shape[1], device=tokens.device) * bases).amax(1)
        pooled = hidden[torch.arange(len(hidden), device=tokens.device), last]
    return pooled.float().masked_fill(~bases.any(1, keepdim=True), torch.nan)


def _mean(hidden: Float[Tensor, "b l d"], bases: Bool[Tensor, "b l"]) -> Float[Tensor, "b d"]:
    total = hidden.double().masked_fill(~bases[..., None], 0.0).sum(1)
    return total / bases.sum(1, keepdim=True).clamp(min=1)
