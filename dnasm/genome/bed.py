"""BED files of 3 to 12 columns."""

from dataclasses import dataclass
from os import PathLike

from dnasm.errors import InputError
from dnasm.genome.files import MAX_DIGITS, input_path, lines, open_bytes
from dnasm.genome.interval import Interval

_SKIPPED = ("#", "track", "browser")


@dataclass(frozen=True, slots=True)
class BedRecord:
    """One line: a region, and what the file says of it."""

    interval: Interval
    name: str | None
    """Column 4; None if it is absent or `.`."""
    score: float | None
    """Column 5; None if it is absent or `.`."""
    strand: str | None
    """Column 6, `+` or `-`; None if it is absent or `.`."""
    line: int
    """Number of the line in the file, from 1."""


def read_bed(path: str | PathLike[str]) -> list[BedRecord]:
    """Read a BED file (plain, gzip or bgzip) in its own order.

    Comments, blank lines, `track` and `browser` lines are skipped; columns after the sixth are checked for their
    number only. A file without regions gives an empty list.

    Raises:
        InputError: If a line is malformed; the message names it.
    """
    records = []
    with open_bytes(input_path(path)) as source:
        for number, line in lines(source):
            if line.strip() and not _skipped(line):
                records.append(_record(line, number, f"{path}:{number}"))
    return records


def _skipped(line: str) -> bool:
    first = line.split(None, 1)[0]
    return line.startswith("#") or (first in _SKIPPED and not line.startswith(f"{first}\t"))


def _record(line: str, number: int, where: str) -> BedRecord:
    fields = line.split("\t") if "\t" in line else line.split()
    if not 3 <= len(fields) <= 12:
        raise InputError(f"{where}: a BED line has 3 to 12 columns, this one has {len(fields)}: {line[:60]!r}")
    name, score, strand = (*fields[3:6], *"..."[len(fields[3:6]) :])
    if not fields[0]:
        raise InputError(f"{where}: the contig (column 1) is empty")
    if strand not in ("+", "-", "."):
        raise InputError(f"{where}: strand (column 6) is {strand!r}; it must be +, - or .")
    return BedRecord(
        interval=_interval(fields, where),
        name=None if name == "." else name,
        score=None if score == "." else _score(score, where),
        strand=None if strand == "." else strand,
        line=number,
    )


def _interval(fields: list[str], where: str) -> Interval:
    start, end = (_coordinate(fields[column], column, where) for column in (1, 2))
    if start > end:
        raise InputError(f"{where}: start {start:,} lies after end {end:,}; BED counts from 0, end excluded")
    return Interval(fields[0], start, end)


def _coordinate(text: str, column: int, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        named = ("start", "end")[column - 1]
        raise InputError(
            f"{where}: {named} (column {column + 1}) is {text[:30]!r}; it must be a whole number, 0 or more"
        )
    return int(text)


def _score(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{where}: score (column 5) is {text!r}; it must be a number or .") from None
