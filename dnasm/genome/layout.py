"""What a token store is on disk, where it lies, and how it is known to be fresh.

X.fa.dnasm/
  tokens.u8    one byte a base, all contigs one after another
  index.json   format version, fingerprint of X.fa, contigs and lengths, where the runs lie, warnings
  arrays.i64   runs of N, runs of soft mask, and counts of other letters: little-endian int64
"""

import dataclasses
import json
import os
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from dnasm.errors import InputError

FORMAT = "dnasm token store"
VERSION = 1
TOKENS, INDEX, ARRAYS = "tokens.u8", "index.json", "arrays.i64"

_PROBE = 1 << 16  # bytes hashed at the head, the middle and the tail


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What must be unchanged for a store to stand for its genome file."""

    size: int
    mtime_ns: int
    head: str
    middle: str
    tail: str

    @classmethod
    def of(cls, path: Path) -> "Fingerprint":
        """Take it from the file as it is now."""
        try:
            with path.open("rb", buffering=0) as file:
                info = os.fstat(file.fileno())
                starts = (0, max(0, (info.st_size - _PROBE) // 2), max(0, info.st_size - _PROBE))
                probes = [os.pread(file.fileno(), _PROBE, start) for start in starts]
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        return cls(info.st_size, info.st_mtime_ns, *(blake2b(probe, digest_size=16).hexdigest() for probe in probes))

    def difference(self, now: "Fingerprint") -> str:
        """Say in words what changed; empty if nothing did."""
        if self.size != now.size:
            return f"its size went from {self.size:,} to {now.size:,} bytes"
        if (self.head, self.middle, self.tail) != (now.head, now.middle, now.tail):
            return "its content changed"
        return "it was written again or touched" if self.mtime_ns != now.mtime_ns else ""


@dataclass(frozen=True, slots=True)
class Section:
    """Rows of int64 in `arrays.i64`."""

    offset: int
    rows: int
    columns: int

    @property
    def end(self) -> int:
        """First byte after it."""
        return self.offset + self.rows * self.columns * 8


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreIndex:
    """The content of `index.json`; names are one a line, so that a million of them are one value."""

    source: str
    fingerprint: Fingerprint
    build: str
    rna: bool
    cut_line: bool
    names: str
    lengths: list[int]
    arrays: dict[str, Section]
    warnings: list[str]

    def to_json(self) -> str:
        """Write it as text, each value on its line."""
        values = {"format": FORMAT, "version": VERSION}
        values |= {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["fingerprint"] = dataclasses.asdict(self.fingerprint)
        values["arrays"] = {name: dataclasses.asdict(section) for name, section in self.arrays.items()}
        return "{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in values.items()) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> "StoreIndex":
        """Read it back.

        Raises:
            ValueError: If it is no such index, or one of another version.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            found = data.pop("format"), data.pop("version")
            if found != (FORMAT, VERSION):
                raise ValueError(f"is {found[0]!r} version {found[1]}, this dnasm writes version {VERSION}")
            data["fingerprint"] = Fingerprint(**data["fingerprint"])
            data["arrays"] = {name: Section(**section) for name, section in data["arrays"].items()}
            return cls(**data)
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"lacks or misnames {error}") from error


def store_beside(genome: Path) -> Path:
    """The store's usual place."""
    return genome.with_name(f"{genome.name}.dnasm")


def store_in_cache(genome: Path) -> Path | None:
    """Its place where the genome's folder is read-only: below `$DNASM_CACHE`, by default `~/.cache/dnasm`.

    None for a user without a home, as a container may have.
    """
    try:
        root = Path(os.environ.get("DNASM_CACHE") or Path.home() / ".cache" / "dnasm")
    except RuntimeError:
        return None
    full = str(genome.resolve())
    return root / "genomes" / f"{genome.name}-{blake2b(os.fsencode(full), digest_size=8).hexdigest()}.dnasm"
