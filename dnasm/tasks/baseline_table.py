"""Markov models beside the trained one: fitted on each genome's training bases, scored on the validation's targets."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from dnasm.baselines.markov import MarkovModel, score_orders
from dnasm.datasets.corpus import Corpus
from dnasm.training.result import ValidationResult

ALL = "all"
"""Name of the column over all genomes."""


@dataclass(frozen=True)
class BaselineRow:
    """One order on one genome's targets."""

    genome: str
    order: int
    strands: str
    """`one` or `both`: whether the counts hold the reverse strand too."""
    bits_per_base: float
    targets: int
    weight: float
    """Sum of the targets' weights."""
    counted: int
    """Bases that were counted, on both strands if both were."""

    @property
    def name(self) -> str:
        return f"order {self.order}, {'both strands' if self.strands == 'both' else 'one strand'}"


def markov_rows(corpus: Corpus, genomes: Sequence[str], max_order: int) -> list[BaselineRow]:
    """Fit and score Markov models of order 0 to `max_order` on one strand and on both.

    Each genome has models of its own, which is the stronger baseline; the rows named `all` join their scores.

    Args:
        corpus: The genomes, with the validation's targets.
        genomes: Their names.
        max_order: Longest context; below 0 for no baselines.
    """
    if max_order < 0:
        return []
    rows: list[BaselineRow] = []
    for number, name in enumerate(genomes):
        if number not in corpus.validation.genome:
            continue
        for strands in ("one", "both"):
            pieces = corpus.training_pieces(max_order, number)
            model = MarkovModel.fit(pieces, max_order, both_strands=strands == "both")
            scores = score_orders(model, corpus.target_pieces(max_order, number))
            rows += [
                BaselineRow(name, order, strands, bits, scores.num_targets, scores.total_weight, scores.num_counted)
                for order, bits in enumerate(scores.bits_per_base)
            ]
    return [*_joined(rows), *rows]


def _joined(rows: list[BaselineRow]) -> list[BaselineRow]:
    joined = []
    for order, strands in dict.fromkeys((row.order, row.strands) for row in rows):
        same = [row for row in rows if (row.order, row.strands) == (order, strands)]
        weight = sum(row.weight for row in same)
        bits = sum(row.bits_per_base * row.weight for row in same) / weight
        targets, counted = sum(row.targets for row in same), sum(row.counted for row in same)
        joined.append(BaselineRow(ALL, order, strands, bits, targets, weight, counted))
    return joined


def best_baseline(rows: Sequence[BaselineRow]) -> BaselineRow:
    """Find the strongest baseline over all targets."""
    return min((row for row in rows if row.genome == ALL), key=lambda row: row.bits_per_base)


def baselines_json(rows: Sequence[BaselineRow], genomes: Sequence[str], best: ValidationResult, step: int) -> str:
    """Write `baselines.json`: `markov` has a row for each genome, order and strands, `model` one for each genome."""
    names = [ALL, *genomes]
    bits, targets = [best.bits_per_base, *best.genome_bits_per_base], [best.targets, *best.genome_targets]
    model = [
        {"genome": name, "step": step, "bits_per_base": None if math.isnan(b) else b, "targets": n}
        for name, b, n in zip(names, bits, targets, strict=True)
    ]
    return json.dumps({"model": model, "markov": [vars(row) for row in rows]}, indent=2) + "\n"


def comparison_text(rows: Sequence[BaselineRow], genomes: Sequence[str], best: ValidationResult, step: int) -> str:
    """Lay out the comparison for a terminal: an order a line, a column for all targets and for each genome."""
    shown = [ALL, *genomes] if len(genomes) > 1 else [ALL]
    title = {ALL: "all targets" if len(genomes) > 1 else genomes[0]}
    bits = dict(zip([ALL, *genomes], [best.bits_per_base, *best.genome_bits_per_base], strict=True))
    targets = dict(zip([ALL, *genomes], [best.targets, *best.genome_targets], strict=True))
    value = {(row.genome, row.order, row.strands): row.bits_per_base for row in rows}

    def line(label: str, cells: Sequence[str]) -> str:
        return f"{label:<28}" + "".join(f"{cell:>22}" for cell in cells)

    lines = [line("validation, bits per base", [title.get(name, name)[-20:] for name in shown])]
    lines.append(line("targets", [f"{targets[name]:,}" for name in shown]))
    if rows:
        lines.append(line("Markov model", ["one / both strands" for _ in shown]))
    for order in sorted({row.order for row in rows}):
        pairs = [[value.get((name, order, strands), math.nan) for strands in ("one", "both")] for name in shown]
        lines.append(line(f"  order {order}", [f"{one:.4f} / {both:.4f}" for one, both in pairs]))
    lines.append(line(f"this model, step {step:,}", [f"{bits[name]:.4f}" for name in shown]))
    return "\n".join(lines)
