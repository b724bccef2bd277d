from itertools import chain

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from dnasm.genome import runs as module
from dnasm.genome.runs import RunIndex, clip_runs, count_inside, find_runs, join_runs
from tests.genome.naive import runs_of

FLAGS = st.lists(st.booleans(), max_size=60)


@given(FLAGS, st.integers(0, 100))
def test_find_runs(flags: list[bool], base: int) -> None:
    expected = [[start + base, end + base] for start, end in runs_of(flags)]
    assert find_runs(np.array(flags, dtype=bool), base).tolist() == expected


@given(st.lists(FLAGS, max_size=5))
def test_runs_found_piece_by_piece_are_those_of_the_whole(pieces: list[list[bool]]) -> None:
    whole: list[bool] = list(chain.from_iterable(pieces))
    found, base = [], 0
    for piece in pieces:
        found.append(find_runs(np.array(piece, dtype=bool), base))
        base += len(piece)
    assert join_runs(found).tolist() == runs_of(whole)


@given(FLAGS, st.integers(0, 60), st.integers(0, 60))
@example([True] * 30, 22, 0)
def test_clip_and_count(flags: list[bool], start: int, length: int) -> None:
    start = min(start, len(flags))
    end = min(start + length, len(flags))
    runs = find_runs(np.array(flags, dtype=bool))
    assert clip_runs(runs, start, end).tolist() == runs_of(flags[start:end])
    assert count_inside(runs, np.array([start]), np.array([end])).tolist() == [sum(flags[start:end])]


@given(FLAGS, st.lists(st.integers(0, 60), max_size=8), st.integers(0, 30), st.integers(1, 4))
def test_index_finds_the_flags_whatever_its_block(
    flags: list[bool], offsets: list[int], length: int, block: int
) -> None:
    runs = find_runs(np.array(flags, dtype=bool))
    padded = np.array(flags + [False] * 90, dtype=bool)
    before, module.BLOCK = module.BLOCK, block
    try:
        index = RunIndex(lambda first, last: runs[first:last], len(runs), runs[::block, 0])
        found = index.flags(np.array(offsets, dtype=np.int64), length)
    finally:
        module.BLOCK = before
    assert found.shape == (len(offsets), length)
    for row, offset in zip(found, offsets, strict=True):
        assert row.tolist() == padded[offset : offset + length].tolist()
