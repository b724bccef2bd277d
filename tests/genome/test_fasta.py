"""The scanner alone: every layout of text, cut into chunks anywhere, against the naive reader."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dnasm.errors import InputError
from dnasm.genome import fasta
from dnasm.genome.fasta import COUNTED, FastaScanner
from tests.genome.naive import parse_fasta, runs_of, tokens_of

LETTERS = "ACGTNacgtnRYSWKMBDHVryswkmbdhvUu-*"
NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=5)
SEQUENCES = st.one_of(
    st.text(st.sampled_from("ACGT"), max_size=80),
    st.text(st.sampled_from("ACGTacgtN"), max_size=80),
    st.text(st.sampled_from(LETTERS), max_size=40),
    st.text(st.sampled_from("Nn"), max_size=30),
)


@st.composite
def fasta_texts(draw: st.DrawFn) -> bytes:
    """FASTA in any shape that is legal: widths, CRLF, blank lines, descriptions, empty records, no last line end."""
    out = [draw(st.sampled_from(["", "\ufeff"])), "\n" * draw(st.integers(0, 2))]
    for name in draw(st.lists(NAMES, min_size=1, max_size=5, unique=True)):
        out.append(f">{name}{draw(st.sampled_from(['', ' some > thing', chr(9) + 'x', ' ']))}\n")
        sequence, width = draw(SEQUENCES), draw(st.integers(1, 70))
        out += [sequence[i : i + width] + "\n" for i in range(0, len(sequence), width)]
        out.append("\n" * draw(st.integers(0, 1)))
    text = "".join(out)
    text = text.replace("\n", "\r\n") if draw(st.booleans()) else text
    return (text if draw(st.booleans()) else text.rstrip("\r\n")).encode()


@contextmanager
def chunks_of(size: int) -> Iterator[None]:
    before, fasta.CHUNK = fasta.CHUNK, size
    try:
        yield
    finally:
        fasta.CHUNK = before


def scan(
    data: bytes, path: Path = Path("x.fa"), *, chunk: int = 1 << 19, rna: bool = False
) -> tuple[list[int], FastaScanner]:
    scanner = FastaScanner(path, rna=rna)
    with chunks_of(chunk):
        tokens = [token for part in scanner.read(io.BytesIO(data)) for token in part.tolist()]
    return tokens, scanner


@given(fasta_texts(), st.integers(3, 90))
@example(b">a\r\nAC\r\n>b\r\nGT\r\n", 3)
@example(b">a\nAC\n>b", 5)
def test_any_layout_in_any_chunks_reads_as_the_naive_reader_does(data: bytes, chunk: int) -> None:
    expected = parse_fasta(data)
    if not expected:
        with pytest.raises(InputError, match="not one base in it"):
            scan(data, chunk=chunk)
        return
    tokens, scanner = scan(data, chunk=chunk)
    whole = "".join(expected.values())
    assert dict(scanner.contigs) == {name: len(sequence) for name, sequence in expected.items()}
    assert tokens == tokens_of(whole)
    assert scanner.n_runs.tolist() == runs_of([letter.upper() not in "ACGT" for letter in whole])
    assert scanner.mask_runs.tolist() == runs_of([letter.islower() for letter in whole])
    found = {
        (scanner.contigs.name(contig), COUNTED[letter]): count for contig, letter, count in scanner.counted.tolist()
    }
    assert found == {
        (name, letter): sequence.upper().count(letter)
        for name, sequence in expected.items()
        for letter in COUNTED
        if letter in sequence.upper()
    }


@given(st.text(st.sampled_from("ACGUacgu"), min_size=1, max_size=50))
def test_rna_reads_u_as_t(sequence: str) -> None:
    tokens, scanner = scan(f">a\n{sequence}\n".encode(), rna=True)
    assert tokens == tokens_of(sequence.replace("U", "T").replace("u", "t"))
    assert not len(scanner.counted)


@given(fasta_texts(), st.data())
def test_a_foreign_byte_is_found_where_it_stands(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, pick: st.DataObject
) -> None:
    places = [
        i
        for i in range(len(data))
        if data[i : i + 1].isalpha()
        and not data[data.rfind(b"\n", 0, i) + 1 : i + 1].lstrip(b"\xef\xbb\xbf").startswith(b">")
    ]
    if not places:
        return
    at = pick.draw(st.sampled_from(places))
    byte = pick.draw(st.sampled_from([0, 0x20, 0x09, 0xFF, 0xC3, ord("J"), ord("e"), ord("."), ord(";"), ord("1")]))
    broken = data[:at] + bytes([byte]) + data[at + 1 :]
    path = tmp_path_factory.getbasetemp() / "broken.fa"
    path.write_bytes(broken)
    line, column = broken[:at].count(b"\n") + 1, at - broken.rfind(b"\n", 0, at)
    with pytest.raises(InputError, match=rf"broken\.fa:{line}: column {column}: .* is no nucleotide code"):
        scan(broken, path, chunk=pick.draw(st.integers(3, 60)))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"ACGT\n", r":1: column 1: found 'ACGT.*' where a header line"),
        (b"\n\nchr1\tx\t5\n>a\nAC\n", r":3: column 1: found 'c"),
        (b"\x89PNG\r\n\x1a\n", r":1: column 1: found '\\x89PNG"),
        (b"\n\n\n", "nothing but blank lines"),
        (b">a\nAC>b\nGT\n", r":2: column 3: '>' within a line"),
        (b">a\nACGTA>b\nGT\n", r":2: column 6: '>' within a line"),  # where a chunk of 4 begins
        (b">\nAC\n", r":1: column 1: header without a name"),
        (b">a\nAC\n> b\nAC\n", r":3: column 1: header without a name"),
        (b">\xc3\xa9\nAC\n", r":1: column 1: header .* no printable ASCII"),
        (b">a b\0c\nAC\n", r":1: column 1: header .* no printable ASCII"),
        (b">a\nAC\n>b\nGT\n>a\nTT\n", r"two contigs are called 'a' \(lines 1 and 5\)"),
        (b">a\nAC\n>b\n>a\n", r"two contigs are called 'a' \(lines 1 and 4\)"),
        (b">a\rACGT\r>b\rACGT\r", r":1: column 3: carriage return without a line feed"),
        (b">a\nAC\rGT\n", r":2: column 3: carriage return without a line feed"),
        (b">a\n>b\n", r"not one base in it \(records: 2\)"),
        (b">a\nMEEPQSDPSV\n", r":2: column 2: 'E' is no nucleotide code .* protein"),
        (b">a\nAC GT\n", r":2: column 3: byte 0x20 is no nucleotide code"),
        (b">a\nAC\0GT\n", r":2: column 3: byte 0x00 is no nucleotide code"),
        (b"\xff\xfe>\0a\0\n\0", r":1: column 1: found"),
    ],
)
@pytest.mark.parametrize("chunk", [4, 1 << 19])
def test_what_is_no_fasta_says_where_and_why(tmp_path: Path, data: bytes, told: str, chunk: int) -> None:
    path = tmp_path / "bad.fa"
    path.write_bytes(data)
    with pytest.raises(InputError, match=told) as caught:
        scan(data, path, chunk=chunk)
    assert str(caught.value).startswith(str(path))


def test_a_header_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.fa"
    path.write_bytes(b">a\nAC\n>" + b"x" * (3 * fasta.MAX_HEADER) + b"\nAC\n")
    with pytest.raises(InputError, match=r"long\.fa:3: column 1: header longer than 1,048,576 bytes"):
        scan(path.read_bytes(), path)


def test_warnings_name_the_contig() -> None:
    _, scanner = scan(b">a\nACGT\n>b\n>c\nAC\n>d\nACG")
    assert scanner.cut_line
    assert scanner.warnings[0] == "left out, having no bases (records: 1): 'b'"
    assert "contig 'd' stops there with 3 bases" in scanner.warnings[1]
    assert scan(b">a\nACGT\n")[1].warnings == []


def test_a_run_across_contigs_and_chunks_is_one(tmp_path: Path) -> None:
    _, scanner = scan(b">a\nACNNN\n>b\nNNNNA\n", chunk=4)
    assert scanner.n_runs.tolist() == [[2, 9]]
    assert np.asarray(scanner.contigs.offsets).tolist() == [0, 5]


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=100).map(lambda data: b">a\n" + data)), st.integers(3, 50))
def test_any_bytes_give_tokens_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, chunk: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.fa"
    path.write_bytes(b"\n" + data)  # never taken for a compressed file
    try:
        tokens, scanner = scan(path.read_bytes(), path, chunk=chunk)
    except InputError as error:
        assert str(error).startswith(f"{path}:")  # noqa: PT017 - most examples end here, none may end otherwise
    else:
        assert len(tokens) == scanner.contigs.total
        assert set(tokens) <= {7, 8, 9, 10, 11}
