"""The part of a report on tracks along a genome, as `dnasm likelihood` writes them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dnasm.errors import ConfigError, InputError, MissingExtra
from dnasm.genome.files import lines, open_bytes
from dnasm.report.page import FigureBlock
from dnasm.report.plots import plot_track

_SHOWN = 4  # stretches of a track
_LONGEST = 200_000  # bases of a stretch
_GAP = 1000  # bases without a value that end a stretch


@dataclass(frozen=True)
class _Stretch:
    contig: str
    start: int
    values: npt.NDArray[np.float64]


def track_figures(name: str, number: int) -> list[FigureBlock]:
    """Draw the first stretches of a bedGraph or bigWig.

    Args:
        name: The file.
        number: Tells its figures from those of other tracks.

    Raises:
        ConfigError: If the suffix names neither format.
        InputError: If it is damaged or has no value.
    """
    if name.lower().endswith((".bw", ".bigwig")):
        intervals = _read_bigwig(name)
    elif name.lower().endswith((".bedgraph", ".bdg")):
        intervals = _read_bedgraph(name)
    else:
        raise ConfigError(f"--tracks {name}: the suffix must be .bedgraph, .bdg, .bw or .bigwig")
    stretches = _stretches(intervals)
    if not stretches:
        raise InputError(f"{name}: has no value to show")
    return [
        FigureBlock(
            f"{Path(name).name}: {stretch.contig}:{stretch.start + 1:,}-{stretch.start + len(stretch.values):,}",
            plot_track(stretch.start, stretch.values, f"track-{number}-{i}"),
            f"Mean {np.nanmean(stretch.values):.3f}".replace("-", "\N{MINUS SIGN}")
            + f" over {int(np.isfinite(stretch.values).sum()):,} bases; the line is the running mean.",
        )
        for i, stretch in enumerate(stretches)
    ]


def _read_bedgraph(name: str) -> Iterator[tuple[str, int, int, float]]:
    with open_bytes(Path(name)) as source:
        for number, line in lines(source):
            if not line.strip() or line.startswith(("#", "track", "browser")):
                continue
            try:
                contig, start, end, value = line.split()
                yield contig, int(start), int(end), float(value)
            except ValueError:
                raise InputError(f"{name}:{number}: is no line of a bedGraph: {line[:60]!r}") from None


def _read_bigwig(name: str) -> Iterator[tuple[str, int, int, float]]:
    try:
        import pyBigWig
    except ImportError:
        raise MissingExtra("bigWig needs pyBigWig: pip install 'dnasm[bigwig]'") from None
    if not Path(name).is_file():
        raise InputError(f"{name}: there is no such file")
    try:
        file = pyBigWig.open(name)
    except RuntimeError as error:
        raise InputError(f"{name}: is no bigWig that can be read") from error
    with file:
        for contig in file.chroms():
            for start, end, value in file.intervals(contig) or ():
                yield contig, start, end, value


def _stretches(intervals: Iterator[tuple[str, int, int, float]]) -> list[_Stretch]:
    found: list[_Stretch] = []
    contig, start, end, pieces = "", 0, 0, list[tuple[int, int, float]]()

    def close() -> None:
        if pieces:
            values = np.full(end - start, np.nan)
            for first, last, value in pieces:
                values[first - start : last - start] = value
            found.append(_Stretch(contig, start, values))
            pieces.clear()

    for name, first, last, value in intervals:
        if pieces and (name != contig or first - end > _GAP or last - start > _LONGEST or first < end):
            close()
            if len(found) == _SHOWN:
                return found
        if not pieces:
            contig, start = name, first
        if last - first <= _LONGEST:
            pieces.append((first, last, value))
            end = last
    close()
    return found
