"""What a model thinks of every single change of a stretch of DNA, one strand at a time.

A model that sees both sides is asked for all four letters where a base is masked. What follows is of causal models.

Changes are exact: each changed sequence goes through the model. Beside them stands gradient x input, one forward and
one backward pass for all positions together: the log-likelihood is taken as a function of soft letters, which enter
both as input (a mixture of embeddings) and as what is scored (a mixture of log-probabilities).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from dnasm import vocabulary
from dnasm.errors import ConfigError
from dnasm.models.backbone import LanguageModel
from dnasm.models.likelihood import base_log_probs, is_base, target_log_probs
from dnasm.tasks.forward_batches import BatchRunner, Compute, memory_told
from dnasm.vocabulary import Tokens

Scores = npt.NDArray[np.float64]

DELETION = 4
"""Column of the single-base deletion, after A, C, G and T."""
_TOKENS_AT_ONCE = 1 << 20  # of changed sequences that are held with their results


@dataclass(frozen=True, eq=False)
class StrandScan:
    """One strand's numbers of n consecutive bases, in its reading direction; nan at N."""

    changes: Scores
    """(n, 5): log-likelihood of the changed sequence less that of the unchanged one, in nats; 0 where nothing changes.
    A deletion takes one base more on the far side; where there is none, both are compared over the shorter length."""
    gradient: Scores
    """(n, 4): derivative of the log-likelihood by the share of each base."""

    def turned(self) -> "StrandScan":
        """Say the same of the other strand's letters, in its direction."""
        return StrandScan(self.changes[::-1, [3, 2, 1, 0, 4]], self.gradient[::-1, ::-1])


def scan_strand(
    runner: BatchRunner,
    tokens: Tokens,
    beyond: Tokens,
    first: int,
    last: int,
    *,
    deletions: bool,
    gradient: bool,
    done: Callable[[int], None],
) -> StrandScan:
    """Change each base from `first` to `last` (excluded) of a sequence in every way.

    Args:
        runner: Of the model.
        tokens: The window.
        beyond: The base after it, or none.
        first: Base of the window that is changed first.
        last: Behind the last one.
        deletions: Also leave each base out.
        gradient: Also compute the gradient.
        done: Told how many more changes are scored.
    """
    changes = np.full((last - first, 5), np.nan)
    places = [(i, column) for i in range(first, last) for column in _columns(int(tokens[i]), deletions=deletions)]
    (row,) = runner.run([tokens], _per_base(runner))
    unchanged = np.concatenate([[0.0], row[: len(tokens) - 1].astype(np.float64)])  # by base; the first has no term
    step = max(1, _TOKENS_AT_ONCE // len(tokens))
    for start in range(0, len(places), step):
        chunk = places[start : start + step]
        changed = [_changed(tokens, beyond, *place) for place in chunk]
        rows = runner.run(changed, _per_base(runner))
        for (i, column), sequence, row in zip(chunk, changed, rows, strict=True):
            changes[i - first, column] = _difference(row, unchanged, i, len(sequence))
        done(len(chunk))
    bases = tokens[first:last]
    known = np.flatnonzero((bases >= vocabulary.A) & (bases <= vocabulary.T))
    changes[known, bases[known] - vocabulary.A] = 0.0
    slopes = np.full((last - first, 4), np.nan)
    if gradient:
        with memory_told(runner.model, len(tokens), 1, "take a smaller --window, or no --gradient", training=True):
            slopes[known] = input_gradient(runner.model, tokens)[first:last][known]
    return StrandScan(changes, slopes)


def masked_scan(tokens: Tokens, expected: npt.NDArray[np.floating]) -> StrandScan:
    """Turn what is expected at each base, masked, into changes: log p(other) - log p(own).

    A deletion has no base of its own to mask, and what is expected at a masked base does not depend on its letter, so
    that there is no gradient either.

    Args:
        tokens: Forward strand.
        expected: (n, 4), log-probabilities of A, C, G and T; nan at N.
    """
    own = np.clip(tokens.astype(np.int64) - vocabulary.A, 0, 3)
    wide = expected.astype(np.float64)
    changes = np.full((len(tokens), 5), np.nan)
    changes[:, :DELETION] = wide - np.take_along_axis(wide, own[:, None], 1)
    return StrandScan(changes, np.full((len(tokens), 4), np.nan))


def _columns(token: int, *, deletions: bool) -> Sequence[int]:
    if not vocabulary.A <= token <= vocabulary.T:
        return ()
    others = [column for column in range(4) if column != token - vocabulary.A]
    return [*others, DELETION] if deletions else others


def _changed(tokens: Tokens, beyond: Tokens, i: int, column: int) -> Tokens:
    if column == DELETION:
        return np.concatenate([tokens[:i], tokens[i + 1 :], beyond])
    changed = tokens.copy()
    changed[i] = vocabulary.A + column
    return changed


def _difference(row: npt.NDArray[np.float32], unchanged: Scores, i: int, end: int) -> float:
    """Compare what follows from base i on; what comes before it is the same in a causal model, but for rounding."""
    begin = max(i, 1)
    return float(row[begin - 1 : end - 1].sum(dtype=np.float64) - unchanged[begin:end].sum())


def _per_base(runner: BatchRunner) -> Compute:
    def compute(tokens: Integer[Tensor, "b l"]) -> Float[Tensor, "b l-1"]:
        return target_log_probs(runner.model(tokens), tokens)

    return compute


def input_gradient(model: torch.nn.Module, tokens: Tokens) -> Scores:
    """Derivative of a sequence's log-likelihood by the share of A, C, G and T at each base: (l, 4), in nats.

    The difference of two columns of a row is the first-order estimate of what that substitution changes.

    Raises:
        ConfigError: If the model is none of ours, so that its embeddings are not known.
    """
    if not isinstance(model, LanguageModel):
        raise ConfigError(f"a {type(model).__name__} has no embeddings that a gradient could be taken of")
    held: list[Tensor] = []

    def catch(module: torch.nn.Module, args: object, output: Tensor) -> Tensor:
        held.append(output.detach().requires_grad_())
        return held[0]

    ids = torch.from_numpy(tokens).to(model.backbone.ln_f.weight.device)[None]
    handle, was_training = model.backbone.embeddings.register_forward_hook(catch), model.training
    model.eval()
    try:
        with torch.enable_grad():
            logits = model(ids)
            (slope,) = torch.autograd.grad(target_log_probs(logits, ids).sum(), held)
    finally:
        handle.remove()
        model.train(was_training)
    with torch.no_grad():
        letters = model.backbone.embeddings(ids.new_tensor([vocabulary.BASES]))[0]
        gradient = slope[0].double() @ letters.double().T
        gradient[1:] += base_log_probs(logits[0, :-1]).double() * is_base(ids[0, 1:])[:, None]
    return gradient.cpu().numpy()
