"""Ways to compare the two windows of a variant; docs/score.md defines each beside its source."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Integer
from torch import Tensor, nn

from dnasm.errors import ConfigError
from dnasm.models.likelihood import base_log_probs
from dnasm.tasks.forward_batches import BatchRunner, check_choice
from dnasm.tasks.likelihood import check_vocabulary
from dnasm.tasks.masked_bases import masked_log_probs
from dnasm.tasks.pooling import pool_states
from dnasm.tasks.window_likelihoods import Window, WindowReader
from dnasm.vocabulary import BASES, MASK, Tokens

Method = Literal[
    "llr", "llr_mean", "masked_llr", "pseudo_likelihood", "next_base_divergence", "embedding_distance"
]  # fmt: skip

_CAUSAL, _MASKED = ("llr", "llr_mean", "next_base_divergence"), ("masked_llr", "pseudo_likelihood")


class Pair(NamedTuple):
    """Numbers of the two windows of a variant on one strand, and what differs between them."""

    reference: int
    alternate: int
    first: int
    """Index of the first changed base in both."""
    ref_length: int
    alt_length: int
    """Bases that were changed, and those that stand for them."""


class Measurer:
    """Computes one method's values for pairs of windows."""

    def __init__(self, runner: BatchRunner, method: Method = "llr", layer: int = -1) -> None:
        """Take a model.

        Raises:
            ConfigError: If the method is unknown, or is not for this kind of model.
        """
        check_choice("method", method, get_args(Method))
        check_vocabulary(runner.model, causal=method in _CAUSAL)
        _check_kind(runner.model, method)
        self._runner, self.method, self._layer = runner, method, layer
        self._reader = WindowReader(runner) if method in ("llr", "llr_mean") else None

    def values(self, windows: Sequence[Window], pairs: Sequence[Pair]) -> list[float]:
        """Compare the windows of each pair."""
        if self._reader is not None:
            return self._ratios(self._reader, windows, pairs)
        tokens = [np.frombuffer(window.tokens, np.uint8) for window in windows]
        if self.method == "masked_llr":
            return self._masked(tokens, pairs)
        if self.method == "pseudo_likelihood":
            sums = [self._pseudo(window) for window in tokens]
            return [sums[pair.alternate] - sums[pair.reference] for pair in pairs]
        if self.method == "next_base_divergence":
            found = self._runner.run(tokens, partial(_distributions, self._runner.model))
            return [_divergence(found[pair.reference], found[pair.alternate], pair) for pair in pairs]
        pooled = self._runner.run(tokens, partial(_embed, self._runner.model, self._layer))
        return [
            float(np.linalg.norm(pooled[pair.alternate].astype(np.float64) - pooled[pair.reference])) for pair in pairs
        ]

    def _ratios(self, reader: WindowReader, windows: Sequence[Window], pairs: Sequence[Pair]) -> list[float]:
        sums = reader.sums(windows)
        ratios = [float(sums[pair.alternate] - sums[pair.reference]) for pair in pairs]
        if self.method == "llr":
            return ratios
        scored = [int(np.isin(np.frombuffer(window.tokens, np.uint8)[1:], BASES).sum()) for window in windows]
        return [ratio / max(1, scored[pair.reference]) for ratio, pair in zip(ratios, pairs, strict=True)]

    def _masked(self, tokens: Sequence[Tokens], pairs: Sequence[Pair]) -> list[float]:
        """Mask the changed bases, and ask for both alleles there."""
        hidden = []
        for pair in pairs:
            window = tokens[pair.reference].copy()
            window[pair.first : pair.first + pair.ref_length] = MASK
            hidden.append(window)
        found = self._runner.run(hidden, partial(_distributions, self._runner.model))
        values = []
        for pair, log_probs in zip(pairs, found, strict=True):
            places = np.arange(pair.first, pair.first + pair.ref_length)
            old, new = (tokens[i][places].astype(np.int64) - BASES[0] for i in (pair.reference, pair.alternate))
            values.append(float((log_probs[places, new] - log_probs[places, old]).sum(dtype=np.float64)))
        return values

    def _pseudo(self, window: Tokens) -> float:
        """Sum each base's log-probability with that base alone masked."""
        places = np.flatnonzero(np.isin(window, BASES))
        found = masked_log_probs(self._runner, [window] * len(places), places.tolist())
        return float(found[np.arange(len(places)), window[places].astype(np.int64) - BASES[0]].sum(dtype=np.float64))


def unfit(method: Method, ref_length: int, alt_length: int) -> str:
    """Say why a method cannot compare alleles of such lengths; empty if it can."""
    if method == "masked_llr" and ref_length != alt_length:
        return "masked_llr compares alleles of one length: an insertion or deletion has no base of its own to mask"
    return ""


def _check_kind(model: nn.Module, method: Method) -> None:
    causal = getattr(getattr(model, "config", None), "causal", None)
    if method in _MASKED and causal is not False:
        raise ConfigError(
            f"--method {method} needs a model that was trained on masked bases, this one reads from left to right; "
            f"take {' or '.join(_CAUSAL)}"
        )
    if method == "embedding_distance" and not callable(getattr(model, "hidden", None)):
        raise ConfigError("--method embedding_distance needs a model with hidden states; this one has no `hidden`")


def _distributions(model: nn.Module, tokens: Integer[Tensor, "b l"]) -> Float[Tensor, "b l 4"]:
    return base_log_probs(model(tokens))


def _embed(model: Any, layer: int, tokens: Integer[Tensor, "b l"]) -> Float[Tensor, "b d"]:
    return pool_states(model.hidden(tokens, layer), tokens, "mean")


def _divergence(reference: npt.NDArray[Any], alternate: npt.NDArray[Any], pair: Pair) -> float:
    """Sum the Jensen-Shannon divergence of what is expected after each base from the change on, aligned by flank."""
    begins = [pair.first + length - 1 for length in (pair.ref_length, pair.alt_length)]
    skipped = max(0, -min(begins))  # nothing is expected before the window's first base
    p, q = (
        rows[begin + skipped :].astype(np.float64) for rows, begin in zip((reference, alternate), begins, strict=True)
    )
    size = min(len(p), len(q)) - 1  # the last speaks of what lies beyond the window
    p, q = p[: max(0, size)], q[: max(0, size)]
    middle = np.logaddexp(p, q) - np.log(2)
    return float((np.exp(p) * (p - middle) + np.exp(q) * (q - middle)).sum() / 2)
