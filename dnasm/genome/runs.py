"""Stretches of bases that share a property, as sorted, disjoint [start, end) rows of absolute token offsets.

A soft-masked human genome has five million of them: they stay on disk, and a reader keeps the first start of each
block of rows.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Runs = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BLOCK = 1024
"""Rows between two starts that a reader keeps in memory: 16 kB are read for a look-up."""


def find_runs(flags: Bools, base: int = 0) -> Runs:
    """Find the stretches of True.

    >>> find_runs(np.array([True, True, False, True]), base=10).tolist()
    [[10, 12], [13, 14]]
    """
    edges = np.flatnonzero(flags[1:] != flags[:-1]) + (base + 1)
    if flags.size and flags[0]:
        edges = np.concatenate([[base], edges])
    if flags.size and flags[-1]:
        edges = np.append(edges, base + flags.size)
    return edges.astype(np.int64, copy=False).reshape(-1, 2)


def join_runs(pieces: list[Runs]) -> Runs:
    """Concatenate runs of consecutive stretches; those that touch become one."""
    runs = np.concatenate([np.empty((0, 2), np.int64), *pieces])
    apart = runs[1:, 0] != runs[:-1, 1]
    starts = runs[np.concatenate([[True], apart]), 0] if len(runs) else runs[:, 0]
    ends = runs[np.concatenate([apart, [True]]), 1] if len(runs) else runs[:, 1]
    return np.column_stack([starts, ends])


def clip_runs(runs: Runs, start: int, end: int) -> Runs:
    """Cut runs to [start, end), and count from `start`; what lies outside is dropped."""
    inside = runs[(runs[:, 1] > start) & (runs[:, 0] < end) & (start < end)]
    return np.clip(inside, start, end) - start


def count_inside(runs: Runs, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count the bases in runs within each [start, end)."""
    before = np.concatenate([[0], np.cumsum(runs[:, 1] - runs[:, 0])])

    def covered(position: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        row = np.searchsorted(runs[:, 0], position, side="right")
        overshoot = np.maximum(0, runs[row - 1, 1] - position) if len(runs) else 0
        return before[row] - np.where(row > 0, overshoot, 0)

    return covered(ends) - covered(starts)


class RunIndex:
    """Looks up runs that lie in a file, without holding them.

    Args:
        fetch: `fetch(first, last)` reads rows `first` to `last`, excluded.
        count: Number of rows.
        fence: Start of every `BLOCK`-th row.
    """

    def __init__(self, fetch: Callable[[int, int], Runs], count: int, fence: npt.NDArray[np.int64]) -> None:
        self._fetch = fetch
        self._count = count
        self._fence = fence

    def between(self, start: int, end: int) -> Runs:
        """Runs that share a base with [start, end), whole, in absolute offsets."""
        first = max(0, int(np.searchsorted(self._fence, start, side="right")) - 1) * BLOCK
        last = min(self._count, int(np.searchsorted(self._fence, end)) * BLOCK)
        if first >= last:
            return np.empty((0, 2), np.int64)
        runs = self._fetch(first, last)
        return runs[(runs[:, 1] > start) & (runs[:, 0] < end)]

    def flags(self, offsets: npt.NDArray[np.int64], length: int) -> Bools:
        """Which of the `length` bases from each offset lie in a run: bool (n, length)."""
        out = np.zeros((len(offsets), length), dtype=np.bool_)
        for row, offset in enumerate(offsets.tolist()):
            runs = clip_runs(self.between(offset, offset + length), offset, offset + length)
            if len(runs):  # outside, inside, outside, ...: repeat each state as long as it lasts
                lasts = np.diff(runs.ravel(), prepend=0, append=length)
                out[row] = np.repeat(np.arange(lasts.size) % 2 == 1, lasts)
        return out
