"""Symmetries of scores where windows are long enough to be read on from a shared beginning."""

import random
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dnasm.genome import Genome
from dnasm.models.hyena_suffixes import HyenaReader
from dnasm.tasks.score import score_variants
from dnasm.tasks.score_table import ScoreTable
from dnasm.tasks.variant_input import read_alleles
from dnasm.tasks.variant_scorer import VariantScorer

from .scoring import mirror_variant, random_sequence, reverse_complement, small_model, write_fasta

LENGTH, WINDOW = 1600, 512
SEQUENCE = random_sequence(LENGTH)
STRANDS = ("llr", "llr_forward", "llr_reverse")


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    return Genome(write_fasta(tmp_path_factory.mktemp("genome") / "g.fa", c=SEQUENCE))


def _snv(start: int, step: int = 1) -> str:
    ref = SEQUENCE[start]
    return f"c:{start + 1}:{ref}:{'ACGT'[('ACGT'.index(ref) + step) % 4]}"


def test_these_windows_are_read_on_from_a_beginning(genome: Genome) -> None:
    """Or the tests below would show nothing that those of short windows do not."""
    scorer = VariantScorer(small_model(max_length=WINDOW), genome, window=WINDOW)
    reader = scorer._measurer._reader
    assert reader is not None
    assert isinstance(reader._prefixes, HyenaReader)
    table = ScoreTable.concatenate(scorer.score(read_alleles([_snv(800), _snv(800, 2), _snv(800, 3)])))
    assert table.counts() == {"ok": 3}
    assert scorer.runner.calls <= 4  # two beginnings, and what follows them


@pytest.mark.parametrize("grid", [1, 64])
@pytest.mark.parametrize("start", [800, 863, 1000])
def test_scoring_back_from_the_edited_genome_gives_the_negative(
    genome: Genome, tmp_path: Path, start: int, grid: int
) -> None:
    """Not to the last bit: ALT is read as a change of REF, and the other way round there."""
    model = small_model(max_length=WINDOW)
    contig, pos, ref, alt = _snv(start).split(":")
    there = score_variants(model, [_snv(start)], genome, window=WINDOW, grid=grid)
    edited = write_fasta(tmp_path / "e.fa", c=SEQUENCE[:start] + alt + SEQUENCE[start + 1 :])
    back = score_variants(model, [f"{contig}:{pos}:{alt}:{ref}"], edited, window=WINDOW, grid=grid)
    for name in STRANDS:
        assert_allclose(getattr(there, name), -getattr(back, name), rtol=0, atol=1e-5)
        assert abs(getattr(there, name)[0]) > 1e-2


@pytest.mark.parametrize("grid", [1, 64])
def test_the_reverse_complemented_genome_swaps_the_strands(genome: Genome, tmp_path: Path, grid: int) -> None:
    texts = [_snv(20), _snv(700), _snv(701, 2), _snv(760), f"c:900:{SEQUENCE[899:902]}:{SEQUENCE[899]}", _snv(1500)]
    texts.append(f"c:800:{SEQUENCE[799]}:{SEQUENCE[799]}ACGGT")
    model = small_model(max_length=WINDOW)
    there = score_variants(model, texts, genome, window=WINDOW, grid=grid)
    mirrored = write_fasta(tmp_path / "r.fa", c=reverse_complement(SEQUENCE))
    back = score_variants(model, [mirror_variant(t, LENGTH) for t in texts], mirrored, window=WINDOW, grid=grid)
    assert there.counts() == back.counts() == {"ok": len(texts)}
    assert_array_equal(there.llr_forward, back.llr_reverse)
    assert_array_equal(there.llr_reverse, back.llr_forward)
    assert_array_equal(there.llr, back.llr)
    assert np.abs(there.llr_forward - there.llr_reverse).min() > 0


def test_shuffled_rows_and_any_batch_have_the_bits_of_rows_in_order(genome: Genome) -> None:
    """Neighbours on a grid share beginnings, which ones depends on the order; scores do not."""
    texts = [_snv(start, step) for start in range(700, 730) for step in (1, 2)]
    model = small_model(max_length=WINDOW)
    expected = dict(zip(texts, score_variants(model, texts, genome, window=WINDOW, grid=64).llr, strict=True))
    for seed, size in ((1, 1), (2, 64), (3, "auto")):
        shuffled = random.Random(seed).sample(texts, len(texts))
        found = score_variants(model, shuffled, genome, window=WINDOW, grid=64, batch_size=size)  # type: ignore[arg-type]
        assert_array_equal(found.llr, [expected[text] for text in shuffled])
    assert len(set(expected.values())) == len(texts)
