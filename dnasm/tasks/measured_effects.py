"""Measured effects of single changes, as saturation mutagenesis by MPRA gives them, and how scores agree with them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dnasm.baselines.variants import PREDICTORS, Site
from dnasm.errors import InputError
from dnasm.genome import Genome, Interval
from dnasm.genome.files import input_path, lines, open_bytes
from dnasm.metrics import CorrelationEstimate, correlation_interval
from dnasm.tasks.contig_names import other_names
from dnasm.tasks.mutagenesis_table import LETTERS, Mutagenesis
from dnasm.tasks.mutation_scan import Scores

_POSITIONS = ("pos", "Position", "GRCh38", "GRCh37")
_EFFECTS = ("Coefficient", "coefficient", "effect", "value")
_FEWEST = 3  # changes without which there is no correlation


@dataclass(frozen=True)
class _Row:
    line: int
    element: str
    chrom: str
    positions: dict[str, int]
    ref: str
    alt: str
    effect: float


def read_measured(path: str, genome: Genome, region: Interval, element: str | None, min_barcodes: int) -> Scores:
    """Read measured effects of a region: (l, 5), columns A, C, G, T and deletion; nan where there is none.

    The table has a header and columns `Ref`, `Alt` (`-` deletes), an effect (`Coefficient`), a 1-based position
    (`pos`, `Position`, `GRCh37` or `GRCh38`), and may have `Element`, `Chrom` and `Barcodes`. Of several columns of
    positions the one is taken whose REF letters the genome holds.

    Raises:
        InputError: If the file is no such table, has nothing in the region, several elements there, or REF letters
            that the genome does not hold.
    """
    rows = [row for row in _read(path, min_barcodes) if element is None or row.element == element]
    rows = [row for row in rows if row.chrom in ("", region.contig, *other_names(region.contig))]
    if not rows:
        raise InputError(
            f"{path}: has no row of {element or region.contig}; is it the right file, --element or contig?"
        )
    found = {name: _within(rows, name, genome, region) for name in rows[0].positions}
    name = max(found, key=lambda name: len(found[name]))
    matching = found[name]
    elements = sorted({row.element for row in matching})
    if len(elements) > 1:
        raise InputError(
            f"{path}: {len(elements)} elements were measured here; choose one: --element {elements[0]} ..."
        )
    inside = sum(region.start < row.positions[name] <= region.end for row in rows)
    if not matching or len(matching) < 0.9 * inside:
        raise InputError(
            f"{path}: the genome holds REF at {len(matching)} of the {inside} rows in "
            f"{region.contig}:{region.start + 1:,}-{region.end:,}; is it another genome build?"
        )
    measured = np.full((region.length, len(LETTERS)), np.nan)
    for row in matching:
        measured[row.positions[name] - region.start - 1, LETTERS.index(row.alt)] = row.effect
    return measured


def _within(rows: list[_Row], name: str, genome: Genome, region: Interval) -> list[_Row]:
    letters = genome[region].upper()
    places = ((row, row.positions[name] - region.start - 1) for row in rows)
    return [row for row, place in places if 0 <= place < region.length and letters[place] == row.ref]


def _read(path: str, min_barcodes: int) -> Iterator[_Row]:
    with open_bytes(input_path(Path(path))) as source:
        split = ((number, line.rstrip("\r").split("\t")) for number, line in lines(source) if line.strip())
        _, header = next(split, (0, []))
        column = {name: place for place, name in enumerate(header)}
        effect = next((name for name in _EFFECTS if name in column), None)
        positions = [name for name in _POSITIONS if name in column]
        if effect is None or not positions or not {"Ref", "Alt"} <= set(header):
            raise InputError(
                f"{path}: its header lacks Ref, Alt, an effect ({', '.join(_EFFECTS)}) or a position "
                f"({', '.join(_POSITIONS)}): {header[:8]}"
            )
        for number, cells in split:
            if len(cells) != len(header):
                raise InputError(f"{path}:{number}: has {len(cells)} columns, the header {len(header)}")
            cell = dict(zip(header, cells, strict=True))
            try:
                barcodes = float(cell.get("Barcodes", "inf"))
                places = {name: int(cell[name]) for name in positions if cell[name] not in ("", "NA", ".")}
                value = float(cell[effect])
            except ValueError as error:
                raise InputError(f"{path}:{number}: {error}") from None
            ref, alt = cell["Ref"].upper(), cell["Alt"].upper()
            if (
                barcodes < min_barcodes
                or len(places) < len(positions)
                or alt not in LETTERS
                or not math.isfinite(value)
            ):
                continue
            yield _Row(number, cell.get("Element", ""), cell.get("Chrom", ""), places, ref, alt, value)


@dataclass(frozen=True)
class Agreement:
    """How a predictor goes with what was measured, over the same changes."""

    name: str
    pearson: CorrelationEstimate
    spearman: CorrelationEstimate

    def __str__(self) -> str:
        return (
            f"{self.name}: Pearson {_shown(self.pearson)}, Spearman {_shown(self.spearman)}, n = {self.pearson.count:,}"
        )


def _shown(estimate: CorrelationEstimate) -> str:
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"


def agreements(result: Mutagenesis) -> list[Agreement]:
    """Correlate scores and simple predictors with the measured effects, with 95 % bootstrap intervals.

    Substitutions alone are compared, so that every predictor has a value for each of them.

    Raises:
        InputError: If fewer than three substitutions have both.
    """
    assert result.measured is not None, "the caller has read measured effects"
    measured = result.measured[:, :4]
    both = np.isfinite(measured) & np.isfinite(result.llr)
    for place, letter in enumerate(result.sequence):
        if letter in "ACGT":
            both[place, "ACGT".index(letter)] = False
    if both.sum() < _FEWEST:
        raise InputError(f"only {int(both.sum())} substitutions have a score and a measured effect: nothing to compare")
    predictors = {
        "model": result.llr,
        "gradient x input": result.gradient_llr(),
        **_simple(result.sequence),
    }
    return [
        Agreement(
            name,
            correlation_interval(values[both], measured[both]),
            correlation_interval(values[both], measured[both], ranks=True),
        )
        for name, values in predictors.items()
        if np.isfinite(values[both]).all()
    ]


def _simple(sequence: str) -> dict[str, Scores]:
    """Simple predictors of every substitution: (l, 4) each, 0 at the base itself."""
    found = {name: np.zeros((len(sequence), 4)) for name in PREDICTORS}
    for place, ref in enumerate(sequence):
        for column, alt in enumerate("ACGT"):
            if ref in "ACGT" and alt != ref:
                site = Site(sequence[max(0, place - 1) : place], ref, alt, sequence[place + 1 : place + 2])
                for name, (function, _) in PREDICTORS.items():
                    found[name][place, column] = function(site)
    return found
