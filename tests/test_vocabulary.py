import numpy as np
import pytest

from dnasm.vocabulary import COMPLEMENT, NUM_TOKENS, PAD, UNK, N, decode, encode, reverse_complement


@pytest.mark.parametrize("shape", [(256,), (4, 64), (2, 2, 64), (256, 1), (0,), (3, 0)])
def test_reverse_complement_is_the_table_read_backwards(shape: tuple[int, ...]) -> None:
    tokens = np.resize(np.arange(256, dtype=np.uint8), shape)
    before = tokens.copy()
    found = reverse_complement(tokens)
    np.testing.assert_array_equal(found, COMPLEMENT[tokens[..., ::-1]])
    np.testing.assert_array_equal(tokens, before)
    assert found.flags.c_contiguous
    assert found.dtype == np.uint8
    assert not np.shares_memory(found, tokens)


def test_reverse_complement_of_bases_alone() -> None:
    assert decode(reverse_complement(encode("AACGT"))) == "ACGTT"
    assert decode(reverse_complement(encode("NAAC"))) == "GTTN"


def test_two_turns_give_the_sequence_again() -> None:
    tokens = np.random.default_rng(0).integers(0, NUM_TOKENS, (5, 33)).astype(np.uint8)
    np.testing.assert_array_equal(reverse_complement(reverse_complement(tokens)), tokens)


def test_what_is_no_base_is_its_own_partner() -> None:
    assert [COMPLEMENT[token] for token in (N, PAD, UNK)] == [N, PAD, UNK]


def test_letters_that_are_no_code_are_placed() -> None:
    with pytest.raises(ValueError, match="'U' at position 2"):
        encode("ACU")
    assert decode(encode("acgtnRYk")) == "ACGTNNNN"
