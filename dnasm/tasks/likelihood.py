"""Log-likelihoods of sequences under a causal model."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Integer
from torch import Tensor, nn

from dnasm.models.chunks import log_probs
from dnasm.models.likelihood import require_causal, require_dna
from dnasm.tasks.forward_batches import BatchRunner, BatchSize, encode_all
from dnasm.vocabulary import Tokens


def log_likelihood(
    model: nn.Module, seqs: Sequence[str | Tokens], *, batch_size: BatchSize = "auto"
) -> npt.NDArray[np.float64]:
    """Compute the log-probability of each sequence, in nats.

    The first base is given, not scored, so L bases yield L - 1 terms; N counts nothing. Probabilities are
    renormalised over A, C, G, T in float32 and summed in float64. A value does not depend on the other sequences,
    their order or the batch size.

    Args:
        model: A causal model, as `dnasm.load` returns it.
        seqs: Letters, or arrays of token ids.
        batch_size: Sequences in a forward call; `auto` fits the device.

    Returns:
        One value for each sequence, at most 0.

    Raises:
        InputError: If a sequence has a letter that is no base, fewer than 2 bases, or more than the model takes.
    """
    check_vocabulary(model, causal=True)
    runner = BatchRunner(model, batch_size, pad=True)
    return sum_log_probs(runner, encode_all(seqs, runner.max_length, shortest=2))


def sum_log_probs(runner: BatchRunner, sequences: Sequence[Tokens]) -> npt.NDArray[np.float64]:
    """Sum the log-probabilities of each token array, in nats; each row by itself, so that batches cannot matter."""

    def per_base(tokens: Integer[Tensor, "b l"]) -> Float[Tensor, "b l-1"]:
        return log_probs(runner.model, tokens)

    rows = runner.run(sequences, per_base)
    return np.array([row.sum(dtype=np.float64) for row in rows], dtype=np.float64)


def check_vocabulary(model: nn.Module, *, causal: bool = False) -> None:
    """Refuse a model of text, and one that sees both sides if `causal`; one without a config is taken at its word."""
    config = getattr(model, "config", None)
    if config is not None:
        require_dna(config)
        if causal:
            require_causal(config)


def sees_both_sides(model: nn.Module) -> bool:
    """Tell a model that was trained on masked bases; one without a config is taken to read from left to right."""
    return not getattr(getattr(model, "config", None), "causal", True)
