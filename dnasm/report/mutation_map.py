"""Picture of a mutagenesis: logo, gradient x input and heat maps, line by line along the sequence."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dnasm.report.logo import COLOURS, draw_logo, extent, one_letter

Values = npt.NDArray[np.float64]

_ROWS = "ACGT-"
_LINE = 100  # bases in a line; with more than three lines, half as many again
_WIDTH, _NARROWEST, _FULL = 11.0, 4.5, 60  # inches, and the bases from which a picture is as wide as it gets
_INK, _MUTED, _GROUND = "#16202c", "#5a6675", "#edf0f3"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "path",  # opens the same in any program
    "svg.hashsalt": "dnasm",
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": "#c5ccd4",
    "axes.labelcolor": _MUTED,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}


@dataclass(frozen=True)
class HeatMap:
    """One number for each base and change: (l, 5), columns A, C, G, T and deletion; nan where there is none."""

    label: str
    values: Values


@dataclass(frozen=True)
class LetterTrack:
    """One number for each base, drawn as its letter."""

    label: str
    values: Values


@contextmanager
def mutation_figure(
    sequence: str, start: int, tracks: Sequence[LetterTrack], maps: Sequence[HeatMap], title: str
) -> Iterator[Figure]:
    """Draw tracks above heat maps, in lines of about a hundred bases; the figure can be saved inside the block.

    Args:
        sequence: Letters.
        start: Of the first one, 0-based; ticks stand at the middle of a base and count from 1.
        tracks: Drawn as logos with one scale each.
        maps: Each has colours of its own, 0 in the middle, and a bar that explains them. They reach as far as the
            substitutions do; a deletion beyond is drawn in the last colour, and the bar then ends in a point.
        title: Any text.
    """
    line = _LINE if len(sequence) <= 3 * _LINE else _LINE * 3 // 2
    line, origin = min(line, len(sequence)), start + 0.5
    lines = [(first, min(first + line, len(sequence))) for first in range(0, len(sequence), line)]
    used = [heat.values[:, : 5 if np.isfinite(heat.values[:, 4]).any() else 4] for heat in maps]
    norms = [Normalize(-reach, reach) for reach in (_reach(values[:, :4]) for values in used)]
    heights = [0.75] * len(tracks) + [0.16 * values.shape[1] for values in used]
    with matplotlib.rc_context(_STYLE):
        width = max(_NARROWEST, _WIDTH * min(1.0, 0.15 + line / _FULL))
        figure = Figure(figsize=(width, 0.9 + len(lines) * (sum(heights) + 0.75)), dpi=150)
        FigureCanvasAgg(figure)
        figure.set_layout_engine("constrained", h_pad=0.03, w_pad=0.04, hspace=0.0, wspace=0.0)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        bands = figure.subfigures(len(lines), 1, squeeze=False)[:, 0]
        for band, (first, last) in zip(bands, lines, strict=True):
            axes = band.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
            for axis in axes:
                axis.set_xlim(origin + first, origin + first + line)
            for axis, track in zip(axes, tracks, strict=False):
                _draw_track(axis, track, sequence, origin, first, last)
            for axis, heat, values, norm in zip(axes[len(tracks) :], maps, used, norms, strict=True):
                _draw_map(axis, values, norm, sequence, origin, first, last)
                colours, ends = ScalarMappable(norm, "RdBu_r"), _beyond(values, norm)
                bar = band.colorbar(colours, ax=axis, fraction=0.012, pad=0.005, aspect=7, extend=ends)
                bar.outline.set_visible(False)
                bar.locator = MaxNLocator(2, symmetric=True)
                bar.ax.tick_params(labelsize=6, length=2)
                axis.set_ylabel(heat.label, rotation=0, ha="right", va="center", labelpad=16)
            for axis in axes[:-1]:
                axis.tick_params(bottom=False, labelbottom=False)
            # As far apart as on a full line, where the last one is shorter.
            ticks = MaxNLocator(10 if width == _WIDTH else 5, integer=True)
            places = ticks.tick_values(origin + first, origin + first + line)
            axes[-1].set_xticks([p for p in places if origin + first < p < origin + last])
            axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{int(place):,}"))
        yield figure


def _reach(values: Values) -> float:
    known = np.abs(values[np.isfinite(values)])
    return max(float(np.quantile(known, 0.99)) if known.size else 1.0, 1e-6)


def _beyond(values: Values, norm: Normalize) -> str:
    """Which ends of a colour bar values leave, in matplotlib's words."""
    assert norm.vmin is not None
    assert norm.vmax is not None
    known = values[np.isfinite(values)]
    low, high = bool((known < norm.vmin).any()), bool((known > norm.vmax).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[low, high]


def _draw_track(axis: Axes, track: LetterTrack, sequence: str, start: float, first: int, last: int) -> None:
    limits = axis.get_xlim()
    draw_logo(axis, one_letter(sequence[first:last], track.values[first:last]), start + first)
    axis.set_xlim(limits)
    axis.set_ylim(extent(one_letter(sequence, track.values)))
    axis.plot([start + first, start + last], [0, 0], color="#c5ccd4", linewidth=0.6, zorder=0)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
    axis.yaxis.set_major_locator(MaxNLocator(3))
    axis.tick_params(axis="y", labelsize=6, length=2)
    axis.set_ylabel(track.label, rotation=0, ha="right", va="center", labelpad=16)


def _draw_map(axis: Axes, values: Values, norm: Normalize, sequence: str, start: float, first: int, last: int) -> None:
    rows = values.shape[1]
    edges = start + np.arange(first, last + 1)
    axis.add_patch(Rectangle((edges[0], 0), last - first, rows, facecolor=_GROUND, linewidth=0, zorder=0))
    shown = np.ma.masked_invalid(values[first:last].T)
    for place in range(first, last):
        if sequence[place] in _ROWS:
            shown[_ROWS.index(sequence[place]), place - first] = np.ma.masked
    axis.pcolormesh(edges, np.arange(rows + 1), shown, norm=norm, cmap="RdBu_r", linewidth=0, rasterized=True)
    own = [_ROWS.find(letter) for letter in sequence[first:last]]
    places = [(start + first + i + 0.5, row + 0.5, row) for i, row in enumerate(own) if row >= 0]
    if places:
        colours = [COLOURS[_ROWS[row]] for *_, row in places]
        axis.scatter([x for x, *_ in places], [y for _, y, _ in places], s=3, c=colours, linewidths=0)
    axis.set_ylim(rows, 0)
    axis.set_yticks(np.arange(rows) + 0.5, [*"ACGT", "del"][:rows])
    axis.set_facecolor("none")
    axis.tick_params(axis="y", labelsize=6, length=0, pad=2)
    for side in axis.spines.values():
        side.set_visible(False)


def save_figure(figure: Figure, path: Path) -> None:
    """Save as the suffix says, on white; the same figure gives the same bytes."""
    metadata = {"Date": None, "Creator": None} if path.suffix.lower() == ".svg" else {"Software": None}
    figure.savefig(path, facecolor="white", metadata=metadata, format=path.suffix.lower()[1:])
