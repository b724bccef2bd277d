"""GFF3 and GTF files of annotated features."""

from collections.abc import Collection
from dataclasses import dataclass
from os import PathLike
from urllib.parse import unquote

from dnasm.errors import InputError
from dnasm.genome.files import MAX_DIGITS, input_path, lines, open_bytes
from dnasm.genome.interval import Interval


@dataclass(frozen=True, slots=True)
class GffRecord:
    """One feature."""

    interval: Interval
    type: str
    """Column 3, as `gene` or `CDS`."""
    source: str
    """Column 2: the program or database."""
    score: float | None
    strand: str | None
    """`+` or `-`; None if the feature has none (`.`) or it is unknown (`?`)."""
    phase: int | None
    """Of a CDS: bases to skip to the next codon."""
    attributes: dict[str, str]
    """Column 9, escapes resolved; several values of a key are one text, joined by commas."""
    line: int
    """Number of the line in the file, from 1."""


def read_gff(path: str | PathLike[str], types: Collection[str] | None = None) -> list[GffRecord]:
    """Read a GFF3 or GTF file (plain, gzip or bgzip) in its own order, up to a `##FASTA` section.

    Args:
        path: The file.
        types: Keep features of these types (column 3) only; None keeps all.

    Raises:
        InputError: If a line is malformed; the message names it.
    """
    records = []
    with open_bytes(input_path(path)) as source:
        for number, line in lines(source):
            if line.startswith("##FASTA"):
                break
            if line.strip() and not line.startswith("#"):
                fields = line.split("\t")
                if len(fields) != 9:
                    raise InputError(f"{path}:{number}: {len(fields)} columns; GFF has 9, separated by tabs")
                if types is None or fields[2] in types:
                    records.append(_record(fields, number, f"{path}:{number}"))
    return records


def _record(fields: list[str], number: int, where: str) -> GffRecord:
    contig, source, kind, _, _, score, strand, phase, attributes = fields
    if strand not in ("+", "-", ".", "?"):
        raise InputError(f"{where}: strand (column 7) is {strand!r}; it must be +, -, . or ?")
    if phase not in ("0", "1", "2", "."):
        raise InputError(f"{where}: phase (column 8) is {phase!r}; it must be 0, 1, 2 or .")
    try:
        number_of_score = None if score == "." else float(score)
    except ValueError:
        raise InputError(f"{where}: score (column 6) is {score!r}; it must be a number or .") from None
    return GffRecord(
        interval=_interval(unquote(contig), fields[3], fields[4], where),
        type=kind,
        source=source,
        score=number_of_score,
        strand=strand if strand in ("+", "-") else None,
        phase=None if phase == "." else int(phase),
        attributes=_attributes(attributes, where),
        line=number,
    )


def _interval(contig: str, start: str, end: str, where: str) -> Interval:
    for name, text in (("start (column 4)", start), ("end (column 5)", end)):
        if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS and int(text) > 0):
            raise InputError(f"{where}: {name} is {text[:30]!r}; it must be a whole number, 1 or more")
    if int(start) > int(end):
        raise InputError(f"{where}: start {int(start):,} lies after end {int(end):,}; GFF counts from 1, end included")
    return Interval(contig, int(start) - 1, int(end))


def _attributes(text: str, where: str) -> dict[str, str]:
    """GFF3 writes `key=value;key=value`, GTF `key "value"; key "value";`."""
    found: dict[str, str] = {}
    for part in _split(text):
        key, equals, value = part.partition("=")
        if equals and " " not in key.strip():
            key, value = unquote(key.strip()), unquote(value.strip())
        else:
            key, _, value = part.partition(" ")
            value = value.strip().strip('"')
        if not key:
            raise InputError(f"{where}: attribute {part!r} (column 9) has no key")
        found[key] = f"{found[key]},{value}" if key in found else value
    return found


def _split(text: str) -> list[str]:
    """Split at semicolons outside of quotes."""
    parts = text.split(";")
    if '"' in text:
        joined, parts = parts, []
        for part in joined:
            if parts and parts[-1].count('"') % 2:
                parts[-1] += f";{part}"
            else:
                parts.append(part)
    return [part.strip() for part in parts if part.strip() not in ("", ".")]
