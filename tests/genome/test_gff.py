import gzip
from pathlib import Path

import pytest

from dnasm.errors import InputError
from dnasm.genome import Interval, read_gff

LINE = "chrI\tSGD\tgene\t335\t649\t.\t+\t.\tID=YAL069W"


def gff(folder: Path, text: str) -> Path:
    path = folder / "genes.gff3"
    path.write_text(text)
    return path


def test_gff3(tmp_path: Path) -> None:
    cds_line = "chrI\t.\tCDS\t1\t3\t0.5\t-\t2\t."
    text = f"##gff-version 3\n{LINE};Note=a%3Bb%2C c;Dbxref=x:1,y:2\n{cds_line}\n##FASTA\n>chrI\nAC\n"
    gene, cds = read_gff(gff(tmp_path, text))
    assert (gene.interval, gene.type, gene.source, gene.line) == (Interval("chrI", 334, 649), "gene", "SGD", 2)
    assert (gene.score, gene.strand, gene.phase) == (None, "+", None)
    assert gene.attributes == {"ID": "YAL069W", "Note": "a;b, c", "Dbxref": "x:1,y:2"}
    assert (cds.interval, cds.score, cds.strand, cds.phase) == (Interval("chrI", 0, 3), 0.5, "-", 2)
    assert cds.attributes == {}


def test_gtf(tmp_path: Path) -> None:
    attributes = 'gene_id "YAL069W"; note "a; b=c"; exon_number 1; tag "x"; tag "y";'
    (record,) = read_gff(gff(tmp_path, LINE.rsplit("\t", 1)[0] + "\t" + attributes + "\n"))
    assert record.attributes == {"gene_id": "YAL069W", "note": "a; b=c", "exon_number": "1", "tag": "x,y"}


def test_types_are_chosen(tmp_path: Path) -> None:
    path = gff(tmp_path, LINE + "\n" + LINE.replace("gene", "CDS") + "\n")
    assert [record.type for record in read_gff(path, types={"CDS"})] == ["CDS"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("335", "0", r"start \(column 4\) is '0'"),
        ("335", "x", r"start \(column 4\) is 'x'"),
        ("335", "700", "start 700 lies after end 649"),
        ("\t+\t", "\tf\t", "strand"),
        ("+\t.", "+\t3", "phase"),
        (".\t+", "high\t+", "score"),
        ("ID=YAL069W", "=YAL069W", "has no key"),
        ("\tSGD", "", "8 columns; GFF has 9"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = gff(tmp_path, f"##gff-version 3\n{LINE.replace(old, new)}\n")
    with pytest.raises(InputError, match=rf"genes\.gff3:2: .*{told}"):
        read_gff(path)


def test_shipped_features(root: Path) -> None:
    path = root / "data/yeast_r64.gff3.gz"
    records = read_gff(path, types={"tRNA"})
    with gzip.open(path, "rt") as file:
        lines = file.read().splitlines()
    expected = [(i, line.split("\t")) for i, line in enumerate(lines, 1) if "\ttRNA\t" in line]
    assert [(r.line, r.interval) for r in records] == [
        (i, Interval(fields[0], int(fields[3]) - 1, int(fields[4]))) for i, fields in expected
    ]
    assert len(records) == 335
