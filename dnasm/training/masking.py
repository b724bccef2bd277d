"""Which bases a model that sees both sides has to guess: a pure function of (seed, epoch, index).

Of the bases, 15 % are targets. Of those 80 % are shown as [MASK], 10 % as a base drawn at random and 10 % as they are,
so that a model cannot rely on what it is shown. Every choice is read off one hash of the sample and the position: the
same for any batch, number of workers and restart.

Source: Devlin et al. 2019, BERT, section 3.1.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dnasm.datasets.windows import absorb, sample_states, uniform
from dnasm.vocabulary import MASK, A, T, Tokens

TARGETS, MASKED, RANDOM = 0.15, 0.8, 0.1
"""Share of the bases that are targets; shares of the targets that are hidden, and that are replaced."""

_STREAM = 1 << 40  # keeps these draws apart from those that place a window


def mask_bases(
    tokens: Tokens, seed: int, epoch: int, indices: npt.NDArray[np.int64]
) -> tuple[Tokens, npt.NDArray[np.bool_]]:
    """Hide some bases of each sample.

    Args:
        tokens: Token ids (b, l).
        seed: Of the run.
        epoch: Of all samples.
        indices: Number of each sample in its epoch (b).

    Returns:
        The tokens as the model is shown them, and which positions are targets.
    """
    states = sample_states(seed, epoch, indices)[:, None]
    positions = np.arange(tokens.shape[1], dtype=np.uint64)[None]
    draw = uniform(absorb(states, positions + np.uint64(_STREAM)))
    targets = (draw < TARGETS) & (tokens >= A) & (tokens <= T)
    kind = draw / TARGETS  # again uniform in [0, 1) among the targets
    base = ((kind - MASKED) * (T + 1 - A) / RANDOM).clip(0, T - A).astype(np.uint8) + np.uint8(A)
    shown = np.where(kind < MASKED, np.uint8(MASK), np.where(kind < MASKED + RANDOM, base, tokens))
    return np.where(targets, shown, tokens), targets


def mask_batch(batch: dict[str, Tensor], seed: int) -> tuple[Tensor, Tensor]:
    """Hide bases of a batch on the host; return what the model is shown, and what each base counts as a target.

    The windows of a validation always have the same masks: their epoch is one number.
    """
    tokens, samples = batch["tokens"], batch["samples"].numpy()
    shown, targets = mask_bases(tokens.numpy(), seed, int(samples[0, 0]), samples[:, 1])
    found = torch.from_numpy(shown), batch["weights"] * torch.from_numpy(targets)
    return (found[0].pin_memory(), found[1].pin_memory()) if tokens.is_pinned() else found
