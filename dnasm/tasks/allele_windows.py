"""Cut the two windows that a variant is scored in: where they start, and what stands in them.

A window's place depends on the variant and the contig alone, never on other variants, batches or the other allele.
Each strand has its own window, placed in the strand's own reading direction: half the window is context before the
first changed base. So a genome and its reverse complement give the same windows with the strands swapped.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dnasm import vocabulary
from dnasm.vocabulary import Tokens, decode, encode

_READ_BEFORE = 1024  # bases of the contig at a time, where a change moves through a repeat
_LEAST_BLOCK = 64  # bases between two cuts: each costs the reading of what lies before it

ReadBases = Callable[[int, int], Tokens]
"""Tokens of bases `start` to `end` of one contig, forward strand."""


@dataclass(frozen=True, slots=True)
class Change:
    """Bases `start` to `end` of a contig (0-based, end excluded) are replaced by `alternate`."""

    start: int
    end: int
    alternate: Tokens

    def mirrored(self, contig_length: int) -> "Change":
        """Say the same of the reverse-complemented contig."""
        return Change(
            contig_length - self.end, contig_length - self.start, vocabulary.reverse_complement(self.alternate)
        )

    @property
    def growth(self) -> int:
        """Bases that the contig gains; negative for a deletion."""
        return len(self.alternate) - (self.end - self.start)


@dataclass(frozen=True, slots=True)
class WindowPair:
    """Both alleles in windows of the same length and start."""

    reference: Tokens
    alternate: Tokens
    first: int
    """Index of the first changed base; 0 where the contig begins with it, so that no model predicts it."""
    cut: int = 0
    """Both windows and those of neighbours on the grid are alike up to here."""
    ref_length: int = 1
    alt_length: int = 1
    """Bases that are changed, and those that stand for them."""


def find_change(start: int, ref: str, alt: str) -> Change:
    """Leave out the bases that REF and ALT share at their ends, so that padding a record does not move its window.

    A repeat can be shortened at either end (CAA to CA); every place that could be meant stays in, which makes the
    result the same seen from both strands.

    Args:
        start: Where REF begins on its contig, 0-based.
        ref: Upper-case bases.
        alt: Upper-case bases other than `ref`.

    >>> find_change(10, "CAA", "CA").start, find_change(10, "CAA", "CA").end
    (11, 13)
    """
    shorter = min(len(ref), len(alt))
    head = _common_prefix(ref, alt)
    tail = _common_prefix(ref[::-1], alt[::-1])
    left, right = min(head, shorter - tail), min(tail, shorter - head)
    return Change(start + left, start + len(ref) - right, vocabulary.encode(alt[left : len(alt) - right]))


def left_align(change: Change, read: ReadBases) -> Change:
    """Move an insertion or deletion as far towards the contig's first base as it can be written; leave others alone.

    What is inserted or deleted turns like a wheel as it moves, so the contig with the change in it stays the same.

    >>> left_align(Change(3, 4, encode("")), lambda start, end: encode("CAAAT"[start:end])).start
    1
    """
    ref, alt, start = decode(read(change.start, change.end)), decode(change.alternate), change.start
    tail = _common_prefix(ref[::-1], alt[::-1])
    ref, alt = ref[: len(ref) - tail], alt[: len(alt) - tail]
    head = _common_prefix(ref, alt)
    ref, alt, start = ref[head:], alt[head:], start + head
    if ref and alt:
        return change
    wheel, before = ref or alt, ""
    while start > 0:
        before = before or decode(read(max(0, start - _READ_BEFORE), start))
        if before[-1] == "N" or before[-1] != wheel[-1]:
            break
        wheel, before, start = wheel[-1] + wheel[:-1], before[:-1], start - 1
    return Change(start, start + len(wheel), encode("")) if ref else Change(start, start, encode(wheel))


def _common_prefix(a: str, b: str) -> int:
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


def place_window(change: Change, contig_length: int, window: int, grid: int = 1) -> tuple[int, int]:
    """Find where the windows of a change start on its contig, and their length.

    The first changed base stands at index `window // 2`, or up to `grid - 1` later: the start is rounded down to a
    multiple of `grid`, so that neighbours share it. At a contig's end the window moves inwards, so far that both
    alleles fill it; a contig shorter than the window is taken whole, less what a deletion removes.

    Returns:
        Start on the contig (0-based) and length, at most `window`.
    """
    spare = max(0, -change.growth)  # a deletion's window reaches this much further along the contig
    centred = (change.start - window // 2) // grid * grid
    start = max(0, min(centred, contig_length - window - spare))
    return start, max(0, min(window, contig_length - spare - start))


def cut_windows(read: ReadBases, contig_length: int, change: Change, window: int, grid: int = 1) -> WindowPair:
    """Read the windows of both alleles on the forward strand; what is missing on the far side is flank."""
    start, length = place_window(change, contig_length, window, grid)
    flank_end = start + length + max(0, -change.growth)
    bases = read(start, flank_end)
    first = change.start - start
    edited = np.concatenate([bases[:first], change.alternate, bases[change.end - start :]])
    return WindowPair(
        bases[:length],
        edited[:length],
        first,
        cut_before(first, window, grid),
        change.end - change.start,
        len(change.alternate),
    )


def cut_before(first: int, window: int, grid: int = 1) -> int:
    """Find up to where windows are shared; it depends on the variant's place alone, as the window does.

    >>> [cut_before(first, 1024, 64) for first in (512, 575, 511, 3)]
    [512, 512, 448, 0]
    """
    block, middle = max(_LEAST_BLOCK, grid), window // 2
    return max(0, middle + (first - middle) // block * block)


def cut_windows_reverse(read: ReadBases, contig_length: int, change: Change, window: int, grid: int = 1) -> WindowPair:
    """Read the windows of both alleles as the reverse strand reads them."""

    def read_mirrored(start: int, end: int) -> Tokens:
        return vocabulary.reverse_complement(read(contig_length - end, contig_length - start))

    return cut_windows(read_mirrored, contig_length, change.mirrored(contig_length), window, grid)


def room(change: Change, contig_length: int, window: int, grid: int = 1) -> int:
    """Count the bases from the first changed one to the window's end: a longer allele cannot be seen whole."""
    start, length = place_window(change, contig_length, window, grid)
    return length - (change.start - start)
