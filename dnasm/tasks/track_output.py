"""Values along a genome as bigWig or bedGraph, which IGV and the UCSC browser open."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dnasm.errors import MissingExtra
from dnasm.genome import Genome
from dnasm.tasks.new_file import STANDARD_OUTPUT, new_file

SUFFIXES = (".bw", ".bigwig", ".bedgraph", ".bdg", STANDARD_OUTPUT)

Values = npt.NDArray[np.float32]


class TrackSink(Protocol):
    """What takes values in the order of the genome."""

    def write(self, contig: str, start: int, values: Values) -> None:
        """Take the next ones, beginning at base `start`; nan means none."""


class _BedGraph:
    def __init__(self, handle: Any, name: str) -> None:
        self._handle = handle
        handle.write(f'track type=bedGraph name="{name}" description="{name}, nats" visibility=full\n')

    def write(self, contig: str, start: int, values: Values) -> None:
        for first, last in known_runs(values):
            places = range(start + first, start + last)
            self._handle.writelines(
                f"{contig}\t{place}\t{place + 1}\t{value:.6g}\n"
                for place, value in zip(places, values[first:last].tolist(), strict=True)
            )


class _BigWig:
    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, contig: str, start: int, values: Values) -> None:
        for first, last in known_runs(values):
            self._file.addEntries(contig, start + first, values=values[first:last], span=1, step=1)


def known_runs(values: Values) -> list[tuple[int, int]]:
    """Stretches of values that are numbers, as start and excluded end.

    >>> known_runs(np.array([np.nan, 1, 2, np.nan, 3], np.float32))
    [(1, 3), (4, 5)]
    """
    edges = np.flatnonzero(np.diff(np.isfinite(values), prepend=False, append=False))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]


def require_track_format(suffix: str) -> None:
    """Fail before the work if a format cannot be written here.

    Raises:
        MissingExtra: If its package is not installed.
    """
    if suffix in (".bw", ".bigwig"):
        try:
            import pyBigWig  # noqa: F401
        except ImportError:
            raise MissingExtra(
                f"{suffix} needs pyBigWig: pip install 'dnasm[bigwig]'; .bedgraph needs nothing"
            ) from None


@contextmanager
def open_track(out: str, suffix: str, genome: Genome, name: str) -> Iterator[TrackSink]:
    """Open an output; it appears under its name when the block ends without an error.

    Args:
        out: Path, or `-` for a bedGraph on standard output.
        suffix: As `check_new_file` returned it.
        genome: Its contigs and their order go into the header of a bigWig.
        name: What a browser calls the track.
    """
    if suffix == STANDARD_OUTPUT:
        yield _BedGraph(sys.stdout, name)
    elif suffix in (".bedgraph", ".bdg"):
        with new_file(out) as draft, draft.open("x", encoding="utf-8", newline="") as handle:
            yield _BedGraph(handle, name)
    else:
        import pyBigWig

        with new_file(out) as draft:
            file = pyBigWig.open(str(draft), "w")
            try:
                file.addHeader([(contig, length) for contig, length in genome.contigs.items() if length])
                yield _BigWig(file)
            finally:
                file.close()
