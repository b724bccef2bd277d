"""Where scores go: a table as text or Parquet, or the input's own VCF with more in INFO; written as they come."""

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

import dnasm
from dnasm.genome import Genome
from dnasm.genome.vcf import VcfReader, VcfRecord
from dnasm.genome.vcf_writer import InfoField, VcfWriter
from dnasm.tasks.new_file import STANDARD_OUTPUT, new_file
from dnasm.tasks.score_table import MISSING, ScoreTable
from dnasm.tasks.variant_checks import Allele
from dnasm.tasks.variant_filter import Keep
from dnasm.tasks.variant_input import alleles_of

SUFFIXES = (".vcf", ".vcf.gz", ".vcf.bgz", ".tsv", ".parquet", STANDARD_OUTPUT)
_MEANING = {"llr": "log p(ALT) - log p(REF) in nats", "llr_mean": "log p(ALT) - log p(REF) in nats a base"}


@runtime_checkable
class ScoreSink(Protocol):
    """What takes tables in the order of the input."""

    def write(self, table: ScoreTable) -> None:
        """Take the next rows."""


class _Text:
    def __init__(self, handle: IO[str], method: str) -> None:
        self._handle = handle
        ScoreTable.from_rows([], method).write_tsv(handle)

    def write(self, table: ScoreTable) -> None:
        table.write_tsv(self._handle, header=False)
        self._handle.flush()


class _Parquet:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, table: ScoreTable) -> None:
        self._writer.write_table(table.to_arrow())


class AnnotatedVcf:
    """Joins rows with the records that they came from; a record is written when all its ALTs are scored."""

    def __init__(self, writer: VcfWriter, keys: Sequence[str]) -> None:
        self._writer, self._keys = writer, keys
        self._records: deque[VcfRecord] = deque()
        self._rows: deque[tuple[Any, ...]] = deque()

    def alleles(self, reader: VcfReader, keep: Keep) -> Iterator[Allele]:
        """Go through the alleles of a VCF that are asked for, and remember their records."""
        for record in reader:
            if keep(record.contig, record.pos, record.ref):
                self._records.append(record)
                yield from alleles_of(record, reader.name)

    def write(self, table: ScoreTable) -> None:
        """Take the next rows."""
        self._rows.extend(table.rows())
        while self._records and len(self._rows) >= max(1, len(self._records[0].alts)):
            record = self._records.popleft()
            rows = [self._rows.popleft() for _ in range(max(1, len(record.alts)))]
            self._writer.write(record, _info(rows, self._keys))


class _PlainVcf:
    """A VCF of an input that was none: a record for each row."""

    def __init__(self, writer: VcfWriter, keys: Sequence[str]) -> None:
        self._writer, self._keys = writer, keys
        self._line = 0

    def write(self, table: ScoreTable) -> None:
        for row in table.rows():
            self._line += 1
            chrom, pos, ref, alt = row[:4]
            alts = () if alt == MISSING else (alt,)
            text = f"{chrom}\t{pos}\t.\t{ref or MISSING}\t{alt}\t.\t.\t."
            self._writer.write(
                VcfRecord(chrom, pos, ref, alts, self._line, text), _info([row] if alts else [], self._keys)
            )


def _fields(method: str) -> list[InfoField]:
    """Keys that a method adds to INFO."""
    name = f"DNASM_{method.upper()}"
    return [
        InfoField(name, f"{_MEANING.get(method, method)}, of the chosen strands"),
        InfoField(f"{name}_FORWARD", "The same on the forward strand"),
        InfoField(f"{name}_REVERSE", "The same on the reverse strand"),
        InfoField("DNASM_STATUS", "ok, ref_mismatch, unsupported, out_of_range or unknown_contig", "String"),
    ]


def _info(rows: Sequence[tuple[Any, ...]], keys: Sequence[str]) -> dict[str, list[Any]]:
    return {key: [row[column] for row in rows] for key, column in zip(keys, (4, 5, 6, 8), strict=True)}


@contextmanager
def open_sink(
    out: str, suffix: str, *, genome: Genome, reader: VcfReader | None, command: str, force: bool, method: str
) -> Iterator[ScoreSink]:
    """Open the output; it appears under its name when the block ends without an error.

    Args:
        out: Path, or `-` for a table on standard output.
        suffix: As `check_new_file` returned it.
        genome: Its contigs go into the header of a VCF whose input was none.
        reader: The input, if it is a VCF.
        command: What made the output, for a VCF's header.
        force: Replace an output that exists.
        method: What the numbers are, for the names of columns and keys.
    """
    if suffix == STANDARD_OUTPUT:
        yield _Text(sys.stdout, method)
    elif suffix == ".tsv":
        with new_file(out) as draft, draft.open("x", encoding="utf-8", newline="") as handle:
            yield _Text(handle, method)
    elif suffix == ".parquet":
        with new_file(out) as draft, _parquet_writer(draft, method) as writer:
            yield _Parquet(writer)
    else:
        header = reader.header if reader is not None else _header(genome)
        lines = [f"##dnasm_version={dnasm.__version__}", f"##dnasm_command={command}"]
        with VcfWriter(out, header, _fields(method), extra=lines, force=force) as writer_:
            keys = [field.id for field in _fields(method)]
            yield AnnotatedVcf(writer_, keys) if reader is not None else _PlainVcf(writer_, keys)


def _parquet_writer(draft: Path, method: str) -> Any:
    schema = ScoreTable.from_rows([], method).to_arrow().schema  # says what to install where pyarrow is missing
    import pyarrow.parquet as pq

    return pq.ParquetWriter(draft, schema)


def _header(genome: Genome) -> list[str]:
    contigs: Iterable[tuple[str, int]] = genome.contigs.items()
    return [
        "##fileformat=VCFv4.3",
        *(f"##contig=<ID={name},length={length}>" for name, length in contigs),
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO",
    ]


def require_parquet(suffix: str) -> None:
    """Fail before the work if a table format cannot be written here.

    Raises:
        MissingExtra: If pyarrow is not installed.
    """
    if suffix == ".parquet":
        ScoreTable.from_rows([]).to_arrow()
