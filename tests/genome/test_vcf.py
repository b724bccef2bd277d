import gzip
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pysam
import pytest

from dnasm.errors import InputError
from dnasm.genome import VcfReader, read_vcf

HEADER = (
    "##fileformat=VCFv4.2\n"
    "##contig=<ID=chr1,length=248956422,assembly=b38>\n"
    "##contig=<assembly=b38,ID=HLA:A*01>\n"
    '##INFO=<ID=AC,Number=A,Type=Integer,Description="x">\n'
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
)
RECORDS = [
    "chr1\t100\trs1\tA\tT\t.\t.\tAC=1",
    "chr1\t50\t.\tACGT\tA,<DEL>,*\t1e2\tPASS\t.",
    "HLA:A*01\t0\t.\tN\t.\t.\t.\tweird=\udcff",
    "chr9\t7\t.\tg\tg[chr1:5[\t.\t.\tAC=1\tGT\t0/1",
]


def text(*records: str, header: str = HEADER) -> bytes:
    return (header + "".join(f"{record}\n" for record in records)).encode("utf-8", "surrogateescape")


def vcf(folder: Path, data: bytes, name: str = "calls.vcf") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def check(reader: VcfReader) -> None:
    assert reader.contigs == {"chr1": 248956422, "HLA:A*01": None}
    records = list(reader)
    assert [r.text for r in records] == RECORDS
    assert [r.line for r in records] == [6, 7, 8, 9]
    assert [(r.contig, r.pos, r.ref, r.alts) for r in records] == [
        ("chr1", 100, "A", ("T",)),
        ("chr1", 50, "ACGT", ("A", "<DEL>", "*")),
        ("HLA:A*01", 0, "N", ()),
        ("chr9", 7, "g", ("g[chr1:5[",)),
    ]


@pytest.mark.parametrize("crlf", [False, True])
def test_plain_gzip_and_bgzip(tmp_path: Path, crlf: bool) -> None:
    data = text(*RECORDS)
    data = data.replace(b"\n", b"\r\n") if crlf else data
    with pysam.BGZFile(str(tmp_path / "b.vcf.gz"), "wb") as file:
        file.write(data)
    vcf(tmp_path, gzip.compress(data), "g.vcf.gz")
    for path in (vcf(tmp_path, data), tmp_path / "g.vcf.gz", tmp_path / "b.vcf.gz"):
        with read_vcf(path) as reader:
            check(reader)


def bcf_of_shipped(root: Path, folder: Path) -> Path:
    path = folder / "x.bcf"
    with (
        pysam.VariantFile(str(root / "data/human_chr20_sample.vcf.gz")) as source,
        pysam.VariantFile(str(path), "wb", header=source.header) as target,
    ):
        for record in islice(source, 300):
            target.write(record)
    return path


def test_bcf_is_the_same_text(root: Path, tmp_path: Path) -> None:
    path = bcf_of_shipped(root, tmp_path)
    with read_vcf(path) as bcf, read_vcf(root / "data/human_chr20_sample.vcf.gz") as plain:
        assert bcf.contigs == plain.contigs == {"human_chr20_sample": 500_000}
        for mine, theirs in zip(bcf, plain, strict=False):
            assert mine.text == theirs.text
        assert mine.line == len(bcf.header) + 300


@pytest.mark.parametrize("kind", ["vcf", "vcf.gz", "bcf"])
def test_standard_input(root: Path, tmp_path: Path, kind: str) -> None:
    data = text(*RECORDS[:1])
    if kind == "bcf":
        path = bcf_of_shipped(root, tmp_path)
    else:
        path = vcf(tmp_path, gzip.compress(data) if kind == "vcf.gz" else data)
    script = "from dnasm.genome import read_vcf; print(sum(1 for _ in read_vcf('-')))"
    with path.open("rb") as stdin:
        done = subprocess.run([sys.executable, "-c", script], stdin=stdin, capture_output=True, check=True)
    assert int(done.stdout) == (300 if kind == "bcf" else 1)
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("chr1\t5\t.\tA\tT\t.\t.", "7 columns, a VCF line has at least 8; is the file cut off?"),
        ("chr1 5 . A T . . .", "1 columns.*separated by tabs"),
        ("chr1\tx\t.\tA\tT\t.\t.\t.", "POS is 'x'"),
        ("chr1\t-5\t.\tA\tT\t.\t.\t.", "POS is '-5'"),
        ("chr1\t9999999999999999999\t.\tA\tT\t.\t.\t.", "POS is '9999999999999999999'"),
        ("\t5\t.\tA\tT\t.\t.\t.", "CHROM is empty"),
        ("chr1\t5\t.\t\tT\t.\t.\t.", "REF is empty"),
        ("chr1\t5\t.\tA\t\t.\t.\t.", "ALT is empty or lacks an allele"),
        ("chr1\t5\t.\tA\tT,,C\t.\t.\t.", "ALT is empty or lacks an allele"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = vcf(tmp_path, text(RECORDS[0], line))
    with read_vcf(path) as reader:
        records = iter(reader)
        assert next(records).pos == 100
        with pytest.raises(InputError, match=rf"calls\.vcf:7: .*{told}"):
            next(records)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "no line '#CHROM"),
        (b"##fileformat=VCFv4.2\n", "no line '#CHROM"),
        (b"chr1\t5\t6\n", "calls.vcf:1: 'chr1\\\\t5\\\\t6' where a header line should be"),
        (b"##fileformat=VCFv4.2\n#CHROM POS ID REF ALT QUAL FILTER INFO\n", "calls.vcf:2: .*separated by tabs"),
        (b"##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\n", "calls.vcf:2: .*columns must be"),
    ],
)
def test_a_file_without_header_is_refused(tmp_path: Path, data: bytes, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_vcf(vcf(tmp_path, data))


def test_header_alone_has_no_records(tmp_path: Path) -> None:
    with read_vcf(vcf(tmp_path, text())) as reader:
        assert list(reader) == []


def test_cut_off_gzip_says_after_which_line(tmp_path: Path) -> None:
    whole = gzip.compress(text(*RECORDS[:1] * 20_000), 1)
    path = vcf(tmp_path, whole[: len(whole) // 2], "cut.vcf.gz")
    told = r"cut\.vcf\.gz: the gzip data end early.*after line [\d,]+"
    with read_vcf(path) as reader, pytest.raises(InputError, match=told):
        list(reader)


def test_cut_off_bgzip_is_refused_at_once(root: Path, tmp_path: Path) -> None:
    data = (root / "data/human_chr20_sample.vcf.gz").read_bytes()
    with pytest.raises(InputError, match="lacks the block that ends a bgzip file"):
        read_vcf(vcf(tmp_path, data[:-28], "cut.vcf.gz"))


def test_damaged_bcf_names_the_record(root: Path, tmp_path: Path) -> None:
    data = bytearray(bcf_of_shipped(root, tmp_path).read_bytes())
    data = bytearray(gzip.decompress(bytes(data)))
    cut = vcf(tmp_path, bytes(data[: len(data) - 40]), "cut.bcf")
    with read_vcf(cut) as reader, pytest.raises(InputError, match=r"cut\.bcf: record 30\d: the BCF data are damaged"):
        list(reader)


def test_agrees_with_pysam_on_the_shipped_file(root: Path) -> None:
    path = root / "data/human_chr20_sample.vcf.gz"
    with read_vcf(path) as mine, pysam.VariantFile(str(path)) as theirs:
        for a, b in zip(mine, theirs, strict=True):
            assert (a.contig, a.pos, a.ref, a.alts) == (b.chrom, b.pos, b.ref, b.alts)
