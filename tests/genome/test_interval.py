import pytest

from dnasm.genome import Interval


@pytest.mark.parametrize(("start", "end"), [(5, 4), (-1, 3), (-2, -1)])
def test_backwards_and_negative_intervals_are_refused(start: int, end: int) -> None:
    with pytest.raises(ValueError, match=f"chrI:{start}-{end}"):
        Interval("chrI", start, end)


def test_length_counts_bases() -> None:
    assert Interval("chrI", 3, 10).length == 7
    assert Interval("chrI", 3, 3).length == 0


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 10), (9, 20), True),
        ((0, 10), (10, 20), False),
        ((0, 10), (2, 3), True),
        ((2, 3), (0, 10), True),
        ((5, 5), (0, 10), False),
    ],
)
def test_overlap_shares_a_base(a: tuple[int, int], b: tuple[int, int], expected: bool) -> None:
    assert Interval("chrI", *a).overlaps(Interval("chrI", *b)) is expected
    assert not Interval("chrI", *a).overlaps(Interval("chrII", *b))


def test_intervals_sort_and_are_frozen() -> None:
    intervals = [Interval("b", 0, 1), Interval("a", 5, 6), Interval("a", 2, 9)]
    assert sorted(intervals) == [Interval("a", 2, 9), Interval("a", 5, 6), Interval("b", 0, 1)]
    with pytest.raises(AttributeError):
        intervals[0].start = 3  # type: ignore[misc]
