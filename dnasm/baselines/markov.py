"""Markov models of DNA: what the last k bases say about the next one, by counting.

The baseline that a sequence model has to beat. Orders are interpolated: the model of order k trusts its counts as far
as they go and asks order k - 1 for the rest, down to the uniform 1/4:

    p_k(x | c) = (count(c x) + w * p_{k-1}(x | c')) / (count(c .) + w),   c' = c without its first base

A k-mer is a number in base 4, its last base in the lowest digit (A 0, C 1, G 2, T 3); so the context of a k-mer is
`code // 4`, and the same k-mer with a shorter context is `code % 4**k`.

Source: the linear interpolation of Jelinek and Mercer 1980, with weights by count as in Bell, Cleary and Witten 1990.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dnasm.metrics import nats_to_bits
from dnasm.vocabulary import BASES, Tokens

MAX_ORDER = 12
"""4**13 counts of 4 bytes are 268 MB."""

Counts = npt.NDArray[np.int64] | npt.NDArray[np.uint32]
Codes = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

_CHUNK = 1 << 21  # bases coded at once: the working arrays stay near 50 MB


class MarkovModel:
    """Counts of all k-mers up to order + 1 bases, and the interpolated probabilities that follow."""

    def __init__(self, counts: list[Counts], *, weight: float = 16.0, both_strands: bool = False) -> None:
        """Take counts that were made elsewhere; `fit` makes them.

        Args:
            counts: For k = 0, 1, ... the number of times each (k + 1)-mer was seen.
            weight: How many observations the shorter context is worth.
            both_strands: Whether the counts hold the other strand too.
        """
        if not weight > 0:
            raise ValueError(f"weight is {weight}; the shorter context must be worth something")
        self.order = len(counts) - 1
        self.weight = weight
        self.both_strands = both_strands
        self._counts = counts
        self._totals = [c.reshape(-1, len(BASES)).sum(1, dtype=c.dtype) for c in counts]

    @classmethod
    def fit(
        cls,
        pieces: Iterable[Tokens | tuple[Tokens, int]],
        order: int,
        *,
        both_strands: bool = False,
        weight: float = 16.0,
    ) -> "MarkovModel":
        """Count every base that is A, C, G or T, with as much context as it has, up to `order` bases.

        N and every other token ends a context; no context runs from one piece into the next.

        Args:
            pieces: Sequences; or pairs of a sequence and how many of its first bases are context only, not counted.
            order: Longest context, 0 to 12.
            both_strands: Whether to count the other strand as well.
            weight: How many observations the shorter context is worth.
        """
        if not 0 <= order <= MAX_ORDER:
            raise ValueError(
                f"order is {order}; this keeps a table of 4**(order + 1) counts, for orders 0 to {MAX_ORDER}"
            )
        counts: list[Counts] = [
            np.zeros(4 ** (k + 1), dtype=np.uint32 if k > 10 else np.int64) for k in range(order + 1)
        ]
        for piece in pieces:
            for codes, depths in _coded(*(piece if isinstance(piece, tuple) else (piece, 0)), order):
                _count_deepest(counts, codes, depths)
        for k in range(order, 0, -1):  # each k-mer was counted once, at its longest context; shorter ones follow
            counts[k - 1] += counts[k].reshape(4, -1).sum(0, dtype=counts[k - 1].dtype)
        if both_strands:
            for k in range(order + 1):
                # Axes reversed is the k-mer read backwards; each axis flipped is its complement, as A C G T is T G C A.
                counts[k] += np.flip(counts[k].reshape((4,) * (k + 1)).T).reshape(-1)
        return cls(counts, weight=weight, both_strands=both_strands)

    @property
    def num_counted(self) -> int:
        """Bases that were counted, on both strands if both were."""
        return int(self._totals[0].sum())

    def log_probs(self, tokens: Tokens, num_context: int = 0) -> Floats:
        """Log-probability of each base under every order, given the bases before it in `tokens`.

        Args:
            tokens: A sequence.
            num_context: Its first bases that are context only.

        Returns:
            (order + 1, tokens - num_context), in nats; NaN where the token is none of A, C, G and T.
        """
        parts = [self._log_probs(codes, depths) for codes, depths in _coded(tokens, num_context, self.order)]
        return np.concatenate(parts, axis=1) if parts else np.empty((self.order + 1, 0))

    def log_likelihood(self, tokens: Tokens, order: int | None = None) -> float:
        """Log-probability of a whole sequence under one order (default the highest), in nats; N counts nothing."""
        return float(np.nansum(self.log_probs(tokens)[self.order if order is None else order]))

    def _log_probs(self, codes: Codes, depths: npt.NDArray[np.int8]) -> Floats:
        out = np.empty((self.order + 1, len(codes)))
        p = np.full(len(codes), 1 / len(BASES))
        for k in range(self.order + 1):
            code = codes % 4 ** (k + 1)
            longer = (self._counts[k][code] + self.weight * p) / (self._totals[k][code // 4] + self.weight)
            p = np.where(depths >= k, longer, p)  # too little context before this base: the shorter one decides
            out[k] = np.log(p)
        out[:, depths < 0] = np.nan
        return out


def _coded(tokens: Tokens, num_context: int, order: int) -> Iterator[tuple[Codes, npt.NDArray[np.int8]]]:
    """Give each base after the context its (order + 1)-mer's code and its depth, chunk by chunk.

    The depth is the number of bases right before it that are A, C, G or T, at most `order`; -1 if it is none itself.
    The digits of a code beyond the depth mean nothing.
    """
    for start in range(num_context, len(tokens), _CHUNK):
        first = max(0, start - order)
        letters = tokens[first : start + _CHUNK] - np.uint8(BASES[0])  # what is below A wraps round to large numbers
        bad = letters >= len(BASES)
        digits = np.where(bad, 0, letters).astype(np.int32)
        codes = digits.copy()
        for lag in range(1, order + 1):
            codes[lag:] += digits[:-lag] << (2 * lag)
        here = np.arange(len(codes), dtype=np.int32)
        last_bad = np.maximum.accumulate(np.where(bad, here, -1))
        depths = np.minimum(here - last_bad - 1, order).astype(np.int8)
        yield codes[start - first :], depths[start - first :]


def _count_deepest(counts: list[Counts], codes: Codes, depths: npt.NDArray[np.int8]) -> None:
    """Count each base at the longest context it has."""
    order = len(counts) - 1
    _add(counts[order], codes[depths == order])
    shallow = np.flatnonzero((depths >= 0) & (depths < order))
    for k in range(order if len(shallow) else 0):
        _add(counts[k], codes[shallow[depths[shallow] == k]] % 4 ** (k + 1))


def _add(counts: Counts, codes: Codes) -> None:
    if len(counts) <= len(codes):
        counts += np.bincount(codes, minlength=len(counts)).astype(counts.dtype)
    else:  # a table larger than the chunk: touch only what is counted
        np.add.at(counts, codes, counts.dtype.type(1))


@dataclass(frozen=True)
class OrderScores:
    """How well each order predicts the same targets."""

    bits_per_base: list[float]
    """For order 0, 1, ...: the weighted mean over the targets."""
    num_targets: int
    """Targets of a weight above 0 that are A, C, G or T."""
    total_weight: float
    """Their weights' sum."""
    num_counted: int
    """Bases that the model was fitted on."""

    @property
    def best(self) -> tuple[int, float]:
        """The order that predicts best, and its bits per base."""
        order = min(range(len(self.bits_per_base)), key=self.bits_per_base.__getitem__)
        return order, self.bits_per_base[order]


def score_orders(
    model: MarkovModel, pieces: Iterable[tuple[Tokens, int] | tuple[Tokens, int, npt.ArrayLike]]
) -> OrderScores:
    """Score all orders of a model on the same targets, each with the bases to its left as context.

    Args:
        model: The fitted counts.
        pieces: A sequence, how many of its first bases are context only, and (default 1) the weight of each of the
            others. What is none of A, C, G and T is not scored.

    Raises:
        ValueError: If there is nothing to score.
    """
    nats, total, num = np.zeros(model.order + 1), 0.0, 0
    for tokens, num_context, *rest in pieces:
        log_probs = model.log_probs(tokens, num_context)
        weights = np.asarray(rest[0] if rest else np.ones(log_probs.shape[1]), dtype=np.float64)
        scored = (weights > 0) & ~np.isnan(log_probs[0])
        nats -= log_probs[:, scored] @ weights[scored]
        total += float(weights[scored].sum())
        num += int(scored.sum())
    if not total:
        raise ValueError("no target is A, C, G or T with a weight above 0; nothing was scored")
    bits = [nats_to_bits(value / total) for value in nats.tolist()]
    assert all(math.isfinite(value) for value in bits)
    return OrderScores(bits, num, total, model.num_counted)
