"""Figures of scores beside labels: ROC, precision and recall, and the share of positives by score."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from dnasm.report.svg import COLOURS, drawing, to_svg

Numbers = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]

_GRID = np.linspace(0, 1, 101)
_DRAWS = 200
_STYLES = (("accent", 1.9, "-"), ("second", 1.3, "-"), ("third", 1.3, "-"), ("muted", 1.1, (0, (4, 2))))


def plot_roc(labels: Labels, scores: Mapping[str, Numbers]) -> str:
    """Draw ROC curves; the first one with the band that holds 95 % of its bootstrap curves.

    Args:
        labels: True for positives.
        scores: Name -> numbers of which high ones speak for a positive; at most four.
    """
    with drawing() as (figure, axes):
        axes.axline((0, 0), slope=1, color=COLOURS["line"], linewidth=0.9)
        _band(axes, labels, next(iter(scores.values())), _found_on_grid)
        for (name, values), (colour, width, style) in zip(scores.items(), _STYLES, strict=False):
            axes.plot(*roc(labels, values), color=COLOURS[colour], linewidth=width, linestyle=style, label=name)
        axes.set_xlabel("share of negatives above the threshold")
        axes.set_ylabel("share of positives found")
        axes.legend(loc="lower right", fontsize=8)
        return to_svg(figure, "roc", "ROC curves")


def plot_precision(labels: Labels, scores: Mapping[str, Numbers]) -> str:
    """Draw precision against recall, arguments as `plot_roc`; the faint line is chance."""
    with drawing() as (figure, axes):
        axes.axhline(labels.mean(), color=COLOURS["line"], linewidth=0.9)
        _band(axes, labels, next(iter(scores.values())), _precision_on_grid)
        for (name, values), (colour, width, style) in zip(scores.items(), _STYLES, strict=False):
            recall, precision = precision_recall(labels, values)
            axes.step(
                recall, precision, color=COLOURS[colour], linewidth=width, linestyle=style, where="pre", label=name
            )
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("share of positives found")
        axes.set_ylabel("share of positives among the found")
        axes.legend(loc="upper right", fontsize=8)
        return to_svg(figure, "precision", "Precision against recall")


def plot_calibration(labels: Labels, scores: Numbers) -> str:
    """Draw the share of positives in tenths of the scores, with Wilson's 95 % intervals; the line is that of all."""
    order = np.array_split(np.argsort(scores, kind="stable"), min(10, len(scores)))
    middle = np.array([np.median(scores[part]) for part in order])
    low, share, high = (np.array(column) for column in zip(*(wilson(labels[part]) for part in order), strict=True))
    with drawing() as (figure, axes):
        axes.axhline(labels.mean(), color=COLOURS["line"], linewidth=0.9)
        axes.errorbar(
            middle, share, [share - low, high - share], color=COLOURS["accent"], marker="o", markersize=4,
            linewidth=1.2, elinewidth=1.1, capsize=2,
        )  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.set_xlabel("score, median of each tenth")
        axes.set_ylabel("share of positives")
        return to_svg(figure, "calibration", "Share of positives by score")


def roc(labels: Labels, scores: Numbers) -> tuple[Numbers, Numbers]:
    """Share of negatives and of positives above each threshold; ties are one step.

    >>> roc(np.array([True, False]), np.array([2.0, 1.0]))[1].tolist()
    [0.0, 1.0, 1.0]
    """
    found, false = _above(labels, scores)
    return np.append(0.0, false / max(false[-1], 1)), np.append(0.0, found / max(found[-1], 1))


def precision_recall(labels: Labels, scores: Numbers) -> tuple[Numbers, Numbers]:
    """Recall and precision at each threshold, recall rising from 0."""
    found, false = _above(labels, scores)
    precision = found / (found + false)
    return np.append(0.0, found / max(found[-1], 1)), np.append(precision[:1], precision)


def _above(labels: Labels, scores: Numbers) -> tuple[Numbers, Numbers]:
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    found = np.cumsum(labels[order])[last]
    return found.astype(np.float64), (last + 1 - found).astype(np.float64)


def _found_on_grid(labels: Labels, scores: Numbers) -> Numbers:
    return np.interp(_GRID, *roc(labels, scores))


def _precision_on_grid(labels: Labels, scores: Numbers) -> Numbers:
    recall, precision = precision_recall(labels, scores)
    return precision[np.searchsorted(recall, _GRID).clip(max=len(precision) - 1)]


def _band(axes: Axes, labels: Labels, scores: Numbers, curve: Callable[[Labels, Numbers], Numbers]) -> None:
    """Shade where 95 % of the curves lie; positives and negatives are drawn again each on their own."""
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(labels), np.flatnonzero(~labels)]
    curves = []
    for _ in range(_DRAWS):
        rows = np.concatenate([rng.choice(group, len(group)) for group in groups])
        curves.append(curve(labels[rows], scores[rows]))
    low, high = np.quantile(curves, [0.025, 0.975], axis=0)
    axes.fill_between(_GRID, low, high, color=COLOURS["accent"], alpha=0.18, linewidth=0)


def wilson(labels: Labels) -> tuple[float, float, float]:
    """Wilson's interval of a share, with the share between.

    >>> [round(x, 3) for x in wilson(np.array([True, False]))]
    [0.095, 0.5, 0.905]
    """
    n, p, z = len(labels), float(labels.mean()), 1.959964
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return float(min(centre - half, p)), p, float(max(centre + half, p))
