"""Before scoring in a narrow dtype: score a few variants in float32 too, and say whether ranks would change."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from dnasm.tasks.progress import counted
from dnasm.tasks.score_table import ScoreTable
from dnasm.tasks.variant_checks import Allele
from dnasm.tasks.variant_scorer import VariantScorer

SAMPLED = 32
"""Alleles that are scored twice."""


@dataclass(frozen=True)
class Drift:
    """How far two sets of scores of the same alleles lie apart."""

    alleles: int
    largest: float
    """Largest difference, in nats."""
    spread: float
    """Standard deviation of the float32 scores, in nats."""
    swapped: float
    """Share of the pairs of alleles whose order differs."""
    of: str = "allele"
    """What was scored, each."""

    def __str__(self) -> str:
        return (
            f"on {counted(self.alleles, self.of)} the scores drift by up to {self.largest:.2g} nats (their spread is "
            f"{self.spread:.2g}), which swaps {self.swapped:.1%} of the pairs"
        )


def measure_drift(exact: VariantScorer, narrow: VariantScorer, alleles: Iterable[Allele]) -> Drift:
    """Score the first alleles with both, and compare."""
    sample = list(islice(alleles, SAMPLED))
    tables = [ScoreTable.concatenate(scorer.score(sample)) for scorer in (exact, narrow)]
    known = tables[0].status == "ok"
    return compare(tables[0].llr[known], tables[1].llr[known])


def compare(exact: npt.NDArray[np.float64], narrow: npt.NDArray[np.float64], of: str = "allele") -> Drift:
    """Compare two columns of scores.

    >>> compare(np.array([0.0, 1.0, 2.0]), np.array([0.0, 2.0, 1.0])).swapped
    0.3333333333333333
    """
    if exact.size < 2:
        return Drift(exact.size, float(np.abs(exact - narrow).max(initial=0.0)), 0.0, 0.0, of)
    first, second = np.triu_indices(exact.size, 1)
    order, kept = np.sign(exact[first] - exact[second]), np.sign(narrow[first] - narrow[second])
    largest = float(np.abs(exact - narrow).max())
    return Drift(exact.size, largest, float(exact.std()), float((order != kept).mean()), of)
