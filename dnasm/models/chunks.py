"""Long inputs piece by piece: each piece goes on from the state that the one before left.

What is held besides the model: for H3 a few numbers a channel, whatever the length, so a whole chromosome passes; for
attention a cache of 2 numbers a channel and position in each layer; for Hyena likewise 2, and a piece costs a transform
over everything, so that pieces save memory (a block's inner activations) but cost time in proportion to their number.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from dnasm.errors import ConfigError
from dnasm.models.backbone import LanguageModel

PIECE = 1 << 16


@torch.no_grad()
def hidden_chunks(
    model: LanguageModel, tokens: Integer[Tensor, "b l"], piece: int = PIECE, layer: int = -1
) -> Iterator[Float[Tensor, "b c d"]]:
    """Return the hidden states of `model.hidden(tokens, layer)` piece by piece, equal to them up to rounding.

    Args:
        model: A causal model in eval mode.
        tokens: Any length that the model takes; they may stay on another device, pieces are moved.
        piece: Positions at a time.
        layer: Block after which they are read, from 0; -1: after the final norm.

    Yields:
        The next `piece` positions, at the end those that are left.

    Raises:
        ConfigError: If the input is longer than `max_length`, or there is no such layer.
    """
    if piece < 1:
        raise ConfigError(f"piece is {piece}; it must be at least 1")
    state = model.start(*tokens.shape)
    device = model.backbone.ln_f.weight.device
    for part in torch.split(tokens, piece, 1):
        yield model.backbone.extend(part.to(device), state, layer)


def logit_chunks(
    model: LanguageModel, tokens: Integer[Tensor, "b l"], piece: int = PIECE
) -> Iterator[Float[Tensor, "b c v"]]:
    """Return the logits of `model(tokens)` piece by piece; arguments and errors as `hidden_chunks`."""
    for hidden in hidden_chunks(model, tokens, piece):
        yield model.lm_head(hidden, model.backbone.embeddings.word_embeddings.weight)
