import gzip
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnasm.errors import InputError
from dnasm.genome import VcfRecord, files, read_bed, read_gff, read_vcf
from dnasm.genome.files import InputBytes, check_regular, input_path, lines, open_bytes, open_standard_input, place_of


def test_plain_gzip_and_bgzip_give_the_same_bytes(tmp_path: Path) -> None:
    data = b"line\n" * 50_000
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b.gz").write_bytes(gzip.compress(data[:1000]) + gzip.compress(data[1000:]))
    with pysam.BGZFile(str(tmp_path / "c.gz"), "wb") as file:
        file.write(data)
    for name in ("a", "b.gz", "c.gz"):
        with open_bytes(tmp_path / name) as source:
            assert source.peek() == data[: len(source.peek())]
            assert b"".join(iter(lambda: source.read(7777), b"")) == data


@given(st.binary(max_size=300), st.integers(1, 20))
def test_lines_are_those_of_the_text(data: bytes, size: int) -> None:
    class Slowly(io.BytesIO):
        def read(self, _: int | None = -1) -> bytes:
            return super().read(size)

    found = list(lines(InputBytes("x", Slowly(data))))
    expected = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not data.split(b"\n")[-1]:  # what follows the last line end is no line; a lone mark is an empty one
        expected.pop()
    assert [number for number, _ in found] == list(range(1, len(expected) + 1))
    assert [line.encode("utf-8", "surrogateescape") for _, line in found] == [x.removesuffix(b"\r") for x in expected]


def test_a_line_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(files, "MAX_LINE", 3 << 20)
    path = tmp_path / "x.vcf"
    path.write_bytes(b"a\n" + b"x" * (5 << 20))
    with open_bytes(path) as source, pytest.raises(InputError, match=r"x\.vcf:2: line longer than 3,145,728 bytes"):
        list(lines(source))


@pytest.mark.parametrize(
    ("magic", "told"),
    [
        (b"BZh91AY", "bzip2; run `bunzip2`"),
        (b"\xfd7zXZ\x00", "xz; run `xz -d`"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"PK\x03\x04", "zip"),
    ],
)
def test_other_compression_is_named(tmp_path: Path, magic: bytes, told: str) -> None:
    (tmp_path / "x.fa").write_bytes(magic + bytes(100))
    with pytest.raises(InputError, match=told):
        open_bytes(tmp_path / "x.fa")


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        check_regular(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match="is empty"):
        check_regular(tmp_path / "empty")
    with pytest.raises(InputError, match="pipe or device"):
        check_regular(Path("/dev/null"))


def test_files_that_ship_are_named(root: Path) -> None:
    assert input_path("dnasm:data/README.md").samefile(root / "data/README.md")
    with pytest.raises(InputError, match="ships no file 'data/none'"):
        input_path("dnasm:data/none")


@given(st.binary(max_size=200), st.integers(0, 220))
def test_place_of(tmp_path_factory: pytest.TempPathFactory, data: bytes, offset: int) -> None:
    path = tmp_path_factory.getbasetemp() / "place"
    path.write_bytes(b"x" + data)  # never taken for a compressed file
    before = (b"x" + data)[:offset]
    assert place_of(path, len(before)) == (before.count(b"\n") + 1, len(before) - before.rfind(b"\n"))


@pytest.mark.parametrize("compress", [gzip.compress, bytes])
def test_standard_input(monkeypatch: pytest.MonkeyPatch, compress: object) -> None:
    assert callable(compress)
    stream = io.BufferedReader(io.BytesIO(compress(b"a\nb\n")))  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))
    with open_standard_input() as source:
        assert list(lines(source)) == [(1, "a"), (2, "b")]


FIELDS = st.sampled_from(
    ["chr1", "5", "9", "0", "-1", ".", "+", "A", "A,C", "", "x=1;y", 'a "b;', "=", "1e9", "é", "9" * 30]
)


def read_vcf_records(path: Path) -> list[VcfRecord]:
    with read_vcf(path) as reader:
        return list(reader)


@given(st.sampled_from([read_bed, read_gff, read_vcf_records]), st.lists(st.lists(FIELDS, max_size=13), max_size=5))
def test_any_table_is_read_or_refused_with_its_line(
    tmp_path_factory: pytest.TempPathFactory, read: Callable[[Path], list[object]], rows: list[list[str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "table"
    header = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n" if read is read_vcf_records else ""
    path.write_text(header + "".join("\t".join(row) + "\n" for row in rows))
    try:
        read(path)
    except InputError as error:
        assert re.match(rf"{path}:\d+: ", str(error))  # noqa: PT017 - what else is raised is the failure
