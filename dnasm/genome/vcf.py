"""Reading VCF and BCF: records in their order, with line numbers.

Lines are taken apart here, because htslib reports a malformed one without its number, and because a record's own text
can then be written back as it was. BCF is turned into the same text by pysam.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from types import TracebackType
from typing import Any

from dnasm.errors import InputError
from dnasm.genome.files import MAX_DIGITS, InputBytes, input_path, lines, open_bytes, open_standard_input

_COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
_CONTIG = re.compile(r"##contig=<(?:.*,)?ID=([^,>]+)(?:.*,length=(\d+))?.*>")


@dataclass(frozen=True, slots=True)
class VcfRecord:
    """One line. What it says is not judged: `pos` may be 0 or past the end, an allele may be symbolic."""

    contig: str
    pos: int
    """1-based, as printed."""
    ref: str
    alts: tuple[str, ...]
    """Empty where the ALT column is `.`."""
    line: int
    """Number of the line in the file, from 1; for BCF, in the VCF text of it."""
    text: str
    """The whole line."""


class VcfReader:
    """Streams the records of a VCF (plain, gzip, bgzip) or BCF file; use it in a `with` statement, once.

    Attributes:
        name: The file, as messages name it.
        header: Lines of the header, from `##fileformat` to `#CHROM`.
        contigs: Contigs that the header declares: name -> length, or None where it gives none.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        """Open a file, or standard input (`-`), and read its header.

        Raises:
            InputError: If it is no VCF or BCF, or was cut off.
        """
        self._source = open_standard_input() if str(path) == "-" else open_bytes(input_path(path))
        self.name = self._source.name
        self._bcf: Any = None
        try:
            if self._source.peek()[:3] == b"BCF":
                self._bcf = _open_bcf(self._source)
                self._lines = self._bcf_lines()
            else:
                self._lines = lines(self._source)
            self.header = self._read_header()
        except BaseException:
            self.close()
            raise
        found = filter(None, map(_CONTIG.fullmatch, self.header))
        self.contigs = {match[1]: int(match[2]) if match[2] else None for match in found}

    def __iter__(self) -> Iterator[VcfRecord]:
        for number, line in self._lines:
            if line:
                yield _record(line, number, f"{self.name}:{number}")

    def close(self) -> None:
        """Close the file."""
        if self._bcf is not None:
            self._bcf.close()
        self._source.close()

    def __enter__(self) -> "VcfReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_header(self) -> list[str]:
        header: list[str] = []
        for number, line in self._lines:
            if not line.startswith("#"):
                raise InputError(
                    f"{self.name}:{number}: {line[:40]!r} where a header line should be; a VCF begins with "
                    "##fileformat=VCFv4.x and has a line '#CHROM POS ID REF ALT ...' before its records"
                )
            header.append(line)
            if line.startswith("#CHROM"):
                if not (line + "\t").startswith(_COLUMNS + "\t"):
                    wanted = _COLUMNS.replace("\t", " ")
                    raise InputError(f"{self.name}:{number}: the columns must be '{wanted}', separated by tabs")
                return header
        raise InputError(f"{self.name}: has no line '#CHROM POS ID REF ALT ...'; is it a VCF, and whole?")

    def _bcf_lines(self) -> Iterator[tuple[int, str]]:
        header = str(self._bcf.header).splitlines()
        yield from enumerate(header, 1)
        number = len(header)
        try:
            for record in self._bcf:
                number += 1
                yield number, str(record).rstrip("\n")
        except (OSError, ValueError) as error:
            where = f"{self.name}: record {number - len(header) + 1}"
            raise InputError(f"{where}: the BCF data are damaged or cut off ({error})") from error


def read_vcf(path: str | PathLike[str]) -> VcfReader:
    """Open a VCF (plain, gzip, bgzip), a BCF, or standard input (`-`); see `VcfReader`.

    >>> with read_vcf("calls.vcf.gz") as records:     # doctest: +SKIP
    ...     for record in records:
    ...         print(record.contig, record.pos, record.ref, record.alts)
    """
    return VcfReader(path)


def _record(line: str, number: int, where: str) -> VcfRecord:
    fields = line.split("\t", 8)
    if len(fields) < 8:
        hint = "the columns must be separated by tabs" if len(line.split()) >= 8 else "is the file cut off?"
        raise InputError(f"{where}: {len(fields)} columns, a VCF line has at least 8; {hint}")
    contig, pos, _, ref, alt = fields[:5]
    if not (pos.isascii() and pos.isdigit() and len(pos) <= MAX_DIGITS):
        raise InputError(f"{where}: POS is {pos[:30]!r}; it must be a whole number")
    alts = () if alt == "." else tuple(alt.split(","))
    for column, empty in (("CHROM", not contig), ("REF", not ref), ("ALT", not all(alts))):
        if empty:
            raise InputError(f"{where}: {column} is empty or lacks an allele; write . for a missing ALT")
    return VcfRecord(contig, int(pos), ref, alts, number, line)


def _open_bcf(source: InputBytes) -> Any:
    """Open BCF through a pipe, so that a file and standard input go one way and pysam needs no second look."""
    import pysam

    read_end, write_end = os.pipe()

    def pump() -> None:
        with suppress(BrokenPipeError, InputError, ValueError), os.fdopen(write_end, "wb") as pipe:
            while data := source.read(1 << 16):
                pipe.write(data)

    threading.Thread(target=pump, daemon=True).start()
    pysam.set_verbosity(0)
    with os.fdopen(read_end, "rb") as file:
        return pysam.VariantFile(file)
