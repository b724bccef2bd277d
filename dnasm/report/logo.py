"""Sequence logos: letters as tall as their numbers, in matplotlib axes or as a small SVG for a page."""

from functools import cache

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.transforms import IdentityTransform

Heights = npt.NDArray[np.float64]
"""(l, 4), columns A, C, G, T; below 0 letters hang from the axis, upright."""

COLOURS = {"A": "#2c9a4b", "C": "#2f74d0", "G": "#d98e04", "T": "#d2402f"}
"""The usual ones, dark enough on white and light enough on black."""
_SVG_CODES = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CLOSEPOLY: "Z"}
_GAP = 0.04  # of a base's width, on both sides of its letter


@cache
def glyph(letter: str) -> Path:
    """Outline of a letter, stretched to the unit square."""
    path = TextPath((0, 0), letter, size=1, prop=FontProperties(family="DejaVu Sans", weight="bold"))
    low, high = np.asarray(path.get_extents().min), np.asarray(path.get_extents().max)
    vertices = (np.asarray(path.vertices) - low) / (high - low)
    closing = path.codes == Path.CLOSEPOLY
    vertices[closing] = 0.0  # a closing vertex is not drawn; matplotlib leaves the origin there
    return Path(vertices, path.codes)


def stack(heights: Heights) -> list[tuple[int, str, float, float]]:
    """Pile each base's letters up, the small ones at the axis: (place, letter, foot, height below 0 if it hangs).

    >>> stack(np.array([[1.0, 3.0, 0.0, -2.0]]))
    [(0, 'A', 0.0, 1.0), (0, 'T', 0.0, -2.0), (0, 'C', 1.0, 3.0)]
    """
    piled = []
    for place, row in enumerate(heights):
        feet = {True: 0.0, False: 0.0}
        for column in np.argsort(np.abs(row), kind="stable"):
            height = float(row[column])
            if np.isfinite(height) and height != 0:
                piled.append((place, "ACGT"[column], feet[height > 0], height))
                feet[height > 0] += height
    return piled


def draw_logo(axes: Axes, heights: Heights, start: float = 0.0) -> None:
    """Draw a logo; the first base stands from `start` to `start + 1`, and limits are set to what is drawn."""
    paths: dict[str, list[Path]] = {}
    for place, letter, foot, height in stack(heights):
        size = np.array([1 - 2 * _GAP, abs(height)])
        outline = glyph(letter)
        foot_at = np.array([start + place + _GAP, min(foot, foot + height)])
        moved = np.asarray(outline.vertices) * size + foot_at
        paths.setdefault(letter, []).append(Path(moved, outline.codes))
    for letter, drawn in paths.items():
        letters = PathCollection([Path.make_compound_path(*drawn)], facecolors=COLOURS[letter], linewidths=0)
        letters.set_transform(IdentityTransform() + axes.transData)
        axes.add_collection(letters)
    low, high = extent(heights)
    axes.set_xlim(start, start + len(heights))
    axes.set_ylim(low, high)


def extent(heights: Heights) -> tuple[float, float]:
    """Lowest and highest point of a logo, with a little room."""
    known = np.nan_to_num(heights)
    low, high = np.minimum(known, 0).sum(1).min(initial=0.0), np.maximum(known, 0).sum(1).max(initial=0.0)
    room = 0.05 * max(high - low, 1e-9)
    return float(low - room if low else 0.0), float(high + room)


def one_letter(sequence: str, values: npt.ArrayLike) -> Heights:
    """Heights of a logo that shows the sequence's own letters, each as tall as its value."""
    heights = np.zeros((len(sequence), 4))
    for place, (letter, value) in enumerate(zip(sequence, np.asarray(values, dtype=np.float64), strict=True)):
        if letter in "ACGT" and np.isfinite(value):
            heights[place, "ACGT".index(letter)] = value
    return heights


def glyph_symbols() -> str:
    """Definitions that a page with `logo_svg` holds once."""
    symbols = "".join(
        f'<path id="logo-{letter}" fill="{COLOURS[letter]}" d="{_svg_path(glyph(letter))}"/>' for letter in "ACGT"
    )
    return f'<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>{symbols}</defs></svg>'


def logo_svg(
    heights: Heights,
    title: str,
    *,
    top: float = 2.0,
    mark: tuple[int, int] | None = None,
    width: int = 8,
    tall: int = 40,
) -> str:
    """Write a logo of heights of 0 or more as an `<svg>` that uses `glyph_symbols`.

    Args:
        heights: What is drawn.
        title: What a screen reader says; no text of a user.
        top: Height that reaches the upper edge.
        mark: Bases with a tinted ground, as start and excluded end.
        width: Units of a base.
        tall: Units of the whole.
    """
    scale = tall / top
    parts = []
    if mark is not None:
        parts.append(
            f'<rect x="{mark[0] * width}" y="0" width="{(mark[1] - mark[0]) * width}" height="{tall}" class="mark"/>'
        )
    for place, letter, foot, height in stack(heights):
        if height * scale >= 0.2:  # what is lower cannot be seen
            at = f"translate({place * width + _GAP * width:.2f} {tall - foot * scale:.2f})"
            size = f"scale({width * (1 - 2 * _GAP):.2f} {-height * scale:.2f})"
            parts.append(f'<use href="#logo-{letter}" transform="{at} {size}"/>')
    box = f'viewBox="0 0 {len(heights) * width} {tall}"'
    style = f'style="--bases: {len(heights)}"'
    head = f'<svg class="logo" {style} {box} role="img" aria-label="{title}" preserveAspectRatio="none">'
    return f"{head}{''.join(parts)}</svg>"


def _svg_path(path: Path) -> str:
    """Write an outline in SVG's language, three decimals."""
    words = []
    for vertices, code in path.iter_segments(curves=True, simplify=False):
        words.append(_SVG_CODES[code] + ("" if code == Path.CLOSEPOLY else " ".join(f"{v:.3f}" for v in vertices)))
    return "".join(words)
