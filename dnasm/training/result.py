"""What a validation and a training come to."""

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ValidationResult:
    """Likelihood of the held-out targets, renormalised over A, C, G, T."""

    nats: float
    """Mean over all scored targets, all genomes."""
    targets: int
    """Targets that counted."""
    genome_nats: list[float]
    """The same for each genome; nan for one without held-out targets."""
    genome_targets: list[int]
    positions: list[tuple[int, int, int, float]] = field(repr=False, default_factory=list)
    """Rows (start, end, targets, nats): targets at index start to end (end excluded) of their windows."""

    @property
    def bits_per_base(self) -> float:
        return self.nats / math.log(2)

    @property
    def genome_bits_per_base(self) -> list[float]:
        return [nats / math.log(2) for nats in self.genome_nats]


@dataclass(frozen=True)
class Fit:
    """How a training ended."""

    steps: int
    tokens: int
    seconds: float
    best: ValidationResult
    best_step: int
    why: str
    """What ended it."""
