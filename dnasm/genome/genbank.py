"""GenBank records as FASTA text, through biopython."""

import io
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dnasm.errors import InputError
from dnasm.genome.files import InputBytes


def looks_like_genbank(head: bytes) -> bool:
    """Whether a text begins as a GenBank file does."""
    return head.lstrip().startswith(b"LOCUS ")


class GenBankAsFasta:
    """Reads GenBank text and hands it out as FASTA, one record after another: `>accession.version`, then upper case."""

    def __init__(self, path: Path, source: InputBytes) -> None:
        self._path = path
        self._text = io.TextIOWrapper(io.BufferedReader(_Raw(source)), encoding="utf-8", errors="replace")
        self._records = self._read_records()
        self._buffer = b""

    def read(self, size: int, /) -> bytes:
        """Read up to `size` bytes; none at the end."""
        while len(self._buffer) < size and (record := next(self._records, b"")):
            self._buffer += record
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def close(self) -> None:
        """Close the text."""
        self._text.close()

    def _read_records(self) -> Iterator[bytes]:
        from Bio import SeqIO

        records = SeqIO.parse(self._text, "genbank")
        for number in itertools.count(1):
            try:
                record = _next_record(records)
                sequence = bytes(record.seq).upper() if record is not None else b""
            except InputError:
                raise
            except Exception as error:  # biopython raises many kinds, and an undefined sequence has its own
                raise InputError(f"{self._path}: GenBank record {number}: {error}") from error
            if record is None:
                return
            yield b">%s\n%s\n" % (record.id.encode(), sequence)


def _next_record(records: Iterator[Any]) -> Any:
    from Bio import BiopythonParserWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", BiopythonParserWarning)  # they tell of files that were cut off
        return next(records, None)


class _Raw(io.RawIOBase):
    """What `io.BufferedReader` wants of a source of bytes."""

    def __init__(self, source: InputBytes) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
