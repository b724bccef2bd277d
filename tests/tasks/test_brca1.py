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
from dnasm.models.backbone import build_model
from dnasm.models.checkpoint import save_model

_SHIFT = 41_100_001 + 1_847_983 - 43_000_001
"""From a place in the hg19 region to the same in the hg38 region: BRCA1 lies 1,847,983 bases further along in hg38."""

Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def rows(shared: Path) -> Rows:
    with gzip.open(shared / "data/brca1_sge/brca1_sge_snvs.tsv.gz", "rt") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.fixture(scope="module")
def genome(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The regions of both builds, each as a contig."""
    path = tmp_path_factory.mktemp("builds") / "both.fa"
    texts = []
    for build in ("hg19", "hg38"):
        text = gzip.decompress((shared / f"data/brca1_sge/brca1_{build}_200kb.fa.gz").read_bytes()).decode()
        texts.append(f">{build}\n" + text.split("\n", 1)[1])
    path.write_text("".join(texts))
    return path


def _table(rows: Rows, contig: str, shift: int, *, labelled: bool) -> list[str]:
    return [
        f"{contig}\t{int(row['region_offset0']) + 1 + shift}\t{row['ref']}\t{row['alt']}\t"
        f"{row['func_class'] if labelled else ''}"
        for row in rows
    ]


def _score(folder: Path, model: Path, genome: Path, lines: list[str], settings: str) -> list[list[str]]:
    """Run the command, judge its table, and return the rows that it wrote."""
    (folder / "v.tsv").write_text("\n".join(["chrom\tpos\tref\talt\tclass", *lines]) + "\n")
    # As a command of its own: under the tests' type checks so many variants would take a minute.
    command = f"score --model {model} --genome {genome} --variants v.tsv --out out.tsv --labels class {settings}"
    words = [sys.executable, "-m", "dnasm", *command.split(), *["--positive", "[LOF]", "--device", "cpu", "--quiet"]]
    outcome = subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True)
    assert "AUROC" in outcome.stderr
    written = [line.split("\t") for line in (folder / "out.tsv").read_text().splitlines()[1:]]
    assert [row[:4] for row in written] == [line.split("\t")[:4] for line in lines]
    assert {row[8] for row in written} == {"ok"}
    found = json.loads((folder / "out.tsv.evaluation.json").read_text())["rows"]
    assert [row["name"] for row in found[:2]] == ["model, -llr", "GC change"]
    assert len(found) == 5
    for row in found:
        assert (row["positives"], row["negatives"]) == (823, 3070)
        assert 0 < row["auroc_low"] < row["auroc"] < row["auroc_high"] < 1
        assert 0 < row["auprc_low"] < row["auprc"] < row["auprc_high"] < 1
    return written


def test_every_variant_is_scored_and_judged_and_both_builds_give_one_score(
    rows: Rows, genome: Path, tmp_path: Path
) -> None:
    """Centred windows hold the same bases in both builds; on a grid they would begin elsewhere."""
    config = ModelConfig(d_model=8, d_inner=8, num_layers=1, max_length=256, filter_order=4, embedding_dropout=0.0)
    model = save_model(build_model(config), tmp_path / "model", {})
    lines = _table(rows, "hg19", 0, labelled=True) + _table(rows, "hg38", _SHIFT, labelled=False)
    written = _score(tmp_path, model, genome, lines, "--window 256 --shard-size 10000")
    assert len(written) == 2 * len(rows) == 2 * 3893
    old, new = ([row[4:] for row in half] for half in (written[:3893], written[3893:]))
    assert old == new
    llr = np.array([row[:3] for row in old], dtype=float)
    assert (llr != 0).mean() > 0.99
    assert len(np.unique(llr[:, 0])) > 3000


@pytest.mark.slow
def test_the_model_of_the_demo_scores_every_variant(rows: Rows, genome: Path, root: Path, tmp_path: Path) -> None:
    """With windows of 1,024 bases, as `make demo` trains it; a minute of one core."""
    model = root / "runs" / "demo" / "model"
    if not model.is_dir():
        pytest.skip("no runs/demo/model: `make demo` makes it")
    written = _score(tmp_path, model, genome, _table(rows, "hg19", 0, labelled=True), "--window 1024 --grid 64")
    assert len(written) == 3893
    assert len({row[4] for row in written}) > 3000
