"""Lengths and orders of the right-angle transform: integer arithmetic that all backends share.

A plan is a tuple of radices, outermost first, whose product is the transform's length L. Stage j of radix R_j works on
blocks of `R_j * S_j` elements, S_j the product of the radices after it, in place: so frequency `m = sum_j m_j T_j`,
T_j the product of the radices before j, ends at position `sum_j m_j S_j`. `position` is that map.
"""

from functools import lru_cache
from itertools import accumulate
from math import ceil, log2, prod
from operator import mul

TAIL = 64
"""The CPU's last two stages, 8 x 8, stay in registers; every length is a multiple of it."""
_LONG = 1 << 18


def position(frequency: int, radices: tuple[int, ...]) -> int:
    """Where a frequency stands after the last stage: its mixed-radix digits, reversed."""
    at, size = 0, prod(radices)
    for radix in radices:
        size //= radix
        at += frequency % radix * size
        frequency //= radix
    return at


def frequency(at: int, radices: tuple[int, ...]) -> int:
    """Which frequency stands at a position: the inverse of `position`."""
    found, size = 0, prod(radices)
    for radix, before in zip(radices, accumulate((1, *radices), mul), strict=False):
        size //= radix
        found += at // size * before
        at %= size
    return found


@lru_cache(maxsize=4096)
def cpu_length(n: int) -> int:
    """Shortest length of the CPU's plans that is at least n: 64 times a product of 2, 3 and 5."""
    tiles = max(1, ceil(n / TAIL))
    best = 1 << (tiles - 1).bit_length()
    for fives in range(5):
        for threes in range(5):
            odd = 5**fives * 3**threes
            if odd < best:
                best = min(best, odd << (ceil(tiles / odd) - 1).bit_length())
    return TAIL * best


@lru_cache(maxsize=4096)
def packed_length(n: int) -> int:
    """Plan length for one of many packed sequences: 64 times a power of two or three times one.

    Few lengths, because each costs a transform of every filter.
    """
    tiles = max(1, ceil(n / TAIL))
    power = 1 << (tiles - 1).bit_length()
    return TAIL * (power * 3 // 4 if power >= 4 and tiles <= power * 3 // 4 else power)


@lru_cache(maxsize=4096)
def cpu_radices(length: int) -> tuple[int, ...]:
    """Radices of a CPU plan: the outer stages, then the tail of 8 x 8.

    Radix 4 is the fastest in cache; 8 saves passes over memory, and its parts are what threads share in long plans.
    """
    tiles, rest = length // TAIL, []
    if tiles * TAIL != length:
        raise ValueError(f"a CPU plan's length is a multiple of {TAIL}, got {length}")
    for odd in (5, 3):
        while tiles % odd == 0:
            rest.append(odd)
            tiles //= odd
    if tiles & (tiles - 1):
        raise ValueError(f"a CPU plan's length is {TAIL} times a product of 2, 3 and 5, got {length}")
    twos = tiles.bit_length() - 1
    eights = twos % 2 if twos != 1 else 0  # an odd power of two takes one radix 8, or one 2 if it is 2 itself
    if length >= _LONG and not eights and twos >= 6:
        eights = 2
    outer = [8] * eights + [4] * ((twos - 3 * eights) // 2) + [2] * ((twos - 3 * eights) % 2)
    return (*(outer + rest or [1]), 8, 8)


def tile_length(length: int, taps: int) -> int:
    """Plan length for `length` samples and `taps` taps: a short filter runs in tiles that each carry some history.

    A tile holds at least the filter, so that what one tile owes to the past lies in the tile before it.
    """
    whole = cpu_length(length)
    best, cost = whole, float(whole) * (log2(whole) + 4)
    size = cpu_length(taps)
    while size < whole:
        # Tiles after the first transform a complex input, and their borders are read twice: half a stage more.
        tiled = ceil(length / size) * size * (log2(size) + 5)
        if tiled < cost:
            best, cost = size, tiled
        size *= 2
    return best
