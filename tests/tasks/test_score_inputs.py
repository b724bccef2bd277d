"""Which variants are scored and judged: regions, labels, and every form of input."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dnasm.config import ScoreConfig
from dnasm.errors import ConfigError, InputError
from dnasm.genome import Genome
from dnasm.metrics import auroc
from dnasm.models.checkpoint import save_model
from dnasm.tasks import score
from dnasm.tasks.score import score_variants
from dnasm.tasks.score_evaluation import evaluate_scores
from dnasm.tasks.variant_filter import RegionFilter, read_kept, read_labels

from .scoring import Composition, random_sequence, small_model, write_fasta

SEQUENCE = random_sequence(400)
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"


def _alt(pos: int) -> str:
    return "ACGT"["ACGT".index(SEQUENCE[pos - 1]) - 1]


ROWS = [("c", pos, SEQUENCE[pos - 1], _alt(pos), f"{'bad' if pos % 3 else 'good'}") for pos in range(100, 130)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_fasta(folder / "g.fa", c=SEQUENCE)
    save_model(small_model(), folder / "model", {})
    table = "chrom,pos,ref,alt,kind\n" + "".join(",".join(map(str, row)) + "\n" for row in ROWS)
    (folder / "v.csv").write_text(table)
    (folder / "v.tsv").write_text(table.replace(",", "\t"))
    (folder / "v.csv.gz").write_bytes(gzip.compress(table.encode()))
    records = [f"{c}\t{pos}\t.\t{ref}\t{alt}\t.\t.\tKIND={kind}" for c, pos, ref, alt, kind in ROWS]
    (folder / "v.vcf").write_text("\n".join(["##fileformat=VCFv4.2", COLUMNS, *records]) + "\n")
    (folder / "v.vcf.gz").write_bytes(gzip.compress((folder / "v.vcf").read_bytes()))
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ("chrom", "pos", "ref", "alt", "kind")
    pq.write_table(pa.table(dict(zip(names, zip(*ROWS, strict=True), strict=True))), folder / "v.parquet")
    return folder


def _config(folder: Path, variants: str, out: Path | str) -> ScoreConfig:
    return ScoreConfig(
        model=str(folder / "model"),
        genome=str(folder / "g.fa"),
        variants=str(folder / variants),
        out=str(out),
        window=64,
        quiet=True,
        device="cpu",
    )


@pytest.mark.parametrize("name", ["v.csv", "v.csv.gz", "v.tsv", "v.vcf", "v.vcf.gz", "v.parquet"])
def test_every_form_of_input_is_the_same_input(folder: Path, tmp_path: Path, name: str) -> None:
    table = score_variants(Composition(), folder / name, folder / "g.fa", window=64)
    assert list(zip(table.chrom, table.pos, table.ref, table.alt, strict=True)) == [row[:4] for row in ROWS]
    labels = read_labels(str(folder / name), "KIND" if ".vcf" in name else "kind", lambda *_: True)
    assert list(labels) == [row[4] for row in ROWS]


def test_a_damaged_parquet_file_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "v.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"v.parquet: is no Parquet"):
        list(read_kept(str(tmp_path / "v.parquet"), lambda *_: True))


def test_regions_keep_records_that_overlap_them(folder: Path) -> None:
    genome = Genome(folder / "g.fa")
    bed = folder / "r.bed"
    bed.write_text("c\t10\t20\nc\t15\t30\nc\t49\t50\n")
    keep = RegionFilter(str(bed), genome)
    kept = [pos for pos in range(1, 60) if keep("c", pos, "A")]
    assert kept == [*range(11, 31), 50]
    assert keep("c", 9, "AAA")
    assert not keep("c", 9, "AA")
    assert RegionFilter(str(bed), genome)("chrc", 11, "A")  # written as the genome does not
    assert not keep("d", 11, "A")
    assert [pos for pos in range(1, 60) if RegionFilter("c:5-7", genome)("c", pos, "A")] == [5, 6, 7]


@pytest.mark.parametrize(("name", "suffix"), [("v.vcf", "vcf"), ("v.vcf", "tsv"), ("v.tsv", "tsv")])
def test_the_command_scores_regions_alone(folder: Path, tmp_path: Path, name: str, suffix: str) -> None:
    whole, part = tmp_path / f"whole.{suffix}", tmp_path / f"part.{suffix}"
    score.run(_config(folder, name, whole))
    score.run(replace(_config(folder, name, part), regions="c:105-109"))
    rows = [line for line in whole.read_text().splitlines() if line.startswith("c\t")]
    lines = [row for row in rows if row.split("\t")[1] in map(str, range(105, 110))]
    assert len(lines) == 5
    assert [line for line in part.read_text().splitlines() if line.startswith("c\t")] == lines
    with pytest.raises(InputError, match="no contig"):
        score.run(replace(_config(folder, name, tmp_path / "x.tsv"), regions="z:1-2"))


def test_labels_put_simple_predictors_beside_the_model(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "g.gff").write_text("c\tt\tCDS\t101\t130\t.\t+\t0\tParent=t\n")
    config = replace(
        _config(folder, "v.vcf", tmp_path / "out.tsv"), labels="KIND", positive=["bad"], gff=str(tmp_path / "g.gff")
    )
    score.run(config)
    printed = capsys.readouterr().err
    found = json.loads((tmp_path / "out.tsv.evaluation.json").read_text())
    names = [row["name"] for row in found["rows"]]
    assert names == [
        "model, -llr", "GC change", "CpG change", "transversion", "Markov log-ratio, order 8", "consequence"
    ]  # fmt: skip
    assert all(name in printed for name in names)
    values = found["values"]
    assert values["label"] == [float(row[4] == "bad") for row in ROWS]
    for row in found["rows"]:
        assert row["auroc"] == pytest.approx(auroc(values["label"], values[row["name"]]))
        assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]
        assert (row["positives"], row["negatives"]) == (20, 10)
    llr = [float(line.split("\t")[4]) for line in (tmp_path / "out.tsv").read_text().splitlines()[1:]]
    np.testing.assert_allclose(values["model, -llr"], -np.array(llr), rtol=1e-8)


def test_missing_labels_are_left_out_and_one_class_is_refused(folder: Path) -> None:
    genome = Genome(folder / "g.fa")
    table = score_variants(Composition(), folder / "v.tsv", genome, window=64)
    labels = [1.0, 0.0, 1.0, 0.0, *[float("nan")] * (len(ROWS) - 4)]
    rows = evaluate_scores(table, labels, genome).rows
    assert {(row.positives, row.negatives) for row in rows} == {(2, 2)}
    with pytest.raises(InputError, match="both classes"):
        evaluate_scores(table, np.ones(len(ROWS)), genome)


def test_labels_that_are_not_there_are_refused(folder: Path, tmp_path: Path) -> None:
    for name, words in (("v.vcf", "INFO key 'nothing'"), ("v.tsv", "no column 'nothing'")):
        with pytest.raises(InputError, match=words):
            list(read_labels(str(folder / name), "nothing", lambda *_: True))
    single = replace(_config(folder, "v.vcf", tmp_path / "x.tsv"), variants="c:100:A:C", labels="KIND")
    with pytest.raises(ConfigError, match="--labels needs a file"):
        score.run(single)
