"""Read alleles from whatever states them: VCF and BCF, tables with a header, single variants, Python values."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from pathlib import Path

from dnasm.errors import InputError, MissingExtra
from dnasm.genome import Variant
from dnasm.genome.files import lines, open_bytes
from dnasm.genome.vcf import VcfReader, VcfRecord, read_vcf
from dnasm.tasks.score_table import MISSING
from dnasm.tasks.variant_checks import Allele

VCF_SUFFIXES = (".vcf", ".vcf.gz", ".vcf.bgz", ".bcf")
TABLE_SUFFIXES = {".tsv": "\t", ".txt": "\t", ".csv": ","}
PARQUET = ".parquet"
_COLUMNS = {"chrom": ("chrom", "#chrom", "chr", "contig"), "pos": ("pos",), "ref": ("ref",), "alt": ("alt",)}
# The names of contigs may hold colons, and so may the ALT of a breakend; REF never does.
_TEXT = re.compile(r"(.+?):(-?[\d,]+):([A-Za-z.*]+):(.+)")

Variants = str | PathLike[str] | Iterable["Variant | str | Allele"]


def is_vcf(name: str) -> bool:
    """Whether an input is read as VCF or BCF: by its suffix, and all of standard input."""
    return name == "-" or name.lower().endswith(VCF_SUFFIXES)


def read_alleles(variants: Variants) -> Iterator[Allele]:
    """Go through alleles in the order in which they are given; nothing is checked but the form.

    Args:
        variants: A file (VCF, VCF.gz, BCF, or a table with the columns chrom, pos, ref, alt), `contig:pos:ref:alt`,
            `-` for a VCF on standard input, or `Variant` objects and such texts in any iterable.

    Raises:
        InputError: If a file is missing or malformed, with the line.
    """
    if not isinstance(variants, str | PathLike):
        return map(_from_value, variants)
    name = str(variants)
    if is_vcf(name):
        return _open_and_read(name)
    if _separator(name) is not None or name.lower().endswith(PARQUET):
        return _read_table(Path(name))
    if Path(name).exists():
        known = ", ".join((*VCF_SUFFIXES, *TABLE_SUFFIXES, PARQUET))
        raise InputError(f"{name}: the suffix tells no format; give {known}")
    return iter([_parse(name)])


def alleles_of(record: VcfRecord, file: str) -> list[Allele]:
    """List the alleles of a VCF record: one for each ALT, and one where there is none."""
    where = f"{file}:{record.line}"
    return [Allele(record.contig, record.pos, record.ref, alt, where) for alt in record.alts or (MISSING,)]


def alleles_of_vcf(reader: VcfReader) -> Iterator[Allele]:
    """Go through the alleles of an open VCF."""
    for record in reader:
        yield from alleles_of(record, reader.name)


def _open_and_read(name: str) -> Iterator[Allele]:
    with read_vcf(name) as reader:
        yield from alleles_of_vcf(reader)


def _from_value(value: "Variant | str | Allele") -> Allele:
    if isinstance(value, Allele):
        return value
    if isinstance(value, str):
        return _parse(value)
    if not isinstance(value, Variant):
        raise InputError(
            f"{value!r:.60} is no variant; give dnasm.Variant(contig, pos, ref, alt) or 'contig:pos:ref:alt'"
        )
    return Allele(value.contig, value.pos, value.ref, value.alt)


def _parse(text: str) -> Allele:
    """Read `contig:pos:ref:alt`; unlike `Variant`, a row may hold a position or an ALT that cannot be scored."""
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise InputError(f"{text!r} is neither a file that exists nor a variant as chr17:43045705:T:C")
    contig, pos, ref, alt = match.groups()
    return Allele(contig, _position(pos.replace(",", ""), repr(text)), ref, alt)


def _position(text: str, where: str) -> int:
    if not (text.isascii() and text.removeprefix("-").isdigit()) or len(text) > 18:
        raise InputError(f"{where}: position {text[:30]!r} is no whole number")
    return int(text)


def _separator(name: str) -> str | None:
    plain = name.lower().removesuffix(".gz").removesuffix(".bgz")
    return next((mark for suffix, mark in TABLE_SUFFIXES.items() if plain.endswith(suffix)), None)


def _read_table(path: Path) -> Iterator[Allele]:
    """Read a table with a header; several ALTs in a cell, as `C,T`, are several rows."""
    rows = read_cells(path)
    number, header = next(rows)
    pick = _picker(header, f"{path}:{number}")
    for number, cells in rows:
        where = f"{path}:{number}"
        chrom, pos, ref, alts = pick(cells)
        for alt in alts.split(","):
            yield Allele(chrom, _position(pos, where), ref, alt or MISSING, where)


def read_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Go through a table's lines, the header first: number of the line, and its cells.

    Raises:
        InputError: If there is no header, or a row has more or fewer cells.
    """
    separator = _separator(str(path))
    if separator is None:
        rows = _parquet_cells(path)
        yield from rows
        return
    with open_bytes(path) as source:
        found = ((number, _cells(line, separator)) for number, line in lines(source) if _is_data(line))
        first = next(found, None)
        if first is None:
            raise InputError(f"{path}: holds no header; the first line names the columns chrom, pos, ref, alt")
        yield first
        for number, cells in found:
            if len(cells) != len(first[1]):
                raise InputError(f"{path}:{number}: has {len(cells)} columns, the header {len(first[1])}")
            yield number, cells


def _parquet_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Read a Parquet file as text; its rows count from 1."""
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra(f"{path}: reading Parquet needs pyarrow: pip install 'dnasm[tables]'") from None
    if not path.is_file():
        raise InputError(f"{path}: No such file or directory")
    try:
        file = pq.ParquetFile(path)
        yield 0, file.schema_arrow.names
        number = 0
        for batch in file.iter_batches(4096):
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                number += 1
                yield number, ["" if value is None else str(value) for value in row]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is no Parquet file, or is damaged ({error})") from error


def _is_data(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("##")


def _cells(line: str, separator: str) -> list[str]:
    return line.split("\t") if separator == "\t" else next(csv.reader([line]))


def _picker(header: list[str], where: str) -> Callable[[list[str]], list[str]]:
    names = [name.strip().lower() for name in header]
    places = []
    for wanted, accepted in _COLUMNS.items():
        found = [names.index(name) for name in accepted if name in names]
        if not found:
            raise InputError(f"{where}: no column {wanted!r} in the header ({', '.join(header[:12])})")
        places.append(found[0])
    return lambda cells: [cells[place].strip() for place in places]
