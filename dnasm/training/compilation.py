"""Which steps of a training run compiled: compiling takes tens of seconds for each shape, which many steps repay."""

from dataclasses import dataclass

import torch

from dnasm.config import DataConfig, TrainerConfig
from dnasm.training.length_warmup import LengthWarmup

WORTH_STEPS = 2_000
WORTH_MINUTES = 5.0
"""Training of one length that is shorter than either is not compiled. An H200 takes 12 to 15 seconds, which 1,000 steps
of a model of four layers at 32,768 bases repay, and 15,000 of one of two layers at 1,024."""


@dataclass(frozen=True)
class Compilation:
    """The batches that run compiled; others, a short last one of an epoch and validations, run as they are."""

    tokens: int
    """Tokens in a whole batch."""
    lengths: frozenset[int]
    """Lengths that its windows are cut into."""

    @classmethod
    def of(cls, trainer: TrainerConfig, data: DataConfig, device: torch.device) -> "Compilation":
        """Read the settings: `auto` compiles on a GPU, where torch has its compiler, what is long enough."""
        shares = LengthWarmup.of(trainer, data.window).shares()
        if trainer.compile == "auto":
            able = device.type == "cuda" and torch.utils._triton.has_triton()
            shares = {length: share for length, share in shares.items() if able and _worth(trainer, share)}
        elif not trainer.compile:
            shares = {}
        return cls(data.batch_size * data.window, frozenset(shares))

    def __str__(self) -> str:
        if not self.lengths:
            return "not compiled"
        return f"compiled for {', '.join(f'{length:,}' for length in sorted(self.lengths))} bases"

    def covers(self, tokens: int, length: int) -> bool:
        """Whether a batch of so many tokens, cut into this length, runs compiled."""
        return tokens == self.tokens and length in self.lengths


def _worth(trainer: TrainerConfig, share: float) -> bool:
    minutes = trainer.max_minutes
    return share * trainer.max_steps >= WORTH_STEPS and (minutes is None or share * minutes >= WORTH_MINUTES)
