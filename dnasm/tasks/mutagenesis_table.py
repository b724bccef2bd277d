"""Every single change of a stretch of DNA with its scores: arrays for Python, rows for files."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOBase
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from dnasm.errors import MissingExtra
from dnasm.tasks.mutation_scan import DELETION, Scores

COLUMNS = ("chrom", "pos", "ref", "alt", "llr", "llr_forward", "llr_reverse", "gradient_llr", "gradient_x_input")
LETTERS = "ACGT-"


@dataclass(frozen=True, eq=False)
class Mutagenesis:
    """Log-likelihood ratios of all substitutions of l bases; numpy takes it for `llr`."""

    sequence: str
    changes: Scores
    """(l, 5): A, C, G, T and the deletion; mean of the strands that were computed, in nats. 0 at the base itself, nan
    at N and where it was not asked for."""
    forward: Scores
    """(l, 5), of the forward strand; nan if only the other was asked for."""
    reverse: Scores
    gradient: Scores
    """(l, 4): derivative of the log-likelihood by the share of each base; nan if it was not asked for."""
    contig: str = ""
    start: int = 0
    """Of the first base on the contig, 0-based."""
    measured: Scores | None = None
    """(l, 5) of an experiment; nan where it has no value."""

    def __len__(self) -> int:
        return len(self.sequence)

    def _repr_png_(self) -> bytes:
        """Show the heat map and the logos where a notebook prints the object."""
        from dnasm.tasks.mutagenesis_picture import png  # it draws what is defined here

        return png(self)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.llr, dtype=dtype, copy=copy)

    def __getitem__(self, index: Any) -> Any:
        return self.llr[index]

    @property
    def shape(self) -> tuple[int, ...]:
        """Bases, and 4."""
        return self.llr.shape

    @property
    def llr(self) -> Scores:
        """(l, 4): log p(changed) - log p(unchanged), columns A, C, G, T."""
        return self.changes[:, :DELETION]

    @property
    def deletion(self) -> Scores:
        """(l,): the same without each base."""
        return self.changes[:, DELETION]

    @property
    def importance(self) -> Scores:
        """(l,): how much less likely the sequence becomes on average when a base is replaced by another."""
        return -self.llr.sum(1) / 3

    @property
    def gradient_importance(self) -> Scores:
        """(l,): gradient x input, its mean over the bases taken off: the first-order estimate of `importance`."""
        own = np.take_along_axis(self.gradient, self._own()[:, None], 1)[:, 0]
        return (own - self.gradient.mean(1)) * 4 / 3

    def gradient_llr(self) -> Scores:
        """(l, 4): the first-order estimate of `llr`."""
        return self.gradient - np.take_along_axis(self.gradient, self._own()[:, None], 1)

    def _own(self) -> npt.NDArray[np.int64]:
        return np.array([max(0, LETTERS.find(letter)) for letter in self.sequence], dtype=np.int64)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Go through all changes that have a score, one tuple each, in the order of `COLUMNS` and `measured`."""
        estimate, saliency = self.gradient_llr(), self.gradient_importance
        for i, ref in enumerate(self.sequence):
            for column, alt in enumerate(LETTERS):
                if alt == ref or np.isnan(self.changes[i, column]):
                    continue
                slope = estimate[i, column] if column != DELETION else np.nan
                strands = (self.changes[i, column], self.forward[i, column], self.reverse[i, column])
                measured = () if self.measured is None else (self.measured[i, column],)
                yield (self.contig, self.start + i + 1, ref, alt, *strands, slope, saliency[i], *measured)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what `rows` yields."""
        return COLUMNS if self.measured is None else (*COLUMNS, "measured")

    def write_tsv(self, handle: TextIO | TextIOBase) -> None:
        """Write a header and a row for each change; 9 significant digits, nothing where there is no value."""
        handle.write("\t".join(self.columns) + "\n")
        for row in self.rows():
            cells = ("" if np.isnan(value) else f"{value:.9g}" for value in row[4:])
            handle.write("\t".join([row[0], str(row[1]), *row[2:4], *cells]) + "\n")

    def write_parquet(self, path: Path) -> None:
        """Write the same as Parquet."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        values = list(zip(*self.rows(), strict=True)) or [()] * len(self.columns)
        kinds = [pa.string(), pa.int64(), pa.string(), pa.string(), *[pa.float64()] * (len(self.columns) - 4)]
        pq.write_table(
            pa.table({
                name: pa.array(column, kind, from_pandas=True)
                for name, column, kind in zip(self.columns, values, kinds, strict=True)
            }),
            path,
        )  # fmt: skip


def require_table_format(suffix: str) -> None:
    """Fail before the work if a format cannot be written here.

    Raises:
        MissingExtra: If pyarrow is not installed.
    """
    if suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise MissingExtra(".parquet needs pyarrow: pip install 'dnasm[tables]'") from None
