"""Numbers that models are judged by: bits per base, AUROC and average precision with intervals."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


def nats_to_bits(nats: float) -> float:
    """Turn a loss in nats into bits.

    >>> round(nats_to_bits(math.log(4)), 12)
    2.0
    """
    return nats / math.log(2)


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval and the sizes that it rests on."""

    value: float
    low: float
    high: float
    num_positive: int
    num_negative: int


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Probability that a positive scores higher than a negative; ties count one half.

    Args:
        labels: True or 1 for positives.
        scores: Higher speaks for positive; no NaN.

    Returns:
        0 to 1; NaN if one of the classes is empty.

    >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    return _auroc(*_counts_by_score(labels, scores))


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Mean precision at each recall step, without interpolation, as scikit-learn defines it.

    Args:
        labels: True or 1 for positives.
        scores: Higher speaks for positive; no NaN.

    Returns:
        0 to 1; NaN if one of the classes is empty.

    >>> round(average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
    0.8333
    """
    return _average_precision(*_counts_by_score(labels, scores))


def auroc_interval(
    labels: npt.ArrayLike, scores: npt.ArrayLike, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """AUROC with a percentile bootstrap interval; positives and negatives are resampled each on their own."""
    return _bootstrap(_auroc, labels, scores, level, resamples, seed)


def average_precision_interval(
    labels: npt.ArrayLike, scores: npt.ArrayLike, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Average precision with a percentile bootstrap interval; the share of positives stays as it is."""
    return _bootstrap(_average_precision, labels, scores, level, resamples, seed)


def _ranks(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Integers, Integers]:
    """Rank of each positive's and each negative's score among the distinct scores, lowest first."""
    positive, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if positive.ndim != 1 or positive.shape != values.shape:
        raise ValueError(f"labels have shape {positive.shape}, scores {values.shape}; both are lists of one length")
    if not np.isin(positive, [0, 1]).all():
        raise ValueError(f"labels are 0 or 1, found {np.unique(positive)[:5].tolist()}")
    if np.isnan(values).any():
        raise ValueError(f"{int(np.isnan(values).sum())} of {len(values)} scores are NaN; leave those rows out")
    ranks = np.unique(values, return_inverse=True)[1]
    return ranks[positive == 1], ranks[positive == 0]


def _counts_by_score(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Integers, Integers]:
    """Positives and negatives at each distinct score, lowest first."""
    positives, negatives = _ranks(labels, scores)
    size = 1 + max(positives.max(initial=-1), negatives.max(initial=-1))
    return np.bincount(positives, minlength=size), np.bincount(negatives, minlength=size)


def _auroc(positives: Integers, negatives: Integers) -> float:
    pairs = int(positives.sum()) * int(negatives.sum())
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / pairs) if pairs else math.nan


def _average_precision(positives: Integers, negatives: Integers) -> float:
    found, false = np.cumsum(positives[::-1]), np.cumsum(negatives[::-1])
    if not len(found) or not found[-1] or not false[-1]:
        return math.nan
    precision = found / np.maximum(found + false, 1)
    return float((positives[::-1] * precision).sum() / found[-1])


def _bootstrap(
    statistic: Callable[[Integers, Integers], float],
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    level: float,
    resamples: int,
    seed: int,
) -> Estimate:
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level is {level} (between 0 and 1), resamples {resamples} (at least 1)")
    positives, negatives = _ranks(labels, scores)
    value = statistic(*_counts_by_score(labels, scores))
    low = high = math.nan
    if not math.isnan(value):
        rng = np.random.default_rng(seed)
        size = 1 + int(max(positives.max(), negatives.max()))
        draws = [
            statistic(*(np.bincount(rng.choice(ranks, len(ranks)), minlength=size) for ranks in (positives, negatives)))
            for _ in range(resamples)
        ]
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Estimate(value, low, high, len(positives), len(negatives))


@dataclass(frozen=True)
class CorrelationEstimate:
    """A correlation with its confidence interval and the number of pairs."""

    value: float
    low: float
    high: float
    count: int


def correlation_interval(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    ranks: bool = False,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> CorrelationEstimate:
    """Pearson's correlation, or with `ranks` Spearman's, with a percentile bootstrap interval over the pairs.

    Returns:
        NaN where one of both does not vary.

    >>> correlation_interval([1, 2, 3, 4], [1, 4, 9, 16], ranks=True).value
    1.0
    """
    pairs = np.stack([np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)])
    if pairs.ndim != 2 or np.isnan(pairs).any():
        raise ValueError("correlations are of two lists of one length without NaN")
    value = _correlation(pairs, ranks=ranks)
    low = high = math.nan
    if not math.isnan(value):
        rng = np.random.default_rng(seed)
        chosen = rng.integers(0, pairs.shape[1], (resamples, pairs.shape[1]))
        draws = [_correlation(pairs[:, rows], ranks=ranks) for rows in chosen]
        low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return CorrelationEstimate(value, low, high, pairs.shape[1])


def _correlation(pairs: npt.NDArray[np.float64], *, ranks: bool) -> float:
    if ranks:
        pairs = np.stack([_mean_ranks(values) for values in pairs])
    centred = pairs - pairs.mean(1, keepdims=True)
    scale = float(np.sqrt((centred**2).sum(1).prod()))
    return float(np.clip((centred[0] * centred[1]).sum() / scale, -1, 1)) if scale > 0 else math.nan


def _mean_ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rank of each value; equal ones share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]
