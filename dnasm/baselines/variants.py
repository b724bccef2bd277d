"""Simple predictors of what a variant does, to stand beside a model: none of them learns from labels."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dnasm import vocabulary
from dnasm.baselines.markov import MarkovModel

_TRANSITIONS = frozenset(("AG", "GA", "CT", "TC"))


@dataclass(frozen=True, slots=True)
class Site:
    """An allele and the bases around it, upper case, forward strand."""

    before: str
    ref: str
    alt: str
    after: str


def gc_change(site: Site) -> float:
    """Count how many G and C the allele adds.

    >>> gc_change(Site("A", "T", "G", "A"))
    1.0
    """
    return float(sum(site.alt.count(base) - site.ref.count(base) for base in "GC"))


def cpg_change(site: Site) -> float:
    """Count how many CG the allele adds, with the bases on both sides.

    >>> cpg_change(Site("AC", "G", "A", "T"))
    -1.0
    """
    first, last = site.before[-1:], site.after[:1]
    return float((first + site.alt + last).count("CG") - (first + site.ref + last).count("CG"))


def transversion(site: Site) -> float:
    """Tell a transversion (1) from a transition (0); nan for what is no single substitution.

    >>> transversion(Site("", "A", "G", "")), transversion(Site("", "A", "C", ""))
    (0.0, 1.0)
    """
    if len(site.ref) != 1 or len(site.alt) != 1:
        return math.nan
    return float(site.ref + site.alt not in _TRANSITIONS)


def kmer_log_ratio(model: MarkovModel) -> Callable[[Site], float]:
    """Return the log-ratio of ALT to REF under a Markov model, in nats, as a predictor.

    Counted are the allele and as many bases after it as the model looks back.
    """
    order = model.order

    def score(site: Site, allele: str) -> float:
        before = site.before[len(site.before) - min(order, len(site.before)) :]
        tokens = vocabulary.encode(before + allele + site.after[:order])
        return float(np.nansum(model.log_probs(tokens, len(before))[order]))

    return lambda site: score(site, site.alt) - score(site, site.ref)


# Name -> predictor, and the sign with which a higher value speaks for harm. The signs were fixed before any label was
# seen: harm is what adds no G or C, breaks a CG, is a transversion. An AUROC below 0.5 says that they are wrong there.
PREDICTORS: dict[str, tuple[Callable[[Site], float], int]] = {
    "GC change": (gc_change, -1),
    "CpG change": (cpg_change, -1),
    "transversion": (transversion, 1),
}
