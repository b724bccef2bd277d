"""Scores beside labels: AUROC and average precision of the model and of simple predictors, with intervals."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dnasm.baselines.consequences import CONSEQUENCES, Consequences
from dnasm.baselines.markov import MarkovModel
from dnasm.baselines.variants import PREDICTORS, Site, kmer_log_ratio
from dnasm.errors import InputError
from dnasm.genome import Genome
from dnasm.genome.gff import read_gff
from dnasm.metrics import auroc_interval, average_precision_interval
from dnasm.tasks.contig_names import ContigNames
from dnasm.tasks.run_record import write_text
from dnasm.tasks.score_table import ScoreTable

Numbers = npt.NDArray[np.float64]

DISTANCES = ("next_base_divergence", "embedding_distance")
"""Methods whose values have no sign; of the others a low value speaks for harm."""
_MARKOV_ORDER = 8
_MARKOV_BASES = 1 << 25  # more of a genome tells a model of this order little
_KEPT_VALUES = 200_000  # labelled rows up to which the values themselves are kept, for plots


@dataclass(frozen=True)
class PredictorRow:
    """How well one predictor tells labelled variants apart; the higher its value, the likelier label 1."""

    name: str
    auroc: float
    auroc_low: float
    auroc_high: float
    auprc: float
    """Average precision; chance is the share of positives."""
    auprc_low: float
    auprc_high: float
    positives: int
    negatives: int
    """Rows of each label that this predictor has a value for."""


@dataclass(frozen=True)
class Evaluation:
    """A model beside simple predictors, on the same labels."""

    labels: str
    """Where the labels came from."""
    rows: list[PredictorRow]
    """The model first."""
    values: dict[str, list[float | None]]
    """`label` and each predictor's values, row by row; empty where there are too many."""

    def text(self) -> str:
        """Lay it out for a terminal."""
        titles = ("AUROC (95 % interval)", "AUPRC (95 % interval)", "positive / negative")
        lines = [f"{self.labels:<28}{titles[0]:>26}{titles[1]:>26}{titles[2]:>22}"]
        for row in self.rows:
            first = f"{row.auroc:.3f} ({row.auroc_low:.3f}-{row.auroc_high:.3f})"
            second = f"{row.auprc:.3f} ({row.auprc_low:.3f}-{row.auprc_high:.3f})"
            lines.append(f"{row.name:<28}{first:>26}{second:>26}{f'{row.positives:,} / {row.negatives:,}':>22}")
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write it as JSON: `labels`, `rows` and `values`; what is not a number is null."""
        rows = [{key: _finite(value) for key, value in asdict(row).items()} for row in self.rows]
        write_text(path, json.dumps({"labels": self.labels, "rows": rows, "values": self.values}, indent=1) + "\n")


def evaluate_scores(
    table: ScoreTable, labels: npt.ArrayLike, genome: Genome, *, gff: str | None = None, source: str = "label"
) -> Evaluation:
    """Compare a model's scores and simple predictors with labels.

    Args:
        table: Scores; `-llr` is taken, since a rare or harmful allele is the less likely one; distances as they are.
        labels: 1 for what should score low (harmful, rare), 0 for the rest, nan where unknown; one for each row.
        genome: What was scored.
        gff: Annotation of its genes, for the consequence; contigs as the genome names them.
        source: What the labels are, for the table.

    Raises:
        InputError: If no scored row of one of the classes has a label.
    """
    marks = np.asarray(labels, dtype=np.float64)
    used = np.isfinite(table.llr) & np.isfinite(marks)
    truth = marks[used].astype(np.int64)
    if len(set(truth.tolist())) < 2:
        raise InputError(
            f"{source}: of {len(marks):,} rows {int(used.sum()):,} have a score and a label, {int(truth.sum()):,} of "
            "them positive; both classes are needed"
        )
    sign = 1 if table.method in DISTANCES else -1
    name = f"model, {'' if sign > 0 else '-'}{table.method}"
    predictors = {name: sign * table.llr[used], **_simple(table, np.flatnonzero(used), genome, gff)}
    rows = [_judge(name, truth, values) for name, values in predictors.items()]
    kept: dict[str, list[float | None]] = {}
    if len(truth) <= _KEPT_VALUES:
        columns = {"label": truth, **predictors}
        kept = {name: [float(x) if np.isfinite(x) else None for x in v.tolist()] for name, v in columns.items()}
    return Evaluation(source, rows, kept)


def _judge(name: str, truth: npt.NDArray[np.int64], values: Numbers) -> PredictorRow:
    known = np.isfinite(values)
    first, second = (f(truth[known], values[known]) for f in (auroc_interval, average_precision_interval))
    return PredictorRow(
        name, first.value, first.low, first.high, second.value, second.low, second.high,
        first.num_positive, first.num_negative,
    )  # fmt: skip


def _simple(table: ScoreTable, rows: npt.NDArray[np.int64], genome: Genome, gff: str | None) -> dict[str, Numbers]:
    """Compute the simple predictors, each so that the higher value speaks for harm."""
    names = ContigNames(genome, "score", quiet=True)
    places = [(names.find(str(table.chrom[i])) or "", int(table.pos[i]) - 1) for i in rows]
    alleles = [(str(table.ref[i]).upper(), str(table.alt[i]).upper()) for i in rows]
    markov = _fit(genome, list(dict.fromkeys(contig for contig, _ in places)))
    functions: dict[str, tuple[Callable[[Site], float], int]] = {
        **PREDICTORS,
        f"Markov log-ratio, order {markov.order}": (kmer_log_ratio(markov), -1),
    }
    sites = [_site(genome, *place, *allele) for place, allele in zip(places, alleles, strict=True)]
    found = {name: np.array([sign * function(site) for site in sites]) for name, (function, sign) in functions.items()}
    if gff is not None:
        genes = Consequences(read_gff(gff), lambda contig, start, end: genome[contig, start:end].upper())
        worst = [genes.worst(*place, *allele) for place, allele in zip(places, alleles, strict=True)]
        found["consequence"] = np.array([float(CONSEQUENCES.index(name)) for name in worst])
    return found


def _fit(genome: Genome, contigs: Sequence[str]) -> MarkovModel:
    pieces, left = [], _MARKOV_BASES
    for contig in contigs:
        size = min(left, genome.contigs[contig])
        if size:
            pieces.append(genome.tokens(contig, 0, size))
        left -= size
    return MarkovModel.fit(pieces, _MARKOV_ORDER, both_strands=True)


def _site(genome: Genome, contig: str, start: int, ref: str, alt: str) -> Site:
    end, length = start + len(ref), genome.contigs[contig]
    before = genome[contig, max(0, start - _MARKOV_ORDER) : start]
    after = genome[contig, end : min(length, end + _MARKOV_ORDER)]
    return Site(before.upper(), ref, alt, after.upper())


def parse_label(text: str, positive: Sequence[str]) -> float:
    """Read a label: 1 if it is one of the positive ones, 0 for every other, nan if it is missing.

    >>> [parse_label(text, ["LOF"]) for text in ("LOF", "FUNC", ".")]
    [1.0, 0.0, nan]
    """
    word = text.strip()
    return math.nan if word in ("", ".", "NA", "nan") else float(word in positive)


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
