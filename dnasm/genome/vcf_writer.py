"""Writing a VCF again with more in its INFO column: every other byte of a record stays as it was."""

import contextlib
import logging
import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import quote

from dnasm.errors import OutputError
from dnasm.genome.files import sync
from dnasm.genome.vcf import VcfRecord

log = logging.getLogger(__name__)

_TBI_LIMIT = 1 << 29  # positions beyond it need a .csi index


@dataclass(frozen=True, slots=True)
class InfoField:
    """An INFO key with one value for each ALT."""

    id: str
    description: str
    type: Literal["Float", "Integer", "String"] = "Float"

    @property
    def header(self) -> str:
        """Its line in the header."""
        return f'##INFO=<ID={self.id},Number=A,Type={self.type},Description="{self.description}">'


class VcfWriter:
    """Writes annotated records in the order in which they come; use it in a `with` statement.

    The output appears under its name when the block ends without an error, and not at all otherwise. `.vcf.gz` is
    bgzip, with a `.tbi` beside it if the records are sorted (`.csi` if a contig is longer than 512 Mb).

    Args:
        path: OUT.vcf, OUT.vcf.gz, or `-` for text on standard output.
        header: The input's header lines; older declarations of the same INFO keys are replaced.
        info: The keys to be added.
        extra: More header lines, as `##dnasm_version=...`.
        force: Replace an output that exists.

    Raises:
        OutputError: If the output exists, or cannot be written.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        header: Sequence[str],
        info: Sequence[InfoField],
        *,
        extra: Sequence[str] = (),
        force: bool = False,
    ) -> None:
        self._path = Path(path)
        self._to_stdout = str(path) == "-"
        if not self._to_stdout and self._path.exists() and not force:
            raise OutputError(f"{path}: exists already; choose another name, or pass --force to replace it")
        self._temporary = self._path.with_name(f".{os.getpid()}.{secrets.token_hex(4)}.tmp.{self._path.name}")
        self._keys = tuple(field.id for field in info)
        self._order = _Order()
        self._pending: list[str] = []
        replaced = tuple(f"##INFO=<ID={key}," for key in self._keys)
        kept = [line for line in header if not line.startswith(replaced)]
        with _output_errors(self._path):
            self._file = self._open()
        self._add([*kept[:-1], *(field.header for field in info), *extra, kept[-1]])

    def write(self, record: VcfRecord, values: Mapping[str, Sequence[float | str | None]]) -> None:
        """Write a record, its columns as they were, with `values` in INFO.

        Args:
            record: As the reader gave it.
            values: INFO key -> one value for each ALT; None and nan are written as `.`.

        Raises:
            ValueError: If a key is missing, was not announced, or has another number of values than there are ALTs.
            OutputError: If the output cannot be written.
        """
        if set(values) != set(self._keys):
            raise ValueError(f"line {record.line}: values for {sorted(values)}, announced were {sorted(self._keys)}")
        fields = record.text.split("\t", 8)
        info = [part for part in fields[7].split(";") if part.split("=", 1)[0] not in ("", ".", *self._keys)]
        for key in self._keys if record.alts else ():
            if len(values[key]) != len(record.alts):
                raise ValueError(f"line {record.line}: {len(values[key])} values of {key} for {len(record.alts)} ALTs")
            info.append(f"{key}={','.join(map(_text, values[key]))}")
        fields[7] = ";".join(info) or "."
        self._order.see(record)
        self._add(["\t".join(fields)])

    def close(self) -> None:
        """Finish the output: write it to the disk, index it, give it its name.

        Raises:
            OutputError: If that fails; nothing is left then.
        """
        try:
            with _output_errors(self._path):
                self._flush()
                self._file.close()
                if not self._to_stdout:
                    self._publish()
        finally:
            self._discard()

    def __enter__(self) -> "VcfWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        with contextlib.suppress(OSError):
            self._file.close()
        self._discard()

    def _open(self) -> Any:
        if self._to_stdout:
            sys.stdout.flush()
            return os.fdopen(os.dup(sys.stdout.fileno()), "wb")
        file = self._temporary.open("xb")
        if not self._compressed:
            return file
        file.close()  # made first, because pysam crashes where it cannot make the file
        import pysam

        pysam.set_verbosity(0)  # what goes wrong becomes an exception
        return pysam.BGZFile(str(self._temporary), "wb")

    @property
    def _compressed(self) -> bool:
        return self._path.suffix in (".gz", ".bgz")

    def _add(self, lines: Iterable[str]) -> None:
        self._pending += lines
        if len(self._pending) >= 1000:
            with _output_errors(self._path):
                self._flush()

    def _flush(self) -> None:
        text = "".join(f"{line}\n" for line in self._pending)
        self._file.write(text.encode("utf-8", "surrogateescape"))
        self._pending.clear()

    def _publish(self) -> None:
        index = self._make_index() if self._compressed else None
        for suffix in (".tbi", ".csi"):  # never an index beside a file that it does not describe
            _beside(self._path, suffix).unlink(missing_ok=True)
        sync(self._temporary)
        self._temporary.replace(self._path)
        if index is not None:
            sync(index)
            index.replace(_beside(self._path, index.suffix))
        sync(self._path.parent)

    def _make_index(self) -> Path | None:
        if not self._order.sorted:
            log.warning("%s: its records are not sorted, so it gets no index; sort it with bcftools sort", self._path)
            return None
        import pysam

        large = self._order.highest >= _TBI_LIMIT
        index = _beside(self._temporary, ".csi" if large else ".tbi")
        pysam.tabix_index(str(self._temporary), preset="vcf", force=True, csi=large, index=str(index))
        return index

    def _discard(self) -> None:
        for path in (self._temporary, _beside(self._temporary, ".tbi"), _beside(self._temporary, ".csi")):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


class _Order:
    """Whether records come sorted: each contig in one stretch, positions never falling."""

    def __init__(self) -> None:
        self.sorted = True
        self.highest = 0
        self._seen: set[str] = set()
        self._last = ("", 0)

    def see(self, record: VcfRecord) -> None:
        contig, pos = self._last
        if record.contig != contig:
            self.sorted &= record.contig not in self._seen
            self._seen.add(record.contig)
        elif record.pos < pos:
            self.sorted = False
        self._last = record.contig, record.pos
        self.highest = max(self.highest, record.pos + len(record.ref))


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _text(value: float | str | None) -> str:
    if value is None or value != value:
        return "."
    if isinstance(value, str):
        return quote(value, safe="!#$&'()*+-./:<>?@[]^_`{|}~") or "."
    return f"{value:.9g}"


@contextlib.contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
