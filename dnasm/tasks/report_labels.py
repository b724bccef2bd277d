"""The part of a report on labelled variants: how well scores tell them apart, beside simple predictors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dnasm.errors import InputError
from dnasm.genome.files import lines, open_bytes
from dnasm.metrics import auroc_interval, average_precision_interval
from dnasm.report.label_plots import plot_calibration, plot_precision, plot_roc
from dnasm.report.page import FigureBlock, LabelBlock, PredictorRow
from dnasm.tasks.contig_names import other_names
from dnasm.tasks.report_inputs import Score

Key = tuple[str, int, str, str]

_FEWEST = 5  # of each class
_NONE = ("", ".", "NA", "nan")
_DRAWN = 4


def read_labels(name: str, column: str, positive: Sequence[str]) -> dict[Key, bool]:
    """Read a table with a header and columns chrom, pos, ref, alt and a label; rows without one are left out.

    Raises:
        InputError: If it is missing or damaged, lacks a column, or labels a variant twice in different ways.
    """
    labels: dict[Key, bool] = {}
    with open_bytes(Path(name)) as source:
        rows = ((number, line.rstrip("\r").split("\t")) for number, line in lines(source) if line)
        _, header = next(rows, (0, [""]))
        missing = [c for c in ("chrom", "pos", "ref", "alt", column) if c not in header]
        if missing:
            raise InputError(f"{name}: has no column {missing[0]!r}; it needs chrom, pos, ref, alt and {column}")
        place = [header.index(c) for c in ("chrom", "pos", "ref", "alt", column)]
        for number, cells in rows:
            if len(cells) != len(header) or not cells[place[1]].isdigit():
                raise InputError(f"{name}:{number}: no row of {len(header)} columns with a position")
            chrom, pos, ref, alt, label = (cells[i] for i in place)
            if label in _NONE:
                continue
            key, value = (chrom, int(pos), ref.upper(), alt.upper()), label in positive
            if labels.setdefault(key, value) != value:
                raise InputError(f"{name}:{number}: {chrom}:{pos} {ref}>{alt} has two different labels")
    return labels


def label_block(scores: Sequence[Score], labels: Mapping[Key, bool], source: str) -> LabelBlock:
    """Compare what scores and simple predictors make of labelled variants.

    Raises:
        InputError: If too few variants have both a score and a label.
    """
    found = [
        (score, label) for score in scores if np.isfinite(score.llr) and (label := _find(score, labels)) is not None
    ]
    truth = np.array([label for _, label in found], dtype=bool)
    if min(truth.sum(), (~truth).sum()) < _FEWEST:
        raise InputError(
            f"{source}: {int(truth.sum())} positives and {int((~truth).sum())} negatives have a score; "
            f"at least {_FEWEST} of each are needed. Are names of contigs and alleles the same in both files?"
        )
    llr = np.array([score.llr for score, _ in found])
    simple = simple_predictors([score for score, _ in found])
    predictors = {"model, low score": -llr} | {name: values for name, values in simple.items() if np.ptp(values)}
    drawn = dict(list(predictors.items())[:_DRAWN])
    return LabelBlock(
        source=source,
        positives=int(truth.sum()),
        negatives=int((~truth).sum()),
        rows=[_row(name, truth, values) for name, values in predictors.items()],
        figures=[
            FigureBlock("ROC", plot_roc(truth, drawn), "Shaded: where 95 % of the model's bootstrap curves lie."),
            FigureBlock(
                "Precision and recall",
                plot_precision(truth, drawn),
                "The faint line is the share of positives: chance.",
            ),
            FigureBlock(
                "Calibration of the score",
                plot_calibration(truth, llr),
                "Share of positives in each tenth of the scores, with 95 % intervals. A flat line says that the score "
                "tells nothing about the label.",
            ),
        ],
    )


def _find(score: Score, labels: Mapping[Key, bool]) -> bool | None:
    for name in (score.chrom, *other_names(score.chrom)):
        label = labels.get((name, score.pos, score.ref.upper(), score.alt.upper()))
        if label is not None:
            return label
    return None


def simple_predictors(scores: Sequence[Score]) -> dict[str, npt.NDArray[np.float64]]:
    """What needs no model: high values speak for a positive."""

    def gc(letters: str) -> int:
        return sum(letter in "GC" for letter in letters.upper())

    def transition(score: Score) -> bool:
        return {score.ref.upper(), score.alt.upper()} in ({"A", "G"}, {"C", "T"})

    return {
        "GC lost": np.array([float(gc(score.ref) - gc(score.alt)) for score in scores]),
        "transversion": np.array([float(not transition(score)) for score in scores]),
        "bases changed": np.array([float(max(len(score.ref), len(score.alt))) for score in scores]),
    }


def _row(name: str, truth: npt.NDArray[np.bool_], values: npt.NDArray[np.float64]) -> PredictorRow:
    area, precision = auroc_interval(truth, values), average_precision_interval(truth, values)
    return PredictorRow(
        name,
        (area.value, area.low, area.high),
        (precision.value, precision.low, precision.high),
        name.startswith("model"),
    )
