"""The table that scoring returns: one row per ALT, in input order, as numpy columns."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from dnasm.errors import MissingExtra

STATUSES = ("ok", "ref_mismatch", "unsupported", "out_of_range", "unknown_contig")
MISSING = "."
"""What stands for a missing value in text, as in VCF."""

_OBJECT, _NUMBER = np.dtype(object), np.dtype(np.float64)
_DTYPES = {
    "chrom": _OBJECT,
    "pos": np.dtype(np.int64),
    "ref": _OBJECT,
    "alt": _OBJECT,
    "llr": _NUMBER,
    "llr_forward": _NUMBER,
    "llr_reverse": _NUMBER,
    "ref_match": np.dtype(np.bool_),
    "status": _OBJECT,
    "reason": _OBJECT,
}
COLUMNS = tuple(_DTYPES)

Text = npt.NDArray[np.object_]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of variants. Each attribute is a column; rows stand in input order, one for each ALT."""

    chrom: Text
    """Contig as the input names it."""
    pos: npt.NDArray[np.int64]
    """First base of REF, 1-based."""
    ref: Text
    alt: Text
    """One allele; `.` where the record has none."""
    llr: Numbers
    """log p(ALT) - log p(REF) in nats; nan where the status is not ok."""
    llr_forward: Numbers
    llr_reverse: Numbers
    ref_match: npt.NDArray[np.bool_]
    """Whether the genome holds REF; also false where that could not be looked up, as the status then says."""
    status: Text
    """ok, ref_mismatch, unsupported, out_of_range or unknown_contig."""
    reason: Text
    """Why there is no score, or what to know about it; empty where there is nothing to say."""
    method: str = field(default="llr", kw_only=True)
    """What the three columns of numbers hold; where they are written, they are named after it."""

    def __len__(self) -> int:
        return len(self.pos)

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[Any, ...]], method: str = "llr") -> "ScoreTable":
        """Build a table from tuples in the order of `COLUMNS`."""
        listed = list(rows)
        columns = zip(*listed, strict=True) if listed else ([] for _ in COLUMNS)
        return cls(
            *(_column(values, _DTYPES[name]) for name, values in zip(COLUMNS, columns, strict=True)), method=method
        )

    @classmethod
    def concatenate(cls, tables: Iterable["ScoreTable"]) -> "ScoreTable":
        """Stack tables, first to last."""
        listed = list(tables) or [cls.from_rows([])]
        return cls(
            *(np.concatenate([getattr(table, name) for table in listed]) for name in COLUMNS), method=listed[0].method
        )

    @classmethod
    def from_lists(cls, columns: list[list[Any]], method: str = "llr") -> "ScoreTable":
        """Build a table from what `to_lists` made of one."""
        return cls(
            *(_column(values, dtype) for values, dtype in zip(columns, _DTYPES.values(), strict=True)), method=method
        )

    def to_lists(self) -> list[list[Any]]:
        """Return each column as a plain list, for JSON; nothing is rounded."""
        return [column.tolist() for column in self.columns().values()]

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Name to array, in the order in which they are written."""
        return {name.replace("llr", self.method): getattr(self, name) for name in COLUMNS}

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Go through the table as tuples of plain Python values."""
        return zip(*(column.tolist() for column in self.columns().values()), strict=True)

    def counts(self) -> dict[str, int]:
        """Rows of each status that occurs, in the order of `STATUSES`."""
        found = {status: int(np.count_nonzero(self.status == status)) for status in STATUSES}
        return {status: count for status, count in found.items() if count}

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame.

        Raises:
            MissingExtra: If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtra("to_pandas() needs pandas: pip install 'dnasm[tables]'") from None
        return pd.DataFrame(self.columns())

    def to_arrow(self) -> Any:
        """Return a pyarrow Table; scores that are missing are null.

        Raises:
            MissingExtra: If pyarrow is not installed.
        """
        try:
            import pyarrow as pa
        except ImportError:
            raise MissingExtra("to_arrow() and .parquet need pyarrow: pip install 'dnasm[tables]'") from None
        types = {_OBJECT: pa.string(), _NUMBER: pa.float64()}
        arrays = {
            name: pa.array(column, type=types.get(column.dtype), from_pandas=True)
            for name, column in self.columns().items()
        }
        return pa.table(arrays)

    def write_tsv(self, handle: IO[str], *, header: bool = True) -> None:
        """Write tab-separated text: 9 significant digits, `.` for what is missing."""
        if header:
            handle.write("\t".join(self.columns()) + "\n")
        for row in self.rows():
            handle.write("\t".join(_text(value) for value in row) + "\n")


def _column(values: Iterable[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return np.array(list(values), dtype=dtype)


def _text(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return MISSING if np.isnan(value) else f"{value:.9g}"
        case _:
            return str(value).replace("\t", " ").replace("\n", " ") or MISSING
