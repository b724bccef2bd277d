"""Log-probabilities of bases: renormalised over A, C, G, T, in float32 at least, summed in float64.

A base's value depends on what stands before it alone: not on padding, and only by rounding on the batch.
"""

import torch
from jaxtyping import Bool, Float, Float64, Integer
from torch import Tensor

from dnasm.config import ModelConfig
from dnasm.errors import ConfigError
from dnasm.vocabulary import NUM_ROWS, A, T


def require_dna(config: ModelConfig) -> None:
    """Refuse a model whose tokens are no bases.

    Raises:
        ConfigError: With the vocabulary's name.
    """
    if config.vocabulary != "dna":
        raise ConfigError(
            f"this model's vocabulary is {config.vocabulary!r} (text), not DNA: it cannot read bases; "
            "its forward and generate take token ids"
        )


def require_causal(config: ModelConfig) -> None:
    """Refuse a model that sees both sides, whose logits give no likelihood of a sequence.

    Raises:
        ConfigError: Says what it is.
    """
    if not config.causal:
        raise ConfigError(
            "this model was trained on masked bases and sees both sides of each: it has no likelihood of a sequence; "
            "use it for embeddings, or take a causal model"
        )


def base_log_probs(logits: Float[Tensor, "*b v"]) -> Float[Tensor, "*b 4"]:
    """Log-probabilities of A, C, G, T given that one of them follows; in float32 or better.

    Raises:
        ConfigError: If these are not the logits of a DNA model.
    """
    if logits.shape[-1] != NUM_ROWS:
        raise ConfigError(f"logits over {logits.shape[-1]} tokens are no DNA model's, which has {NUM_ROWS}")
    wide = logits[..., A : T + 1].to(torch.promote_types(logits.dtype, torch.float32))
    return wide.log_softmax(-1)


def is_base(tokens: Integer[Tensor, "*b"]) -> Bool[Tensor, "*b"]:
    """Tell A, C, G, T from N, padding and special tokens."""
    return (tokens >= A) & (tokens <= T)


def target_log_probs(logits: Float[Tensor, "b l v"], tokens: Integer[Tensor, "b l"]) -> Float[Tensor, "b l-1"]:
    """Log-probability of each base but the first, given all before it, in nats; 0 where the target is no base.

    Args:
        logits: `logits[:, i]` predicts `tokens[:, i + 1]`.
        tokens: What the logits were computed from.
    """
    targets = tokens[:, 1:]
    index = (targets.long() - A).clamp(0, T - A)
    values = base_log_probs(logits[:, :-1]).gather(-1, index[..., None])[..., 0]
    return values.where(is_base(targets), 0.0)


def log_likelihood(logits: Float[Tensor, "b l v"], tokens: Integer[Tensor, "b l"]) -> Float64[Tensor, " b"]:
    """Sum the log-probabilities of each sequence's bases, in nats, in float64.

    The first base is given, not scored; N and padding count nothing.

    Raises:
        ValueError: If the sequences are shorter than 2, so that nothing would be scored.
    """
    if tokens.shape[1] < 2:
        raise ValueError(f"need at least 2 tokens to score a sequence, got {tokens.shape[1]}")
    return target_log_probs(logits, tokens).double().sum(1)
