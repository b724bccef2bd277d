"""The learning rate as training goes on, and when training ends: by steps, or by the clock."""

import math
import time
from dataclasses import dataclass

from dnasm.config import OptimConfig, TrainerConfig
from dnasm.errors import ConfigError

_WARMUP_SHARE = 0.01


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up times a cosine from the peak to `min_lr_ratio` of it.

    The cosine follows the progress p of training, from 0 to 1. By steps, p = step / max_steps. With `max_minutes` it is
    the larger of that and elapsed / max_minutes, so that the rate reaches its minimum whichever limit ends training;
    such a run follows the machine's speed, and its losses do not repeat. Elapsed time counts everything from the first
    batch on, validations too.

    The warm-up rises over `warmup_steps` steps; where that is null, over the first 1 % of p.
    """

    max_steps: int
    max_seconds: float | None
    warmup_steps: int | None
    min_lr_ratio: float

    @classmethod
    def of(cls, optim: OptimConfig, trainer: TrainerConfig) -> "Schedule":
        """Read the settings.

        Raises:
            ConfigError: If one is out of range.
        """
        if trainer.max_steps < 1:
            raise ConfigError(f"trainer.max_steps is {trainer.max_steps}; at least 1 step is needed")
        if trainer.max_minutes is not None and not trainer.max_minutes > 0:
            raise ConfigError(f"trainer.max_minutes is {trainer.max_minutes}; it must be above 0, or null for no limit")
        if optim.warmup_steps is not None and optim.warmup_steps < 0:
            raise ConfigError(f"optim.warmup_steps is {optim.warmup_steps}; it is at least 0")
        if not 0 <= optim.min_lr_ratio <= 1:
            raise ConfigError(f"optim.min_lr_ratio is {optim.min_lr_ratio}; it is a share from 0 to 1")
        seconds = None if trainer.max_minutes is None else 60 * trainer.max_minutes
        return cls(trainer.max_steps, seconds, optim.warmup_steps, optim.min_lr_ratio)

    def progress(self, step: int, seconds: float) -> float:
        """Share of training that is done, 0 to 1, after `step` steps and `seconds`."""
        by_time = 0.0 if self.max_seconds is None else seconds / self.max_seconds
        return min(1.0, max(step / self.max_steps, by_time))

    def factor(self, step: int, seconds: float) -> float:
        """Share of the peak rate for the step that follows `step` done ones."""
        p = self.progress(step, seconds)
        cosine = self.min_lr_ratio + (1 - self.min_lr_ratio) * (1 + math.cos(math.pi * p)) / 2
        return self._warmup(step, p) * cosine

    def _warmup(self, step: int, p: float) -> float:
        if self.warmup_steps is not None:
            return min(1.0, (step + 1) / max(1, self.warmup_steps))
        # The step that follows is counted in, so that the first one is not taken at rate 0.
        return min(1.0, max(p, (step + 1) / self.max_steps) / _WARMUP_SHARE)


class Stopwatch:
    """Seconds since training began."""

    def __init__(self) -> None:
        self._begun: float | None = None

    def start(self) -> None:
        """Begin to count; a second call changes nothing."""
        if self._begun is None:
            self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        return 0.0 if self._begun is None else time.monotonic() - self._begun
