"""Damaged and odd genome files, given to the command as a user gives them: exit code, message, what is left behind."""

import gzip
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pysam
import pytest

GOOD = b">one\nACGTACGTAC\nGTNNac\n>two\nTTTT\n"


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The last line of the talk, which must be the command's own error."""
        assert "Traceback" not in self.err
        last = self.err.strip().splitlines()[-1]
        assert last.startswith("dnasm prepare: error: ")
        return last.removeprefix("dnasm prepare: error: ")

    @property
    def table(self) -> dict[str, list[str]]:
        """Contig -> the other columns."""
        header, *rows = self.out.splitlines()
        assert header.split("\t") == ["contig", "length", "n", "soft_masked", "other", "letters"]
        return {name: rest for name, *rest in (row.split("\t") for row in rows)}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dnasm", "prepare", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"DNASM_CACHE": str(folder.parent / "cache"), "OMP_NUM_THREADS": "1"},
    )


def prepare(folder: Path, *arguments: str) -> Outcome:
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=120)
    return Outcome(process.returncode, out, err)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "genomes"
    path.mkdir()
    return path


def bgzip(data: bytes, path: Path) -> bytes:
    with pysam.BGZFile(str(path), "wb") as file:
        file.write(data)
    whole = path.read_bytes()
    path.unlink()
    return whole


REFUSED = {
    "empty": (b"", "x.fa: is empty (0 bytes)"),
    "blank lines": (b"\n\n\r\n", "x.fa: holds nothing but blank lines"),
    "no FASTA": (b"hello\nworld\n", "x.fa:1: column 1: found 'hello"),
    "a BED": (b"chr1\t5\t10\n", "x.fa:1: column 1: found 'chr1"),
    "a beginning that is missing": (b"ACGT\nACGT\n>two\nAC\n", "x.fa:1: column 1: found 'ACGT"),
    "binary": (b"\x7fELF\x02\x01\x01" + bytes(100), "x.fa:1: column 1: found '\\x7fELF"),
    "duplicate names": (
        b">a\nAC\n>b x\nGT\n>b y\nAC\n",
        "two contigs are called 'b' (lines 3 and 5); rename or remove",
    ),
    "no bases at all": (b">a\n>b\n", "x.fa: not one base in it (records: 2); is the file cut off?"),
    "protein": (b">p\nMVLSPADKTNVKAAW\n", "x.fa:2: column 3: 'L' is no nucleotide code"),
    "NUL": (b">a\nACGT\nAC\0GT\n", "x.fa:3: column 3: byte 0x00 is no nucleotide code"),
    "non-ASCII": (b">a\nAC\xc3\xa9GT\n", "x.fa:2: column 3: byte 0xc3 is no nucleotide code"),
    "a space in the sequence": (b">a\nACGT ACGT\n", "x.fa:2: column 5: byte 0x20 is no nucleotide code"),
    "a tab in the sequence": (b">a\nACGT\tACGT\n", "x.fa:2: column 5: byte 0x09 is no nucleotide code"),
    "digits": (b">a\nACGT\n1 ACGT\n", "x.fa:3: column 1: '1' is no nucleotide code"),
    "a header within a line": (b">a\nACGT>b\nACGT\n", "x.fa:2: column 5: '>' within a line"),
    "a header without a name": (b">a\nAC\n>\nGT\n", "x.fa:3: column 1: header without a name"),
    "line ends of an old Mac": (b">a\rACGT\r", "x.fa:1: column 3: carriage return without a line feed"),
    "UTF-16": (">a\nAC\n".encode("utf-16"), "x.fa:1: column 1: found"),
    "gzip, cut off": (gzip.compress(os.urandom(4000).hex().encode())[:500], "x.fa: the gzip data end early"),
    "gzip, damaged": (gzip.compress(GOOD)[:-8] + bytes(8), "x.fa: the gzip data are damaged"),
    "bgzip, cut off": (b"bgzip", "x.fa: lacks the block that ends a bgzip file: it was cut off"),
    "bzip2": (b"BZh91AY&SY" + bytes(50), "x.fa: is compressed with bzip2; run `bunzip2`"),
    "zip": (b"PK\x03\x04" + bytes(50), "x.fa: is compressed with zip"),
    "GenBank, cut off": (b"LOCUS       AB1  100 bp    DNA\nORIGIN\n        1 acgt\n", "x.fa: GenBank record 1: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_place_and_nothing_written(folder: Path, case: str) -> None:
    data, told = REFUSED[case]
    if data == b"bgzip":
        data = bgzip(GOOD * 20, folder / "t")[:-28]
    (folder / "x.fa").write_bytes(data)
    outcome = prepare(folder, "x.fa")
    assert (outcome.code, outcome.out) == (65, "")
    assert told in outcome.error
    assert names(folder) == ["x.fa"]
    assert (folder / "x.fa").read_bytes() == data


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("none.fa", "none.fa: there is no such file"),
        ("no/such/x.fa", "the folder no/such does not exist either"),
        (".", ".: is a folder; name a file in it"),
        ("/dev/null", "/dev/null: is a pipe or device"),
        ("dnasm:data/none.fa", "ships no file 'data/none.fa'"),
    ],
)
def test_what_is_no_file_is_refused(folder: Path, argument: str, told: str) -> None:
    outcome = prepare(folder, argument)
    assert outcome.code == 65
    assert told in outcome.error
    assert names(folder) == []


ACCEPTED = {
    "CRLF": (GOOD.replace(b"\n", b"\r\n"), {"one": ["16", "2", "2", "0", "."], "two": ["4", "0", "0", "0", "."]}),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD, {"one": ["16", "2", "2", "0", "."], "two": ["4", "0", "0", "0", "."]}),
    "lower case and IUPAC": (
        b">a\nacgtNNRYrykn-*U\n",
        {"a": ["15", "3", "8", "8", "R=2,Y=2,K=1,U=1,-=1,*=1"]},
    ),
    "blank and ragged lines": (
        b">a\nAC\n\nACGT\nA\n\n>b\nA\n",
        {"a": ["7", "0", "0", "0", "."], "b": ["1", "0", "0", "0", "."]},
    ),
    "colons and spaces in headers": (b">HLA:A*01 x y\nAC\n", {"HLA:A*01": ["2", "0", "0", "0", "."]}),
    "description beyond ASCII": ("\n>a für é\nAC\n".encode(), {"a": ["2", "0", "0", "0", "."]}),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted_and_counted(folder: Path, case: str) -> None:
    data, expected = ACCEPTED[case]
    (folder / "x.fa").write_bytes(data)
    outcome = prepare(folder, "x.fa", "--strict")
    assert outcome.code == 0, outcome.err
    assert outcome.table == expected
    assert names(folder) == ["x.fa", "x.fa.dnasm"]


def test_a_cut_off_fasta_is_told_and_with_strict_or_an_index_refused(folder: Path) -> None:
    (folder / "x.fa").write_bytes(GOOD[:-3])
    told = "x.fa: the last line has no line end; contig 'two' stops there with 2 bases"
    outcome = prepare(folder, "x.fa")
    assert outcome.code == 0
    assert f"dnasm prepare: warning: {told}" in outcome.err
    assert prepare(folder, "x.fa").err.count("warning") == 1  # remembered
    strict = prepare(folder, "x.fa", "--strict", "--force")
    assert (strict.code, told in strict.error) == (65, True)
    (folder / "x.fa.fai").write_text("one\t16\t5\t10\t11\ntwo\t4\t28\t4\t5\n")
    outcome = prepare(folder, "x.fa", "--force")
    assert outcome.code == 65
    assert "is cut off: it ends in the middle of a line, and x.fa.fai says contig 'two' has 4 bases" in outcome.error
    assert names(folder) == ["x.fa", "x.fa.dnasm", "x.fa.fai"]


@pytest.mark.parametrize("newer", [False, True])
def test_a_stale_fai_never_gives_wrong_bases(folder: Path, newer: bool) -> None:
    """A FASTA that was replaced under its index, whose time says nothing: pyfaidx reads wrong bases from the first."""
    fai = "one\t10\t5\t10\t11\ntwo\t6\t28\t4\t5\n"
    (folder / "x.fa").write_bytes(GOOD)
    (folder / "x.fa.fai").write_text(fai)
    stamp = (folder / "x.fa").stat().st_mtime_ns + (10**10 if newer else -(10**10))
    os.utime(folder / "x.fa.fai", ns=(stamp, stamp))
    outcome = prepare(folder, "x.fa")
    assert outcome.code == 0
    assert outcome.table["one"][0] == "16"
    assert "warning: x.fa: x.fa.fai says contig 'one' has 10 bases, the file has 16" in outcome.err
    assert (folder / "x.fa.fai").read_text() == fai
    assert prepare(folder, "x.fa", "--strict").code == 65


def test_a_replaced_genome_is_prepared_again(folder: Path) -> None:
    (folder / "x.fa").write_bytes(GOOD)
    assert "built in" in prepare(folder, "x.fa").err
    assert "up to date" in prepare(folder, "x.fa").err
    (folder / "x.fa").write_bytes(GOOD + b">three\nAC\n")
    os.utime(folder / "x.fa", ns=(1, 1))  # older than the store
    outcome = prepare(folder, "x.fa")
    assert "x.fa.dnasm is stale: its size went from" in outcome.err
    assert list(outcome.table) == ["one", "two", "three"]


def test_two_processes_at_once_both_succeed(folder: Path) -> None:
    (folder / "x.fa").write_bytes(b">a\n" + b"ACGTTGCAAC" * 500_000 + b"\n")
    running = [start(folder, "x.fa") for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert outputs[0][0] == outputs[1][0] == "contig\tlength\tn\tsoft_masked\tother\tletters\na\t5000000\t0\t0\t0\t.\n"
    assert names(folder) == ["x.fa", "x.fa.dnasm"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_leaves_nothing(folder: Path, number: int) -> None:
    fasta = folder / "x.fa"
    with fasta.open("wb") as file:
        file.write(b">a\n")
        file.writelines([b"ACGTTGCAAC" * 100_000 + b"\n"] * 150)
    process = start(folder, "x.fa")
    deadline = time.monotonic() + 60
    while not list(folder.glob(".x.fa.dnasm.*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    assert names(folder) == ["x.fa"]


def test_no_room_is_exit_73(folder: Path) -> None:
    (folder / "x.fa").write_bytes(b">a\n" + b"ACGTTGCAAC" * 500_000 + b"\n")
    limited = ["bash", "-c", f"ulimit -f 1000; exec {sys.executable} -m dnasm prepare x.fa"]
    done = subprocess.run(limited, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 73, done.stderr
    assert "x.fa.dnasm: the token store cannot be written: File too large" in done.stderr
    assert names(folder) == ["x.fa"]


def test_what_stands_in_the_stores_place_is_kept(folder: Path) -> None:
    (folder / "x.fa").write_bytes(GOOD)
    (folder / "x.fa.dnasm").write_text("a file of mine")
    outcome = prepare(folder, "x.fa")
    assert outcome.code == 73
    assert "x.fa.dnasm: is no token store of dnasm, so it is not replaced; move it away" in outcome.error
    assert (folder / "x.fa.dnasm").read_text() == "a file of mine"
    assert names(folder) == ["x.fa", "x.fa.dnasm"]
