"""Windows of alleles: where they start, what stands in them, at contig ends and on both strands."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnasm.tasks.allele_windows import cut_windows, cut_windows_reverse, find_change, left_align, place_window, room
from dnasm.vocabulary import Tokens, decode, encode, reverse_complement

CONTIG = "ACGGTTCAGATCCATTGACCGTAAGCTTGCATCGATTACAGGCT"


def _read(start: int, end: int) -> Tokens:
    assert 0 <= start <= end <= len(CONTIG)
    return encode(CONTIG[start:end])


def _windows(start: int, ref: str, alt: str, window: int) -> tuple[str, str]:
    assert CONTIG[start : start + len(ref)] == ref
    pair = cut_windows(_read, len(CONTIG), find_change(start, ref, alt), window)
    return decode(pair.reference), decode(pair.alternate)


def test_a_substitution_stands_at_half_the_window() -> None:
    reference, alternate = _windows(20, "G", "T", 8)
    assert reference == CONTIG[16:24]
    assert alternate == CONTIG[16:20] + "T" + CONTIG[21:24]


@pytest.mark.parametrize(
    ("ref", "alt", "expected"),
    [
        ("G", "GAA", CONTIG[17:21] + "AA" + CONTIG[21:23]),  # the insertion comes after base 20
        ("GTAA", "G", CONTIG[17:21] + CONTIG[24:28]),
        ("GT", "CC", CONTIG[16:20] + "CC" + CONTIG[22:24]),
    ],
)
def test_indels_take_extra_flank_on_the_far_side(ref: str, alt: str, expected: str) -> None:
    reference, alternate = _windows(20, ref, alt, 8)
    assert alternate == expected
    assert len(reference) == len(alternate) == 8
    assert reference in CONTIG


def test_padding_a_record_with_shared_bases_changes_nothing() -> None:
    assert _windows(20, "G", "T", 8) == _windows(18, CONTIG[18:23], CONTIG[18:20] + "T" + CONTIG[21:23], 8)


@pytest.mark.parametrize("start", [0, 1, 3, 41, 43])
def test_at_a_contig_end_the_window_moves_inwards(start: int) -> None:
    ref = CONTIG[start]
    reference, alternate = _windows(start, ref, "A" if ref != "A" else "C", 8)
    assert len(reference) == len(alternate) == 8
    assert reference in (CONTIG[:8], CONTIG[-8:])


def test_a_deletion_at_the_end_still_has_flank_for_both() -> None:
    start = len(CONTIG) - 6
    change = find_change(start, CONTIG[start : start + 4], CONTIG[start])
    assert place_window(change, len(CONTIG), 8) == (len(CONTIG) - 8 - 3, 8)
    reference, alternate = _windows(start, CONTIG[start : start + 4], CONTIG[start], 8)
    assert len(reference) == len(alternate) == 8
    assert alternate.endswith(CONTIG[-2:])


def test_a_grid_lets_neighbours_share_a_window() -> None:
    starts = [place_window(find_change(start, "A", "C"), 1000, 64, 16)[0] for start in range(100, 160)]
    assert {start % 16 for start in starts} == {0}
    assert all(start <= place - 32 < start + 16 for place, start in zip(range(100, 160), starts, strict=True))
    assert place_window(find_change(999, "A", "C"), 1000, 64, 16) == (936, 64)


def test_a_short_contig_is_taken_whole_less_what_is_deleted() -> None:
    assert place_window(find_change(3, "G", "A"), len(CONTIG), 1000) == (0, len(CONTIG))
    assert place_window(find_change(3, CONTIG[3:6], "G"), len(CONTIG), 1000) == (0, len(CONTIG) - 2)
    assert place_window(find_change(0, CONTIG, "A"), len(CONTIG), 1000)[1] == 1


def test_room_counts_the_bases_that_an_allele_may_change() -> None:
    assert room(find_change(20, "G", "T"), len(CONTIG), 8) == 4
    assert room(find_change(len(CONTIG) - 1, "T", "A"), len(CONTIG), 8) == 1


@pytest.mark.parametrize(
    ("ref", "alt", "span", "letters"),
    [
        ("A", "G", (10, 11), "G"),
        ("A", "AT", (11, 11), "T"),
        ("TA", "A", (10, 11), ""),
        ("CAA", "CA", (11, 13), "A"),  # either A may be the one that is gone
        ("A", "AA", (10, 11), "AA"),
        ("ACGT", "AGGT", (11, 12), "G"),
    ],
)
def test_shared_ends_are_left_out(ref: str, alt: str, span: tuple[int, int], letters: str) -> None:
    change = find_change(10, ref, alt)
    assert ((change.start, change.end), decode(change.alternate)) == (span, letters)


_letters = st.text("ACGT", min_size=1, max_size=6)


@given(st.integers(0, len(CONTIG) - 6), st.integers(1, 6), _letters, st.integers(2, 60))
def test_both_strands_mirror_each_other(start: int, size: int, alt: str, window: int) -> None:
    """On the reverse-complemented contig the same variant has the same windows with the strands swapped."""
    ref, length = CONTIG[start : start + size], len(CONTIG)
    mirror = decode(reverse_complement(encode(CONTIG)))
    here = find_change(start, ref, alt)
    there = find_change(length - start - size, *(decode(reverse_complement(encode(x))) for x in (ref, alt)))

    def read_mirror(a: int, b: int) -> Tokens:
        return encode(mirror[a:b])

    if len(alt) > room(here.mirrored(length), length, window) or size > room(here.mirrored(length), length, window):
        return
    reverse = cut_windows_reverse(_read, length, here, window)
    forward = cut_windows(read_mirror, length, there, window)
    assert decode(reverse.reference) == decode(forward.reference)
    assert decode(reverse.alternate) == decode(forward.alternate)
    assert reverse.first == forward.first


@given(st.integers(0, len(CONTIG) - 6), st.integers(1, 6), _letters, st.integers(2, 60))
def test_the_alternate_window_is_cut_from_the_edited_contig(start: int, size: int, alt: str, window: int) -> None:
    ref = CONTIG[start : start + size]
    change = find_change(start, ref, alt)
    if max(change.end - change.start, len(change.alternate)) > room(change, len(CONTIG), window):
        return
    pair = cut_windows(_read, len(CONTIG), change, window)
    left, length = place_window(change, len(CONTIG), window)
    edited = CONTIG[:start] + alt + CONTIG[start + size :]
    assert decode(pair.reference) == CONTIG[left : left + length]
    assert decode(pair.alternate) == edited[left : left + length]
    assert np.array_equal(pair.reference[: pair.first], pair.alternate[: pair.first])


@given(st.text("AC", min_size=2, max_size=14), st.data())
def test_every_spelling_of_an_indel_moves_to_the_leftmost_place(letters: str, data: st.DataObject) -> None:
    """The definition, by trying: of all places where it gives the same contig, the first."""

    def read(start: int, end: int) -> Tokens:
        return encode(letters[start:end])

    start = data.draw(st.integers(0, len(letters) - 1))
    ref = letters[start : data.draw(st.integers(start + 1, len(letters)))]
    alt = data.draw(st.one_of(st.text("AC", min_size=1, max_size=5), st.just(ref[0])))
    if len(ref) == len(alt):
        return
    edited = letters[:start] + alt + letters[start + len(ref) :]
    moved = left_align(find_change(start, ref, alt), read)
    assert letters[: moved.start] + decode(moved.alternate) + letters[moved.end :] == edited
    size = len(alt) - len(ref)
    places = [
        place
        for place in range(len(letters) + 1)
        if letters[:place] == edited[:place] and letters[place + max(0, -size) :] == edited[place + max(0, size) :]
    ]
    if places:  # or it is no plain insertion or deletion, and stays
        assert moved.start == places[0]
        assert (moved.end - moved.start, len(moved.alternate)) == (max(0, -size), max(0, size))
    else:
        same = find_change(start, ref, alt)
        assert (moved.start, moved.end, decode(moved.alternate)) == (same.start, same.end, decode(same.alternate))


def test_a_long_repeat_is_walked_through_and_n_is_not() -> None:
    letters = "G" + "N" + "CA" * 3000 + "T"

    def read(start: int, end: int) -> Tokens:
        return encode(letters[start:end])

    moved = left_align(find_change(5000, "CAC", "C"), read)
    assert (moved.start, moved.end) == (2, 4)
    substitution = find_change(5000, "CA", "TG")
    assert left_align(substitution, read) is substitution
