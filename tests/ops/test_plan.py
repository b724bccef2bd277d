"""The integer arithmetic of plans, at sizes that no test could run."""

import cmath
from math import prod

import pytest

from dnasm.ops.plan import TAIL, cpu_length, cpu_radices, frequency, packed_length, position, tile_length

PLANS = [(1, 8, 8), (4, 8, 8), (3, 5, 8, 8), (8, 2, 8, 8), (16, 8, 16, 16)]


@pytest.mark.parametrize("radices", PLANS)
def test_positions_are_a_permutation_and_frequency_undoes_it(radices: tuple[int, ...]) -> None:
    length = prod(radices)
    places = [position(m, radices) for m in range(length)]
    assert sorted(places) == list(range(length))
    assert all(frequency(place, radices) == m for m, place in enumerate(places))


def _stages(x: list[complex], radices: tuple[int, ...], quarter: float = 0.25) -> list[complex]:
    """The in-place recursion that the position table describes, by the definition of each stage."""
    if not radices:
        return x
    radix, part = radices[0], len(x) // radices[0]
    out: list[complex] = []
    for m in range(radix):
        block = []
        for n in range(part):
            total = sum(x[j * part + n] * cmath.exp(2j * cmath.pi * j * (m + quarter) / radix) for j in range(radix))
            block.append(total * cmath.exp(2j * cmath.pi * n * (m + quarter) / len(x)))
        out += _stages(block, radices[1:], 0.0)
    return out


@pytest.mark.parametrize("radices", [(4,), (2, 3), (3, 5, 2), (4, 4, 2)])
def test_every_frequency_stands_at_its_position(radices: tuple[int, ...]) -> None:
    length = prod(radices)
    x = [complex(((7 * n) % 11) - 5) for n in range(length)]
    found = _stages(x, radices)
    for m in range(length):
        value = sum(x[n] * cmath.exp(2j * cmath.pi * n * (m + 0.25) / length) for n in range(length))
        assert abs(found[position(m, radices)] - value) < 1e-9


@pytest.mark.parametrize("radices", [(1 << 17, 1 << 17), (1 << 12, 1 << 12, 1 << 12), (3, 5, 1 << 33)])
def test_indices_past_two_to_the_31(radices: tuple[int, ...]) -> None:
    length = prod(radices)
    assert length > 2**31
    for m in (0, 1, 2**31 - 1, 2**31, 2**31 + 1, length - 1):
        at = position(m, radices)
        assert 0 <= at < length
        assert frequency(at, radices) == m


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 1000, 1024, 10007, 100_000, 1 << 20, (1 << 20) + 1, 3 * 2**31])
def test_lengths_are_enough_and_not_much_more(n: int) -> None:
    length = cpu_length(n)
    assert n <= length <= max(TAIL, 1.25 * n) or n < 4 * TAIL
    assert prod(cpu_radices(length)) == length
    assert set(cpu_radices(length)) <= {1, 2, 3, 4, 5, 8}
    assert n <= packed_length(n) <= max(TAIL, 2 * n)


@pytest.mark.parametrize("tiles", range(1, 200))
def test_every_length_has_radices(tiles: int) -> None:
    length = cpu_length(tiles * TAIL)
    radices = cpu_radices(length)
    assert prod(radices) == length
    assert radices[-2:] == (8, 8)
    assert 1 not in radices or length == TAIL


def test_a_length_that_is_no_plan_is_refused() -> None:
    for length in (100, 7 * TAIL):
        with pytest.raises(ValueError, match="CPU plan"):
            cpu_radices(length)


def test_short_filters_take_tiles_that_hold_them() -> None:
    assert tile_length(1 << 20, 1 << 20) == 1 << 20
    for taps in (1, 64, 65, 1000):
        size = tile_length(1 << 20, taps)
        assert taps <= size < 1 << 14
    assert tile_length(100, 3) == cpu_length(100)
