"""How the steps of a training run: compiled, where that repays the tens of seconds it takes, and as one CUDA graph."""

from dataclasses import dataclass

import torch

from dnasm.config import DataConfig, ModelConfig, TrainerConfig
from dnasm.errors import ConfigError
from dnasm.models.graphed import WORTH_TOKENS
from dnasm.training.length_warmup import LengthWarmup

WORTH_STEPS = 2_000
WORTH_MINUTES = 5.0
"""Training of one length that is shorter than either is not compiled. An H200 takes 12 to 15 seconds, which 1,000 steps
of a model of four layers at 32,768 bases repay, and 15,000 of one of two layers at 1,024."""


@dataclass(frozen=True)
class Compilation:
    """How whole batches run; others, a short last one of an epoch and validations, run as they are."""

    tokens: int
    """Tokens in a whole batch."""
    lengths: frozenset[int]
    """Lengths into which its windows are cut that are compiled."""
    graphed: bool
    """Whether a batch's forward and backward are launched as one CUDA graph."""

    @classmethod
    def of(cls, trainer: TrainerConfig, data: DataConfig, model: ModelConfig, device: torch.device) -> "Compilation":
        """Read the settings: `auto` compiles on a GPU, where torch has its compiler, what is long enough.

        Raises:
            ConfigError: If a CUDA graph is asked for where there can be none.
        """
        shares = LengthWarmup.of(trainer, data.window).shares()
        if trainer.compile == "auto":
            able = device.type == "cuda" and torch.utils._triton.has_triton()
            shares = {length: share for length, share in shares.items() if able and _worth(trainer, share)}
        elif not trainer.compile:
            shares = {}
        tokens = data.batch_size * data.window
        return cls(tokens, frozenset(shares), _graphed(trainer, tokens * model.d_model * model.num_layers, device))

    def __str__(self) -> str:
        lengths = ", ".join(f"{length:,}" for length in sorted(self.lengths))
        return (f"compiled for {lengths} bases" if lengths else "not compiled") + ", one CUDA graph" * self.graphed

    def covers(self, tokens: int, length: int) -> bool:
        """Whether a batch of so many tokens, cut into this length, runs compiled."""
        return tokens == self.tokens and length in self.lengths

    def records(self, tokens: int) -> bool:
        """Whether a batch of so many tokens runs as one CUDA graph."""
        return self.graphed and tokens == self.tokens


def _worth(trainer: TrainerConfig, share: float) -> bool:
    minutes = trainer.max_minutes
    return share * trainer.max_steps >= WORTH_STEPS and (minutes is None or share * minutes >= WORTH_MINUTES)


def _graphed(trainer: TrainerConfig, work: int, device: torch.device) -> bool:
    if trainer.cuda_graph is False:
        return False
    # Activations computed again draw their dropout from a generator that a recording cannot put back.
    able = device.type == "cuda" and trainer.devices == 1 and not trainer.checkpoint_activations
    if trainer.cuda_graph is True and not able:
        raise ConfigError(
            f"trainer.cuda_graph true, on device {device} with trainer.devices {trainer.devices} and "
            f"trainer.checkpoint_activations {str(trainer.checkpoint_activations).lower()}: a CUDA graph wants one GPU "
            "and activations kept; set it auto or false"
        )
    return able and (trainer.cuda_graph is True or work <= WORTH_TOKENS)
