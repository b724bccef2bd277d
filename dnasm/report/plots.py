"""The figures of a report, each as inline SVG."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import EngFormatter, MaxNLocator

from dnasm.report.svg import COLOURS, drawing, to_svg

Numbers = npt.NDArray[np.float64]
Curve = tuple[Numbers, Numbers]
"""Steps, and bits per base at each."""

_BITS = "bits per base"
_POINTS = 800
"""Of a track at most; longer ones are averaged."""
_POINTS_DRAWN = 2000
_SQUARES = (90, 64)  # columns and rows
_SHADES = 5


def plot_loss(train: Curve, validation: Curve, markov: Sequence[float], best: tuple[str, float] | None) -> str:
    """Draw loss against steps, with Markov models as lines.

    Args:
        train: Means over a few steps each.
        validation: One point for each validation.
        markov: Bits per base of every baseline, drawn faintly.
        best: Name and value of the strongest one, drawn clearly.
    """
    with drawing() as (figure, axes):
        for bits in markov:
            axes.axhline(bits, color=COLOURS["line"], linewidth=0.7)
        if best is not None:
            axes.axhline(best[1], color=COLOURS["second"], linewidth=1.2, linestyle=(0, (4, 2)), label=best[0])
        axes.plot(*train, color=COLOURS["accent"], linewidth=0.7, alpha=0.35)
        axes.plot(train[0], smooth(train[1]), color=COLOURS["accent"], linewidth=1.1, alpha=0.75, label="training")
        axes.plot(*validation, color=COLOURS["ink"], marker="o", markersize=2.8, label="validation")
        _limit(axes, np.concatenate([smooth(train[1]), validation[1], np.array(list(markov))]))
        axes.set_xlabel("step")
        axes.set_ylabel(_BITS)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        nats = axes.secondary_yaxis("right", functions=(_bits_to_nats, _nats_to_bits))
        nats.set_ylabel("nats per base")
        axes.legend(loc="upper right", fontsize=8)
        return to_svg(figure, "loss", "Loss of training and validation against steps")


def plot_position_loss(
    start: Numbers, end: Numbers, bits: Numbers, targets: Numbers, *, label: str = "bases read before"
) -> str:
    """Draw the validation loss against the place in the window, on a logarithmic axis.

    Args:
        start: First place of each row, 0-based.
        end: Its end, excluded.
        bits: Mean bits per base there.
        targets: Bases that the mean is over; rows are joined until there are enough for a steady mean.
        label: What a place in the window says of a base.
    """
    edges, means = join_positions(start, end, bits, targets)
    with drawing() as (figure, axes):
        axes.stairs(means, edges, color=COLOURS["accent"], linewidth=1.8, baseline=None)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        _limit(axes, means, most=1.0)
        axes.set_xlabel(f"{label} (logarithmic)")
        axes.set_ylabel(_BITS)
        return to_svg(figure, "position", "Validation loss by the place in the window")


def join_positions(start: Numbers, end: Numbers, bits: Numbers, targets: Numbers) -> tuple[Numbers, Numbers]:
    """Join neighbouring rows to bins a quarter longer than what lies before, each with a 40th of all targets or more.

    Returns:
        The n + 1 edges and n means, weighted by targets; what remains at the end joins the last bin.
    """
    least = targets.sum() / 40
    edges, sums, weights = [max(float(start[0]), 1.0)], [0.0], [0.0]
    for last, value, weight in zip(end, bits, targets, strict=True):
        sums[-1] += value * weight
        weights[-1] += weight
        if weights[-1] >= least and last >= 1.25 * edges[-1]:
            edges.append(float(last))
            sums.append(0.0)
            weights.append(0.0)
    if weights[-1] < least and len(sums) > 1:
        sums[-2:], weights[-2:] = [sum(sums[-2:])], [sum(weights[-2:])]
        edges.pop()
    if edges[-1] < end[-1] or len(edges) == len(sums):
        edges = [*edges[: len(sums)], float(end[-1])]
    return np.array(edges), np.array(sums) / np.array(weights)


def plot_score_distribution(groups: Mapping[str, Numbers], label: str, name: str = "scores") -> str:
    """Draw how scores are distributed, in a stack of groups.

    Args:
        groups: Name -> scores; at most three, the largest first.
        label: What the scores are, with their unit.
        name: Word that no other figure of the page has.
    """
    colours = (COLOURS["accent"], COLOURS["second"], COLOURS["third"])
    everything = np.concatenate(list(groups.values()))
    low, high = _central_range(everything)
    with drawing() as (figure, axes):
        axes.hist(
            [np.clip(values, low, high) for values in groups.values()],
            bins=list(np.linspace(low, high, 49)),
            stacked=True,
            color=colours[: len(groups)],
            label=[f"{name} ({len(values):,})" for name, values in groups.items()],
        )
        axes.axvline(0, color=COLOURS["ink"], linewidth=0.8)
        axes.set_xlabel(label)
        axes.set_ylabel("alleles")
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.legend(loc="best", fontsize=8)
        return to_svg(figure, name, "Distribution of variant scores")


def plot_strands(forward: Numbers, reverse: Numbers, unit: str, name: str = "strands") -> str:
    """Draw both strands' scores against each other: points, or where they are many, squares that are stronger for more.

    Args:
        forward: One number for each allele.
        reverse: The same.
        unit: Of both, or nothing.
        name: Word that no other figure of the page has.
    """
    of = f" ({unit})" if unit else ""
    with drawing() as (figure, axes):
        low, high = _central_range(np.concatenate([forward, reverse]))
        axes.axline((0, 0), slope=1, color=COLOURS["line"], linewidth=0.8)
        x, y = np.clip(forward, low, high), np.clip(reverse, low, high)
        if len(x) <= _POINTS_DRAWN:
            axes.scatter(x, y, s=12 if len(x) <= 200 else 3.2, linewidths=0, alpha=0.45, color=COLOURS["accent"])
        else:
            _draw_squares(axes, x, y, low, high)
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_xlabel(f"forward strand{of}")
        axes.set_ylabel(f"reverse strand{of}")
        return to_svg(figure, name, "Scores of the forward strand against those of the reverse strand")


def _draw_squares(axes: Axes, x: Numbers, y: Numbers, low: float, high: float) -> None:
    """Shade squares by how many points lie in them, in a few steps; an image could not follow the page's colours."""
    counts, across, up = np.histogram2d(x, y, _SQUARES, [(low, high)] * 2)
    level = np.ceil(_SHADES * np.log1p(counts) / np.log1p(counts.max()))
    for shade in range(1, _SHADES + 1):
        squares = [
            Path([(across[i], up[j]), (across[i + 1], up[j]), (across[i + 1], up[j + 1]), (across[i], up[j + 1])])
            for i, j in np.argwhere(level == shade)
        ]
        if squares:
            patch = PathPatch(Path.make_compound_path(*squares), color=COLOURS["accent"], linewidth=0)
            patch.set_alpha(shade / _SHADES)
            axes.add_patch(patch)


def plot_track(start: int, values: Numbers, name: str) -> str:
    """Draw values along a contig, and their running mean; nan leaves a gap.

    Args:
        start: Place of the first value, 0-based.
        values: One for each base.
        name: Word that no other figure of the page has.
    """
    step = max(1, -(-len(values) // _POINTS))
    padded = np.concatenate([values, np.full(-len(values) % step, np.nan)]).reshape(-1, step)
    known = np.isfinite(padded)
    means = np.where(known, padded, 0).sum(1) / np.where(known.any(1), known.sum(1), np.nan)
    places = start + 1 + np.arange(len(means)) * step
    with drawing(9.6, 1.9) as (figure, axes):
        axes.fill_between(places, means, np.nanmedian(means), color=COLOURS["accent"], alpha=0.3, linewidth=0)
        filled = np.where(np.isfinite(means), means, np.nanmean(means))
        running = np.where(np.isfinite(means), smooth(filled, max(9, len(means) // 40)), np.nan)
        axes.plot(places, running, color=COLOURS["accent"], linewidth=1.3)
        axes.set_xlim(places[0], places[-1] + step)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_ylabel("nats")
        return to_svg(figure, name, "Values along the contig")


def smooth(values: Numbers, window: int = 9) -> Numbers:
    """Average each value with its neighbours; fewer of them at the ends."""
    if len(values) < 3:
        return values
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    low = np.maximum(places - window // 2, 0)
    high = np.minimum(places + window // 2 + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _bits_to_nats(bits: npt.ArrayLike) -> Numbers:
    return np.asarray(bits) * math.log(2)


def _nats_to_bits(nats: npt.ArrayLike) -> Numbers:
    return np.asarray(nats) / math.log(2)


def _limit(axes: Axes, values: Numbers, most: float = 0.98) -> None:
    """Show what matters, that is the lower `most` of the values: the first steps of a run may reach far above."""
    known = values[np.isfinite(values)]
    if known.size:
        low, high = known.min(), np.quantile(known, most)
        margin = 0.06 * max(high - low, 0.01)
        axes.set_ylim(low - margin, high + 2 * margin)


def _central_range(values: Numbers) -> tuple[float, float]:
    """Find a range around 0, or from 0 on, that holds all but a few outliers, which are drawn at its edge."""
    reach = max(float(np.quantile(np.abs(values), 0.998)) if values.size else 1.0, 1e-9) * 1.05
    return (-reach if values.min(initial=0.0) < 0 else 0.0, reach)
