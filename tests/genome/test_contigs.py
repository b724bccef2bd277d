import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnasm.genome.contigs import Contigs

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=6)


@given(st.dictionaries(NAMES, st.integers(1, 10**12), max_size=20), NAMES)
def test_behaves_as_a_dict(expected: dict[str, int], other: str) -> None:
    contigs = Contigs("\n".join(expected), list(expected.values()))
    assert dict(contigs) == expected
    assert list(contigs) == list(expected)
    assert len(contigs) == len(expected)
    assert contigs.total == sum(expected.values())
    assert [contigs.name(i) for i in range(len(contigs))] == list(expected)
    assert [contigs.index(name) for name in expected] == list(range(len(expected)))
    assert (other in contigs) == (other in expected)
    assert contigs.offsets.tolist() == [sum(list(expected.values())[:i]) for i in range(len(expected))]


def test_names_with_one_hash_are_told_apart() -> None:
    pair = "plumless", "buckeroo"  # the classic pair of words with one CRC-32
    contigs = Contigs("\n".join(pair), [3, 4])
    assert [contigs[name] for name in pair] == [3, 4]
    assert contigs.first_duplicate() is None


def test_first_duplicate() -> None:
    assert Contigs("a\nb\nc\nb\na\nb", [1] * 6).first_duplicate() == (1, 3)


def test_numbers_of_names_and_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2 contig names, but 3 lengths"):
        Contigs("a\nb", [1, 2, 3])


@pytest.mark.parametrize(
    ("names", "wanted", "told"),
    [
        ("1\n2\nX", "chrX", "it has 'X' (the prefix 'chr' differs)"),
        ("chr1\nchrX", "X", "it has 'chrX' (the prefix 'chr' differs)"),
        ("scaffold_1\nscaffold_2", "scafold_2", "it has 2, such as 'scaffold_2'"),
        ("q\nr\ns\nt", "zzzzzz", "it has 4, such as 'q', 'r', 's'"),
    ],
)
def test_unknown_names_the_nearest(names: str, wanted: str, told: str) -> None:
    contigs = Contigs(names, [5] * (names.count("\n") + 1))
    assert told in str(contigs.unknown(wanted, "a.fa"))


def test_names_are_no_objects_of_their_own() -> None:
    n = 50_000
    names = "\n".join(f"scaffold_{i}" for i in range(n))
    tracemalloc.start()
    try:
        contigs = Contigs(names, np.full(n, 1000))
        assert contigs["scaffold_34567"] == 1000
        assert contigs.index("scaffold_49999") == n - 1
        assert sum(1 for _ in contigs) == n
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 90 * n  # a dict of them takes more than 150 bytes a name
