import gzip
from pathlib import Path

import pytest

from dnasm.errors import InputError
from dnasm.genome import BedRecord, Interval, read_bed


def bed(folder: Path, text: str) -> Path:
    path = folder / "regions.bed"
    path.write_bytes(text.encode())
    return path


def test_three_to_twelve_columns(tmp_path: Path) -> None:
    twelve = "chrI\t7\t9\tb\t.\t-\t7\t9\t0,0,0\t1\t2,\t0,"
    records = read_bed(bed(tmp_path, f"chrII\t0\t5\nchrI\t3\t4\ta\t960.5\t+\n{twelve}\nchrI\t3\t3\t.\n"))
    assert records == [
        BedRecord(Interval("chrII", 0, 5), None, None, None, 1),
        BedRecord(Interval("chrI", 3, 4), "a", 960.5, "+", 2),
        BedRecord(Interval("chrI", 7, 9), "b", None, "-", 3),
        BedRecord(Interval("chrI", 3, 3), None, None, None, 4),
    ]


def test_talk_is_skipped_and_lines_still_count(tmp_path: Path) -> None:
    text = (
        '\ufeffbrowser position chrI:1-9\ntrack name="x" description="y"\n#chrom\tstart\n\ntrack\t1\t2\r\nchrI 5 6\r\n'
    )
    records = read_bed(bed(tmp_path, text))
    assert [(r.interval, r.line) for r in records] == [(Interval("track", 1, 2), 5), (Interval("chrI", 5, 6), 6)]


def test_gzip_and_no_final_line_end(tmp_path: Path) -> None:
    path = tmp_path / "regions.bed.gz"
    path.write_bytes(gzip.compress(b"chrI\t5\t6"))
    assert [r.interval for r in read_bed(path)] == [Interval("chrI", 5, 6)]


def test_only_comments_is_an_empty_list(tmp_path: Path) -> None:
    assert read_bed(bed(tmp_path, "# nothing\n")) == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("chrI\t5", "3 to 12 columns, this one has 2"),
        ("\t".join(["chrI", "1", "2", *"0123456789"]), "3 to 12 columns, this one has 13"),
        ("chrI\t9\t5", "start 9 lies after end 5"),
        ("chrI\t-1\t5", r"start \(column 2\) is '-1'"),
        ("chrI\t1\t5.0", r"end \(column 3\) is '5.0'"),
        ("chrI\t1\t1e3", r"end \(column 3\) is '1e3'"),
        ("chrI\t1\t99999999999999999999", r"end \(column 3\) is '99999999999999999999'"),
        ("chrI\tstart\tend", r"start \(column 2\) is 'start'"),
        ("chrI\t1\t5\tx\thigh", r"score \(column 5\) is 'high'"),
        ("chrI\t1\t5\tx\t0\tplus", r"strand \(column 6\) is 'plus'"),
        ("\t1\t5", r"contig \(column 1\) is empty"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = bed(tmp_path, f"# one\nchrI\t0\t5\n{line}\n")
    with pytest.raises(InputError, match=rf"regions\.bed:3: .*{told}"):
        read_bed(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.bed: cannot be opened: No such file"):
        read_bed(tmp_path / "none.bed")
