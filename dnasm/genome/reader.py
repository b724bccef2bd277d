"""Reading a token store: windows with `pread`, by any number of threads and processes."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dnasm.errors import InputError
from dnasm.genome.contigs import Contigs, Int64s
from dnasm.genome.layout import ARRAYS, INDEX, TOKENS, StoreIndex
from dnasm.genome.runs import Bools, RunIndex, Runs
from dnasm.vocabulary import Tokens


class TokenStore:
    """An opened store: `tokens.u8`, the contigs and the runs.

    Files are opened once in each process, by its id, so that a forked worker never uses a descriptor it inherited;
    `pread` has no shared position, so threads need no lock. Memory does not grow with the genome.

    Attributes:
        directory: Where it lies.
        index: What `index.json` says, lengths aside.
        contigs: Names and lengths.
    """

    def __init__(self, directory: Path) -> None:
        """Open the store.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is damaged or of another version; the message says how.
        """
        self.directory = directory
        self._closed = False
        self._files: dict[int, tuple[int, int]] = {}
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:  # all three from one folder, even while another process puts a new one in its place
            with open(os.open(INDEX, os.O_RDONLY, dir_fd=folder), encoding="utf-8") as file:
                self.index = StoreIndex.from_json(file.read())
            self._files[os.getpid()] = _open_both(folder)
        finally:
            os.close(folder)
        self._identity = _identity(self._descriptors())
        self.contigs = Contigs(self.index.names, self.index.lengths)
        self.index.lengths.clear()  # the array holds them
        self._check_sizes()
        self._fences = {kind: self.array(f"{kind}_fence")[:, 0] for kind in ("n", "soft_mask")}

    def read(self, offsets: npt.NDArray[np.integer], length: int) -> Tokens:
        """Copy the windows of `length` tokens that begin at `offsets` of `tokens.u8`: uint8 (n, length).

        Raises:
            IndexError: If a window leaves the file.
        """
        starts = np.asarray(offsets, dtype=np.int64)
        if starts.size and (length < 0 or starts.min() < 0 or starts.max() + length > self.contigs.total):
            raise IndexError(
                f"{self.directory}: windows of {length:,} from {starts.min():,} to {starts.max():,} leave the "
                f"{self.contigs.total:,} tokens"
            )
        out = np.empty((starts.size, length), dtype=np.uint8)
        view, file, preadv, low = out.reshape(-1).data, self._descriptors()[0], os.preadv, 0
        for start in starts.tolist() if length else ():
            high = low + length
            if preadv(file, (view[low:high],), start) != length:
                self._fill(file, view[low:high], start)
            low = high
        return out

    def runs(self, kind: str, start: int, end: int) -> Runs:
        """Runs of `kind` (`n` or `soft_mask`) that share a base with [start, end), whole, as absolute offsets."""
        return self._run_index(kind).between(start, end)

    def run_flags(self, kind: str, offsets: npt.NDArray[np.integer], length: int) -> Bools:
        """Which tokens of the windows that begin at `offsets` lie in a run of `kind`: bool (n, length)."""
        return self._run_index(kind).flags(np.asarray(offsets, dtype=np.int64), length)

    def array(self, name: str) -> Int64s:
        """Read a whole section of `arrays.i64`: int64 (rows, columns)."""
        return self._rows(name, 0, self.index.arrays[name].rows)

    def close(self) -> None:
        """Close the files of this process; reading afterwards is an error."""
        self._closed = True
        for file in self._files.pop(os.getpid(), ()):
            os.close(file)

    def __del__(self) -> None:
        if hasattr(self, "_files"):
            self.close()

    def _descriptors(self) -> tuple[int, int]:
        pid = os.getpid()
        files = self._files.get(pid)
        if files is None:
            mine = self._reopen()
            files = self._files.setdefault(pid, mine)
            if files is not mine:  # another thread was first
                for file in mine:
                    os.close(file)
        return files

    def _reopen(self) -> tuple[int, int]:
        if self._closed:
            raise ValueError(f"{self.directory}: this genome was closed; open it again")
        folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            files = _open_both(folder)
        finally:
            os.close(folder)
        if _identity(files) != self._identity:
            for file in files:
                os.close(file)
            raise InputError(f"{self.directory}: was built again while it was in use; start this program again")
        return files

    def _fill(self, file: int, view: memoryview, start: int) -> None:
        """Read in as many steps as the system wants; the end of the file before the end of `view` is an error."""
        done = 0
        while done < len(view):
            count = os.preadv(file, (view[done:],), start + done)
            if count == 0:
                raise InputError(f"{self.directory}: {TOKENS} was cut off at byte {start + done:,}; delete the folder")
            done += count

    def _rows(self, name: str, first: int, last: int) -> Int64s:
        section = self.index.arrays[name]
        out = np.empty((last - first, section.columns), dtype="<i8")
        start = section.offset + first * section.columns * 8
        self._fill(self._descriptors()[1], out.reshape(-1).data.cast("B"), start)
        return out.astype(np.int64, copy=False)

    def _run_index(self, kind: str) -> RunIndex:
        rows = partial(self._rows, kind)  # not kept: the store would hold itself, and its files open
        return RunIndex(rows, self.index.arrays[kind].rows, self._fences[kind])

    def _check_sizes(self) -> None:
        tokens, arrays = (os.fstat(file).st_size for file in self._descriptors())
        wanted = max(section.end for section in self.index.arrays.values())
        for name, found, expected in ((TOKENS, tokens, self.contigs.total), (ARRAYS, arrays, wanted)):
            if found != expected:
                raise ValueError(f"{name} has {found:,} bytes, {expected:,} were written")


def _open_both(folder: int) -> tuple[int, int]:
    tokens = os.open(TOKENS, os.O_RDONLY, dir_fd=folder)
    try:
        return tokens, os.open(ARRAYS, os.O_RDONLY, dir_fd=folder)
    except OSError:
        os.close(tokens)
        raise


def _identity(files: tuple[int, int]) -> list[tuple[int, int]]:
    return [(info.st_dev, info.st_ino) for info in map(os.fstat, files)]
