"""Both strands of DNA: a model that cannot tell them apart, and the mean of a model over them.

An equivariant model runs one network over the sequence and over its reverse complement. Hidden states are those of
this strand and, turned round, of the other; logits are the sum of both, the other's with bases exchanged. So the
reverse complement of an input gives the same numbers in the other order, whatever the mixer.

Source: Caduceus, its parameter sharing over strands (RCPS), which has the same halves that never mix before the head.
"""

from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from dnasm.errors import ConfigError
from dnasm.vocabulary import NUM_ROWS, A, T

_ORDER = [A + T - row if A <= row <= T else row for row in range(NUM_ROWS)]


def reverse_complement(tokens: Integer[Tensor, "b l"]) -> Integer[Tensor, "b l"]:
    """Read the other strand; padding and special tokens turn round with the sequence and stay what they are."""
    return torch.where((tokens >= A) & (tokens <= T), A + T - tokens, tokens).flip(1)


def complement_logits(logits: Float[Tensor, "b l v"]) -> Float[Tensor, "b l v"]:
    """Exchange the rows of A and T, C and G."""
    return logits[..., torch.tensor(_ORDER, device=logits.device)]


def both_strands(tokens: Integer[Tensor, "b l"]) -> Integer[Tensor, "two_b l"]:
    """Stack a batch on its reverse complement."""
    return torch.cat([tokens, reverse_complement(tokens)])


def join_logits(logits: Float[Tensor, "two_b l v"]) -> Float[Tensor, "b l v"]:
    """Add the strands' logits, place by place on this strand."""
    this, other = logits.chunk(2)
    return this + complement_logits(other.flip(1))


def join_hidden(hidden: Float[Tensor, "two_b l d"]) -> Float[Tensor, "b l two_d"]:
    """Put the strands' channels side by side, this one's first, place by place on this strand."""
    this, other = hidden.chunk(2)
    return torch.cat([this, other.flip(1)], -1)


class StrandMean(nn.Module):
    """Mean of a model that sees both sides over the two strands, at use: no training for it is needed.

    Logits and hidden states are those of the sequence, and of its reverse complement turned back, halved.
    """

    model: Any

    def __init__(self, model: nn.Module) -> None:
        """Take a model.

        Raises:
            ConfigError: If it is causal, so that its two strands predict at different places.
        """
        super().__init__()
        self.model = model
        self.config = self.model.config
        if self.config.causal:
            raise ConfigError(
                "a causal model's strands predict different places; average scores or embeddings (strands='mean')"
            )

    def forward(self, tokens: Integer[Tensor, "b l"]) -> Float[Tensor, "b l v"]:
        return join_logits(self.model(both_strands(tokens))) / 2

    def hidden(self, tokens: Integer[Tensor, "b l"], layer: int = -1) -> Float[Tensor, "b l d"]:
        """Return the mean hidden states after block `layer`."""
        this, other = self.model.hidden(both_strands(tokens), layer).chunk(2)
        return (this + other.flip(1)) / 2
