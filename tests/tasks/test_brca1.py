"""The 3,893 variants of BRCA1 whose effect was measured: every one is scored, in order, the same on both builds."""

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dnasm.config import ModelConfig
from dnasm.genome import Genome
from dnasm.models.backbone import LanguageModel, build_model
from dnasm.models.checkpoint import save_model
from dnasm.tasks.score import score_variants
from tests.tasks.scoring import small_model

_SHIFT = 41_100_001 + 1_847_983 - 43_000_001
"""From a place in the hg19 region to the same in the hg38 region: BRCA1 lies 1,847,983 bases further along in hg38."""


@pytest.fixture(scope="module")
def rows(shared: Path) -> list[dict[str, str]]:
    with gzip.open(shared / "data/brca1_sge/brca1_sge_snvs.tsv.gz", "rt") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.fixture(scope="module")
def genomes(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both regions, each as a contig of a short name."""
    folder, found = tmp_path_factory.mktemp("builds"), {}
    for build in ("hg19", "hg38"):
        text = gzip.decompress((shared / f"data/brca1_sge/brca1_{build}_200kb.fa.gz").read_bytes()).decode()
        found[build] = folder / f"{build}.fa"
        found[build].write_text(">chr17\n" + text.split("\n", 1)[1])
    return found


def _tiny() -> LanguageModel:
    config = ModelConfig(d_model=8, d_inner=8, num_layers=1, max_length=1024, filter_order=4, embedding_dropout=0.0)
    return build_model(config).eval()


def test_every_variant_is_scored_and_judged(
    rows: list[dict[str, str]], genomes: dict[str, Path], tmp_path: Path
) -> None:
    lines = [f"17\t{int(row['region_offset0']) + 1}\t{row['ref']}\t{row['alt']}\t{row['func_class']}" for row in rows]
    (tmp_path / "v.tsv").write_text("\n".join(["chrom\tpos\tref\talt\tclass", *lines]) + "\n")
    model = save_model(_tiny(), tmp_path / "model", {})
    # As a command of its own: under the tests' type checks 3,893 variants would take a minute.
    command = f"score --model {model} --genome {genomes['hg19']} --variants v.tsv --out out.tsv --labels class"
    settings = "--positive [LOF] --window 1024 --grid 64 --strands forward --device cpu --quiet"
    words = [sys.executable, "-m", "dnasm", *command.split(), *settings.split()]
    outcome = subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "AUROC" in outcome.stderr
    written = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()[1:]]
    assert len(written) == len(rows) == 3893
    assert [row[:4] for row in written] == [line.split("\t")[:4] for line in lines]
    assert {row[8] for row in written} == {"ok"}
    found = json.loads((tmp_path / "out.tsv.evaluation.json").read_text())["rows"]
    assert found[0]["name"] == "model, -llr"
    assert len(found) == 5
    for row in found:
        assert (row["positives"], row["negatives"]) == (823, 3070)
        assert 0 < row["auroc_low"] < row["auroc"] < row["auroc_high"] < 1
        assert 0 < row["auprc_low"] < row["auprc"] < row["auprc_high"] < 1


def test_both_builds_give_identical_scores(rows: list[dict[str, str]], genomes: dict[str, Path]) -> None:
    """On a grid windows begin elsewhere in the other build; centred ones hold the same bases."""
    chosen = [row for row in rows if row["consequence"] != "Nonsense"][::40]
    tables = []
    for build, shift in (("hg19", 0), ("hg38", _SHIFT)):
        texts = [f"chr17:{int(row['region_offset0']) + 1 + shift}:{row['ref']}:{row['alt']}" for row in chosen]
        tables.append(score_variants(small_model(), texts, Genome(genomes[build]), window=256))
    for name in ("llr", "llr_forward", "llr_reverse"):
        np.testing.assert_array_equal(getattr(tables[0], name), getattr(tables[1], name))
    assert np.abs(tables[0].llr).min() > 0
