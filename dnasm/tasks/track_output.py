"""Values along a genome as bigWig or bedGraph, which IGV and the UCSC browser open."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dnasm.errors import MissingExtra, OutputError
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
    """A bigWig; its library tells a lack of room on standard error alone, so what was written is read back."""

    def __init__(self, path: Path, out: str, genome: Genome) -> None:
        import pyBigWig

        self._module, self._path, self._out = pyBigWig, path, out
        self._bases = 0
        self._last: tuple[str, int, float] | None = None
        self._file = pyBigWig.open(str(path), "w")
        self._file.addHeader([(contig, length) for contig, length in genome.contigs.items() if length])

    def write(self, contig: str, start: int, values: Values) -> None:
        for first, last in known_runs(values):
            try:
                self._file.addEntries(contig, start + first, values=values[first:last], span=1, step=1)
            except RuntimeError as error:
                raise self._failure() from error
            self._bases += last - first
            self._last = (contig, start + last - 1, float(values[last - 1]))

    def close(self) -> None:
        self._file.close()

    def check(self) -> None:
        """Raise OutputError if the closed file does not hold what was written."""
        if self._last is None:
            return
        contig, place, value = self._last
        try:
            with self._module.open(str(self._path)) as file:
                whole = file.header()["nBasesCovered"] == self._bases and file.values(contig, place, place + 1) == [
                    value
                ]
        except (RuntimeError, TypeError):
            whole = False
        if not whole:
            raise self._failure()

    def _failure(self) -> OutputError:
        return OutputError(f"{self._out} cannot be written whole: is the disk full?")


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

    Raises:
        OutputError: If the disk is full or the file cannot be written.

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
        with new_file(out) as draft:
            track = _BigWig(draft, out, genome)
            try:
                yield track
            finally:
                track.close()
            track.check()
