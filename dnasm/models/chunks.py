"""Long inputs piece by piece: each piece goes on from the state that the one before left.

What is held besides the model and a piece: for H3, the multihybrid's filters and the dilated CNN a few numbers a
channel, whatever the length, so a whole chromosome passes. For Hyena 2 numbers a channel and position in each layer,
and a piece costs a transform over everything, so that pieces save memory (a block's inner activations) but cost time in
proportion to their number. For attention a cache of 2 numbers a channel and position in each layer, and a mask of a
piece by all positions.

`in_pieces` tells where the verbs read so.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn.functional import pad

from dnasm.errors import ConfigError
from dnasm.memory import mixers
from dnasm.models.backbone import LanguageModel
from dnasm.models.likelihood import target_log_probs

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


def in_pieces(model: nn.Module, length: int, piece: int = PIECE) -> bool:
    """Tell whether an input is read in pieces: where it is longer than one, and what is held does not grow with it.

    Attention and Hyena's implicit filters read at once, in `ModelConfig.memory(l, 1, training=False)` bytes.
    """
    if length <= piece or not isinstance(model, LanguageModel) or not model.config.causal:
        return False
    return {"attention", "hyena"}.isdisjoint(mixers(model.config))


def log_probs(model: nn.Module, tokens: Integer[Tensor, "b l"], piece: int = PIECE) -> Float[Tensor, "b l-1"]:
    """Log-probability of each base but the first, as `target_log_probs(model(tokens), tokens)`.

    Where `in_pieces`, what is held at once is a piece, and the result.
    """
    if not in_pieces(model, tokens.shape[1], piece):
        return target_log_probs(model(tokens), tokens)
    assert isinstance(model, LanguageModel)
    found, begin = [], 0
    for logits in logit_chunks(model, tokens, piece):
        end = begin + logits.shape[1]
        following = tokens[:, begin : end + 1].to(logits.device)
        found.append(target_log_probs(pad(logits, (0, 0, 0, following.shape[1] - logits.shape[1])), following))
        begin = end
    return torch.cat(found, 1)
