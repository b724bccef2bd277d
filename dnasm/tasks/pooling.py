"""Turn the hidden states of a sequence into one vector; N and padding are left out."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from dnasm.models.likelihood import is_base
from dnasm.vocabulary import Tokens

Pool = Literal["mean", "max", "last", "centre", "none"]


def pool_states(hidden: Float[Tensor, "b l d"], tokens: Integer[Tensor, "b l"], pool: Pool) -> Tensor:
    """Pool over the positions that hold A, C, G or T: (b, d).

    `last` takes the last of them, `centre` the middle one (of an even number the later of the two), and `none` keeps
    every position, (b, l, d). A sequence without such a position gives nan. Sums run in float64, the result is float32.
    """
    bases = is_base(tokens)
    if pool == "none":
        return hidden.float()
    if pool == "mean":
        pooled = _mean(hidden, bases)
    elif pool == "max":
        pooled = hidden.masked_fill(~bases[..., None], -torch.inf).amax(1)
    else:
        pooled = hidden[torch.arange(len(hidden), device=tokens.device), _place(bases, pool)]
    return pooled.float().masked_fill(~bases.any(1, keepdim=True), torch.nan)


def _mean(hidden: Float[Tensor, "b l d"], bases: Bool[Tensor, "b l"]) -> Float[Tensor, "b d"]:
    total = hidden.double().masked_fill(~bases[..., None], 0.0).sum(1)
    return total / bases.sum(1, keepdim=True).clamp(min=1)


def _place(bases: Bool[Tensor, "b l"], pool: Pool) -> Integer[Tensor, " b"]:
    """Index of the base that a pool takes; anything where there is none."""
    count = bases.sum(1)
    wanted = count if pool == "last" else count // 2 + 1
    return (bases.cumsum(1) == wanted[:, None].clamp(max=count[:, None])).int().argmax(1)


def pool_pieces(pieces: Iterable[Float[Tensor, "c d"]], tokens: Tokens, pool: Pool) -> npt.NDArray[np.float32]:
    """Pool one sequence whose hidden states come piece by piece; `none` is for whoever reads the pieces."""
    bases = is_base(torch.from_numpy(tokens))
    place = int(_place(bases[None], pool)) if pool in ("last", "centre") else -1
    state: Tensor | None = None
    done = 0
    for piece in pieces:
        own = bases[done : done + len(piece)].to(piece.device)
        if pool == "mean":
            part = piece[own].double().sum(0)
            state = part if state is None else state + part
        elif pool == "max":
            part = piece.masked_fill(~own[:, None], -torch.inf).amax(0)
            state = part if state is None else torch.maximum(state, part)
        elif done <= place < done + len(piece):
            state = piece[place - done]
        done += len(piece)
    assert state is not None, "a sequence has at least one piece"
    if pool == "mean":
        state = state / max(int(bases.sum()), 1)
    return (state.float() if bases.any() else torch.full_like(state.float(), torch.nan)).cpu().numpy()
