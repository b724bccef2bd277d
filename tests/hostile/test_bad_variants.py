"""Damaged and odd variant files, given to the command as a user gives them: exit code, message, what is left behind."""

import gzip
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pysam
import pytest

from dnasm.models.checkpoint import save_model
from tests.tasks.scoring import random_sequence, small_model, write_fasta

SEQUENCE = random_sequence(2000)
HEADER = "##fileformat=VCFv4.2\n##contig=<ID=c,length=2000>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


@dataclass(frozen=True)
class Bench:
    """A folder with a genome, its store and a model."""

    model: Path
    genome: Path

    def score(
        self, folder: Path, *flags: str, variants: str = "in.vcf", out: str = "out.vcf.gz", stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run `dnasm score` in a folder."""
        command = [sys.executable, "-m", "dnasm", "score", "--model", str(self.model), "--genome", str(self.genome)]
        return subprocess.run(
            [*command, "--variants", variants, "--out", out, "--window", "64", *flags],
            cwd=folder,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    genome = write_fasta(folder / "g.fa", c=SEQUENCE, d="ACGTNNNNRGT")
    return Bench(save_model(small_model(), folder / "model", {}), genome)


def _row(pos: int, ref: str | None = None, alt: str = "") -> str:
    ref = ref or SEQUENCE[pos - 1]
    alt = alt or ("A" if ref != "A" else "C")
    return f"c\t{pos}\tid{pos}\t{ref}\t{alt}\t30\tPASS\tDP=7\n"


def _assert_refused(outcome: subprocess.CompletedProcess[str], folder: Path, *words: str, code: int = 65) -> None:
    assert outcome.returncode == code, outcome.stderr
    assert outcome.stderr.strip().splitlines()[-1].startswith("dnasm score: error: ")
    assert "Traceback" not in outcome.stderr
    assert outcome.stdout == ""
    for word in words:
        assert word in outcome.stderr
    assert not [path.name for path in folder.iterdir() if "out" in path.name]


ODD = (  # a record, and the status of each of its ALTs
    (_row(1000), ["ok"]),
    ("c\t0\t.\tA\tC\t.\t.\t.\n", ["out_of_range"]),
    ("c\t2001\t.\tA\tC\t.\t.\t.\n", ["out_of_range"]),
    (f"c\t2000\t.\t{SEQUENCE[-1]}A\tC\t.\t.\t.\n", ["out_of_range"]),
    (_row(10, alt="<DEL>"), ["unsupported"]),
    (_row(11, alt="<NON_REF>"), ["unsupported"]),
    (_row(12, alt=f"{SEQUENCE[11]}[c:100["), ["unsupported"]),
    (_row(13, alt="*"), ["unsupported"]),
    (_row(14, alt="."), ["unsupported"]),
    (_row(15, alt=SEQUENCE[14]), ["unsupported"]),
    (_row(16, alt="R"), ["unsupported"]),
    (_row(17, alt="A,<DEL>,*,C" if SEQUENCE[16] not in "AC" else "G,<DEL>,*,T"),
     ["ok", "unsupported", "unsupported", "ok"]),
    ("d\t9\t.\tR\tA\t.\t.\t.\n", ["unsupported"]),
    ("d\t5\t.\tA\tG\t.\t.\t.\n", ["ref_mismatch"]),
    (_row(20, ref="ACGT"["ACGT".index(SEQUENCE[19]) - 1], alt=SEQUENCE[19]), ["ref_mismatch"]),
    ("nowhere\t5\t.\tA\tG\t.\t.\t.\n", ["unknown_contig"]),
    (_row(900, alt="A" * 100_000), ["unsupported"]),
    (_row(901, ref=SEQUENCE[900:1700], alt=SEQUENCE[900]), ["unsupported"]),
    (_row(1999), ["ok"]),
)  # fmt: skip


def test_odd_records_get_a_status_each_and_keep_their_place(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "in.vcf").write_text(HEADER + "".join(row for row, _ in ODD))
    outcome = bench.score(tmp_path, "--check-ref", "skip")
    assert outcome.returncode == 0, outcome.stderr
    with pysam.BGZFile(str(tmp_path / "out.vcf.gz")) as file:
        written = [line.decode() for line in file if not line.startswith(b"#")]
    assert len(written) == len(ODD)
    for (row, statuses), line in zip(ODD, written, strict=True):
        before, after = row.rstrip("\n").split("\t"), line.split("\t")
        assert after[:7] == before[:7]
        info = dict(part.split("=") for part in after[7].split(";") if "=" in part)
        if before[4] == ".":
            assert "DNASM_STATUS" not in info
        else:
            assert info["DNASM_STATUS"].split(",") == statuses
            assert [value != "." for value in info["DNASM_LLR"].split(",")] == [status == "ok" for status in statuses]
    total = sum(len(statuses) for _, statuses in ODD)
    assert f"{total} alleles: 4 ok, 2 ref_mismatch, 12 unsupported, 3 out_of_range, 1 unknown_contig" in outcome.stderr


def test_the_table_has_a_row_for_a_missing_alt(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "in.vcf").write_text(HEADER + _row(14, alt=".") + _row(15))
    outcome = bench.score(tmp_path, out="-")
    assert outcome.returncode == 0, outcome.stderr
    header, missing, scored = outcome.stdout.splitlines()
    assert header.split("\t")[-2:] == ["status", "reason"]
    assert missing.split("\t")[3:7] == [".", ".", ".", "."]
    assert scored.split("\t")[8] == "ok"


def test_a_wrong_ref_stops_with_its_line_and_both_bases(bench: Bench, tmp_path: Path) -> None:
    wrong = "A" if SEQUENCE[19] != "A" else "C"
    (tmp_path / "in.vcf").write_text(HEADER + _row(10) + _row(20, ref=wrong, alt="G" if wrong != "G" else "T"))
    outcome = bench.score(tmp_path)
    _assert_refused(outcome, tmp_path, "in.vcf:5", f"REF is {wrong}, the genome has {SEQUENCE[19]}", "--check-ref")


def test_another_build_stops_even_if_mismatches_are_skipped(bench: Bench, tmp_path: Path) -> None:
    rows = [_row(pos, ref="A" if SEQUENCE[pos - 1] != "A" else "C", alt="G") for pos in range(100, 300)]
    (tmp_path / "in.vcf").write_text(HEADER + "".join(rows))
    _assert_refused(bench.score(tmp_path, "--check-ref", "skip"), tmp_path, "101 of the first 101 REFs", "build")


def test_no_known_contig(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "in.vcf").write_text(HEADER + "x\t5\t.\tA\tG\t.\t.\t.\nchry\t5\t.\tA\tG\t.\t.\t.\n")
    _assert_refused(bench.score(tmp_path), tmp_path, "none of the contigs", "its own are c, d")


def test_a_malformed_line_is_named_before_anything_is_scored(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "in.vcf").write_text(HEADER + _row(10) + "c\t11\t.\tA\n" + _row(12))
    _assert_refused(bench.score(tmp_path), tmp_path, "in.vcf:5")


def test_a_truncated_gzip_file(bench: Bench, tmp_path: Path) -> None:
    whole = gzip.compress((HEADER + "".join(_row(pos) for pos in range(1, 1900))).encode())
    (tmp_path / "in.vcf.gz").write_bytes(whole[: len(whole) // 2])
    _assert_refused(bench.score(tmp_path, variants="in.vcf.gz"), tmp_path, "in.vcf.gz", "end early")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["in.vcf", "is it a VCF, and whole?"]),
        ("this is a letter to my aunt\n", ["in.vcf:1"]),
        ("##fileformat=VCFv4.2\n", ["in.vcf", "#CHROM"]),
    ],
    ids=["empty", "no VCF", "header cut off"],
)
def test_what_is_no_vcf(bench: Bench, tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "in.vcf").write_text(text)
    _assert_refused(bench.score(tmp_path), tmp_path, *words)


def test_a_missing_file(bench: Bench, tmp_path: Path) -> None:
    _assert_refused(bench.score(tmp_path), tmp_path, "in.vcf", "No such file")


def test_a_header_without_records_gives_one_without_records(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "in.vcf").write_text(HEADER)
    outcome = bench.score(tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert "no variant in the input" in outcome.stderr
    with pysam.VariantFile(str(tmp_path / "out.vcf.gz")) as reader:
        assert list(reader) == []


def test_an_output_that_exists_is_kept(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "in.vcf").write_text(HEADER + _row(10))
    (tmp_path / "out.vcf.gz").write_text("mine")
    outcome = bench.score(tmp_path)
    assert outcome.returncode == 73
    assert "--force" in outcome.stderr
    assert (tmp_path / "out.vcf.gz").read_text() == "mine"


def test_standard_input_to_standard_output(bench: Bench, tmp_path: Path) -> None:
    outcome = bench.score(tmp_path, "--quiet", variants="-", out="-", stdin=HEADER + _row(10))
    assert outcome.returncode == 0, outcome.stderr
    assert [line.split("\t")[1] for line in outcome.stdout.splitlines()] == ["pos", "10"]
    assert list(tmp_path.iterdir()) == []
    assert outcome.stderr == ""


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("chrom\tpos\tref\n", ["in.tsv:1", "no column 'alt'"]),
        ("chrom\tpos\tref\talt\nc\tten\tA\tC\n", ["in.tsv:2", "'ten'"]),
        ("chrom\tpos\tref\talt\nc\t10\tA\n", ["in.tsv:2", "3 columns, the header 4"]),
    ],
    ids=["column", "position", "short row"],
)
def test_a_malformed_table(bench: Bench, tmp_path: Path, table: str, words: list[str]) -> None:
    (tmp_path / "in.tsv").write_text(table)
    _assert_refused(bench.score(tmp_path, variants="in.tsv"), tmp_path, *words)
