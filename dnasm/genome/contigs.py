"""The names and lengths of a genome's contigs, in arrays: a million of them cost tens of megabytes, not hundreds."""

import difflib
from collections.abc import Iterator, Mapping
from itertools import islice
from zlib import crc32

import numpy as np
import numpy.typing as npt

from dnasm.errors import InputError

Int64s = npt.NDArray[np.int64]

_BLOCK = 1 << 14


class Contigs(Mapping[str, int]):
    """Name -> length in bases, in the order of the file; behaves as a read-only dict.

    Attributes:
        lengths: Bases of each contig.
        offsets: Where each begins in `tokens.u8`, which holds them one after another.
        total: Bases of all of them.
    """

    def __init__(self, names: str, lengths: npt.ArrayLike) -> None:
        """Take the names, one a line, and their lengths.

        Raises:
            ValueError: If their numbers differ.
        """
        self._names = names.encode()
        self.lengths: Int64s = np.asarray(lengths, dtype=np.int64)
        breaks = np.flatnonzero(np.frombuffer(self._names, dtype=np.uint8) == ord("\n"))
        self._ends: Int64s = np.append(breaks, len(self._names)) if self._names else np.empty(0, np.int64)
        if self._ends.size != self.lengths.size:
            raise ValueError(f"{self._ends.size} contig names, but {self.lengths.size} lengths")
        ends = np.cumsum(self.lengths)
        self.offsets: Int64s = ends - self.lengths
        self.total = int(ends[-1]) if ends.size else 0
        self._by_hash: tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]] | None = None

    @property
    def names(self) -> str:
        """All names, one a line."""
        return self._names.decode()

    def name(self, index: int) -> str:
        """Name of contig `index`."""
        start = int(self._ends[index - 1]) + 1 if index else 0
        return self._names[start : int(self._ends[index])].decode()

    def index(self, name: str) -> int:
        """Number of the contig called `name`, from 0.

        Raises:
            KeyError: If there is none.
        """
        hashes, order = self._hashed()
        wanted = name.encode("utf-8", "surrogateescape")
        value = np.uint32(crc32(wanted))
        for i in range(int(np.searchsorted(hashes, value)), hashes.size):
            if hashes[i] != value:
                break
            index = int(order[i])
            if self.name(index) == name:
                return index
        raise KeyError(name)

    def first_duplicate(self) -> tuple[int, int] | None:
        """Find two contigs of the same name: the numbers of both, or None."""
        hashes, order = self._hashed()
        same = np.flatnonzero(hashes[1:] == hashes[:-1])
        seen: dict[str, int] = {}
        for i in sorted({int(order[j + k]) for j in same for k in (0, 1)}):
            first = seen.setdefault(self.name(i), i)
            if first != i:
                return first, i
        return None

    def __getitem__(self, name: str) -> int:
        return int(self.lengths[self.index(name)])

    def __len__(self) -> int:
        return self.lengths.size

    def __iter__(self) -> Iterator[str]:
        start = 0
        for block in range(0, len(self), _BLOCK):  # so that a million names are never alive at once
            for end in self._ends[block : block + _BLOCK].tolist():
                yield self._names[start:end].decode()
                start = end + 1

    def __repr__(self) -> str:
        shown = ", ".join(f"{name!r}: {length}" for name, length in islice(self.items(), 4))
        return f"Contigs({{{shown}{', ...' if len(self) > 4 else ''}}})"

    def unknown(self, name: str, where: str) -> InputError:
        r"""The error for a name that is not there, with the nearest ones that are.

        >>> str(Contigs("1\n2", [5, 5]).unknown("chr1", "a.fa"))
        "a.fa has no contig 'chr1'; it has '1' (the prefix 'chr' differs)"
        """
        other = name.removeprefix("chr") if name.startswith("chr") else f"chr{name}"
        if other in self:
            return InputError(f"{where} has no contig {name!r}; it has {other!r} (the prefix 'chr' differs)")
        near = difflib.get_close_matches(name, islice(self, 10_000), n=3) or list(islice(self, 3))
        return InputError(f"{where} has no contig {name!r}; it has {len(self):,}, such as {', '.join(map(repr, near))}")

    def _hashed(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        if self._by_hash is None:
            hashes = np.fromiter((crc32(name.encode()) for name in self), dtype=np.uint32, count=len(self))
            order = np.argsort(hashes, kind="stable")
            self._by_hash = hashes[order], order
        return self._by_hash
