"""The part of a report on labelled variants: how well scores tell them apart, beside simple predictors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dnasm.baselines.variants import PREDICTORS, Site
from dnasm.errors import InputError
from dnasm.genome import Genome
from dnasm.genome.files import lines, open_bytes
from dnasm.metrics import auroc_interval, average_precision_interval
from dnasm.report.label_plots import plot_calibration, plot_precision, plot_roc
from dnasm.report.page import FigureBlock, LabelBlock, PredictorRow
from dnasm.tasks.contig_names import ContigNames, other_names
from dnasm.tasks.report_inputs import Score, read_json
from dnasm.tasks.score_evaluation import DISTANCES

Key = tuple[str, int, str, str]
Numbers = npt.NDArray[np.float64]

_FEWEST = 5  # of each class
_NONE = ("", ".", "NA", "nan")
_DRAWN = 4
_OURS = "model, "  # what names of the model's own predictors begin with, as `dnasm score --labels` writes them too


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


def label_block(
    table: Mapping[str, Sequence[Score]], labels: Mapping[Key, bool], source: str, genome: Genome | None = None
) -> LabelBlock:
    """Compare what scores and simple predictors make of labelled variants.

    Args:
        table: Method -> scores of the same variants; the first one decides which of them count.
        labels: Which variants are positives.
        source: Where the labels came from.
        genome: For predictors that look at neighbours.

    Raises:
        InputError: If too few variants have both a score and a label.
    """
    first = next(iter(table.values()))
    found = {
        i: label
        for i, score in enumerate(first)
        if np.isfinite(score.value) and (label := _find(score, labels)) is not None
    }
    truth = np.array(list(found.values()), dtype=bool)
    ours = {}
    for method, scores in table.items():
        sign = 1 if method in DISTANCES else -1
        name = f"{_OURS}{'' if sign > 0 else '-'}{method}"
        ours[name] = sign * np.array([scores[i].value for i in found], dtype=np.float64)
    return _block(source, truth, ours | simple_predictors([first[i] for i in found], genome))


def read_evaluation(scores: str) -> LabelBlock | None:
    """Read what `dnasm score --labels` left beside its table; None if it left nothing, or no values.

    Raises:
        InputError: If the file is damaged.
    """
    path = Path(f"{scores}.evaluation.json")
    if not path.is_file():
        return None
    held = read_json(path)
    try:
        columns = {name: np.array(column, dtype=np.float64) for name, column in dict(held.get("values", {})).items()}
        truth = columns.pop("label", np.empty(0)) == 1
        if not truth.size or not columns:
            return None
        return _block(str(held.get("labels", "label")), truth, columns)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: is no evaluation of dnasm score: {error}") from error


def _block(source: str, truth: npt.NDArray[np.bool_], predictors: Mapping[str, Numbers]) -> LabelBlock:
    """Lay out predictors, the model's first; high values speak for a positive."""
    if min(truth.sum(), (~truth).sum()) < _FEWEST:
        raise InputError(
            f"{source}: {int(truth.sum())} positives and {int((~truth).sum())} negatives have a score; "
            f"at least {_FEWEST} of each are needed. Are names of contigs and alleles the same in both files?"
        )
    telling = {name: values for name, values in predictors.items() if _varies(values)}
    whole = {name: values for name, values in telling.items() if np.isfinite(values).all()}
    drawn = dict(list(whole.items())[:_DRAWN])
    figures = []
    main = next(iter(predictors))
    sign = -1 if main.startswith(f"{_OURS}-") else 1
    if main in drawn:
        figures = [
            FigureBlock("ROC", plot_roc(truth, drawn), "Shaded: where 95 % of the model's bootstrap curves lie."),
            FigureBlock(
                "Precision and recall",
                plot_precision(truth, drawn),
                "The faint line is the share of positives: chance.",
            ),
            FigureBlock(
                "Calibration of the score",
                plot_calibration(truth, sign * drawn[main]),
                "Share of positives in each tenth of the scores, with 95 % intervals. A flat line says that the score "
                "tells nothing about the label.",
            ),
        ]
    rows = [_row(name, truth, values) for name, values in telling.items()]
    direction = f"A {'low' if sign < 0 else 'high'} score is taken to speak for a positive."
    return LabelBlock(source, direction, int(truth.sum()), int((~truth).sum()), rows, figures)


def _varies(values: Numbers) -> bool:
    known = values[np.isfinite(values)]
    return bool(known.size) and bool(known.min() < known.max())


def _find(score: Score, labels: Mapping[Key, bool]) -> bool | None:
    for name in (score.chrom, *other_names(score.chrom)):
        label = labels.get((name, score.pos, score.ref.upper(), score.alt.upper()))
        if label is not None:
            return label
    return None


def simple_predictors(scores: Sequence[Score], genome: Genome | None) -> dict[str, Numbers]:
    """Compute what needs no model: high values speak for a positive, nan where a predictor has no opinion.

    Without a genome there are no neighbours, and no CpG that reaches beyond the alleles.
    """
    names = None if genome is None else ContigNames(genome, "report", quiet=True)
    sites = [_site(score, genome, names) for score in scores]
    return {
        name: np.array([sign * function(site) for site in sites], dtype=np.float64)
        for name, (function, sign) in PREDICTORS.items()
    }


def _site(score: Score, genome: Genome | None, names: ContigNames | None) -> Site:
    ref, alt = score.ref.upper(), score.alt.upper()
    contig = None if names is None else names.find(score.chrom)
    if genome is None or contig is None:
        return Site("", ref, alt, "")
    start, end = score.pos - 1, score.pos - 1 + len(ref)
    before, after = (
        genome[contig, max(0, start - 1) : start],
        genome[contig, end : min(end + 1, genome.contigs[contig])],
    )
    return Site(before.upper(), ref, alt, after.upper())


def _row(name: str, truth: npt.NDArray[np.bool_], values: Numbers) -> PredictorRow:
    known = np.isfinite(values)
    area = auroc_interval(truth[known], values[known])
    precision = average_precision_interval(truth[known], values[known])
    return PredictorRow(
        name,
        (area.value, area.low, area.high),
        (precision.value, precision.low, precision.high),
        name.startswith(_OURS),
    )
