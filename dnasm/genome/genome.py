"""A genome as users see it: contigs, coordinates, letters and tokens."""

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dnasm.errors import InputError
from dnasm.genome.contigs import Contigs
from dnasm.genome.files import input_path
from dnasm.genome.interval import Interval
from dnasm.genome.progress import show_progress
from dnasm.genome.runs import Bools, Runs, clip_runs
from dnasm.genome.store import ensure_store, find_store, log
from dnasm.vocabulary import DECODE, Tokens

_LOWER = np.uint8(ord("a") - ord("A"))


class Genome:
    """A FASTA or GenBank file, read through its token store, which is built when it is absent or stale.

    One object serves any number of threads and forked processes, and can be pickled. All coordinates are 0-based,
    end excluded.

    >>> genome = Genome("hg38.fa")                     # doctest: +SKIP
    >>> genome["chr17", 43_044_294:43_044_304]         # doctest: +SKIP
    'TTTTGGTTTC'

    Attributes:
        path: The genome file.
        store: Its token store.

    Args:
        path: FASTA (plain, gzip or bgzip) or GenBank file.
        quiet: Show no progress while the store is built.
    """

    def __init__(self, path: str | PathLike[str], *, quiet: bool = False) -> None:
        self.path = input_path(path)
        with show_progress(self.path, quiet=quiet) as progress:
            self.store, built, warnings = ensure_store(self.path, progress=progress)
        for warning in warnings if built else ():
            log.warning("%s: %s", self.path, warning)

    @property
    def contigs(self) -> Contigs:
        """Name -> length of each contig, in the file's order."""
        return self.store.contigs

    def offset(self, contig: str) -> int:
        """Where the contig begins in `tokens.u8`: what `read` counts from."""
        return int(self.contigs.offsets[self._index(contig)])

    def read(self, offsets: npt.NDArray[np.integer], length: int) -> Tokens:
        """Copy many windows of one length at once: uint8 (n, length).

        Args:
            offsets: First token of each window, counted from the beginning of the genome (`offset(contig) + start`).
            length: Tokens in a window. A window that runs past its contig goes on into the next one.

        Raises:
            IndexError: If a window leaves the genome.
        """
        return self.store.read(offsets, length)

    def tokens(self, contig: str, start: int, end: int) -> Tokens:
        """Tokens of bases `start` to `end`: uint8 (end - start,).

        Raises:
            InputError: If the contig is unknown or the range leaves it.
        """
        offset = self._locate(contig, start, end)
        return self.store.read(np.array([offset]), end - start)[0]

    def masked(self, contig: str, start: int, end: int) -> Bools:
        """Which bases are soft-masked (lower case): bool (end - start,)."""
        offset = self._locate(contig, start, end)
        return self.store.run_flags("soft_mask", np.array([offset]), end - start)[0]

    def read_masked(self, offsets: npt.NDArray[np.integer], length: int) -> Bools:
        """Which tokens of the windows that `read` would copy are soft-masked: bool (n, length)."""
        return self.store.run_flags("soft_mask", offsets, length)

    def n_runs(self, contig: str) -> Runs:
        """Stretches of N within the contig: int64 (n, 2), 0-based starts and excluded ends."""
        return self._contig_runs("n", contig)

    def mask_runs(self, contig: str) -> Runs:
        """Soft-masked stretches within the contig: int64 (n, 2), 0-based starts and excluded ends."""
        return self._contig_runs("soft_mask", contig)

    def __getitem__(self, key: tuple[str, slice] | Interval) -> str:
        """Letters of `genome[contig, start:end]` or `genome[interval]`; lower case where soft-masked."""
        contig, start, end = self._bounds(key)
        letters = DECODE[self.tokens(contig, start, end)]
        letters[self.masked(contig, start, end)] += _LOWER
        return letters.tobytes().decode("ascii")

    def close(self) -> None:
        """Close this process's files; reading afterwards is an error."""
        self.store.close()

    def __enter__(self) -> "Genome":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Genome({str(self.path)!r}: {len(self.contigs):,} contigs, {self.contigs.total:,} bases)"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path.absolute(), self.store.index.build)

    def _index(self, contig: str) -> int:
        try:
            return self.contigs.index(contig)
        except KeyError:
            raise self.contigs.unknown(contig, str(self.path)) from None

    def _locate(self, contig: str, start: int, end: int) -> int:
        index = self._index(contig)
        length = int(self.contigs.lengths[index])
        if not 0 <= start <= end <= length:
            raise InputError(f"{self.path}: {contig}:{start:,}-{end:,} is no range within its {length:,} bases")
        return int(self.contigs.offsets[index]) + start

    def _contig_runs(self, kind: str, contig: str) -> Runs:
        index = self._index(contig)
        start = int(self.contigs.offsets[index])
        end = start + int(self.contigs.lengths[index])
        return clip_runs(self.store.runs(kind, start, end), start, end)

    def _bounds(self, key: tuple[str, slice] | Interval) -> tuple[str, int, int]:
        if isinstance(key, Interval):
            return key.contig, key.start, key.end
        if not (isinstance(key, tuple) and len(key) == 2 and isinstance(key[1], slice)):
            raise TypeError(f"genome[{key!r}] names no stretch; write genome[contig, start:end], 0-based, end excluded")
        contig, where = key
        if where.step not in (None, 1):
            raise ValueError(f"genome[{contig!r}, ::{where.step}] has a step; read the bases and take a slice of them")
        end = self.contigs.lengths[self._index(contig)] if where.stop is None else where.stop
        return contig, int(where.start or 0), int(end)


def _reopen(path: Path, build: str) -> Genome:
    """Open a pickled genome in another process: the very store that the first process reads, never a new one."""
    store = find_store(path).store
    if store is None or store.index.build != build:
        raise InputError(f"{path}: the file or its token store changed since this program opened it; start again")
    genome = Genome.__new__(Genome)
    genome.path, genome.store = path, store
    return genome
