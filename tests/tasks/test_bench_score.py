"""`dnasm bench score`: both loops give the same scores, and the row says what was timed."""

from pathlib import Path

import pytest

from dnasm.config import BenchConfig
from dnasm.errors import InputError
from dnasm.models.checkpoint import save_model
from dnasm.tasks import bench_score, window_likelihoods
from tests.tasks.scoring import random_sequence, small_model, write_fasta

SEQUENCE = random_sequence(600)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BenchConfig:
    monkeypatch.setattr(bench_score, "_SLICE", 20)
    monkeypatch.setattr(window_likelihoods, "_LEAST_PREFIX", 32)  # or both loops would read whole windows
    rows = [(i + 1, ref, "A" if ref != "A" else "C") for i, ref in enumerate(SEQUENCE[200:280], 200)]
    (tmp_path / "v.tsv").write_text(
        "chrom\tpos\tref\talt\n" + "".join(f"c\t{pos}\t{ref}\t{alt}\n" for pos, ref, alt in rows)
    )
    return BenchConfig(
        what="score",
        genome=str(write_fasta(tmp_path / "g.fa", c=SEQUENCE)),
        variants=str(tmp_path / "v.tsv"),
        model=str(save_model(small_model(), tmp_path / "model", {})),
        lengths=[256],
        repeats=2,
        device="cpu",
    )


def test_both_loops_score_alike(config: BenchConfig) -> None:
    reused, twice = bench_score.rows(config)
    assert reused["variants"] == twice["variants"] == 80
    assert 0 < reused["largest_difference"] < 1e-4
    assert "once" in reused["theirs"]
    assert reused["repeats"] == 2
    assert twice["ratio"] > 0


def test_too_few_variants_are_refused(config: BenchConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_score, "_SLICE", 81)
    with pytest.raises(InputError, match="80 variants can be scored"):
        next(bench_score.rows(config))


def test_without_files_a_region_that_ships_is_saturated() -> None:
    genome = bench_score.Genome(str(bench_score.locate("dnasm:data/human_chr20_sample.fa.gz")), quiet=True)
    alleles = bench_score._saturate(genome, *bench_score._REGION)
    assert len(alleles) == 3900
    assert len({(allele.pos, allele.alt) for allele in alleles}) == 3900
