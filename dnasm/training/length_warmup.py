"""Short windows first: a window doubles from stage to stage, at the same number of tokens a step.

Source: HyenaDNA, section 3.3, the sequence length warm-up.
"""

from dataclasses import dataclass

from dnasm.config import TrainerConfig
from dnasm.errors import ConfigError


@dataclass(frozen=True)
class LengthWarmup:
    """Which length is trained on as training goes on."""

    first: int
    window: int
    share: float
    """Share of training in which the window is not yet whole; its stages are equally long."""

    @classmethod
    def of(cls, trainer: TrainerConfig, window: int) -> "LengthWarmup":
        """Read the settings; without a first length every step has whole windows.

        Raises:
            ConfigError: If doubling the first length does not lead to the window, or the share is none.
        """
        first = window if trainer.length_warmup is None else trainer.length_warmup
        if first < 2 or window % first or (window // first).bit_count() != 1:
            raise ConfigError(
                f"trainer.length_warmup is {first}; doubled some times it must give data.window, which is {window}"
            )
        if not 0 < trainer.length_warmup_share <= 1:
            raise ConfigError(f"trainer.length_warmup_share is {trainer.length_warmup_share}; it is above 0, at most 1")
        return cls(first, window, trainer.length_warmup_share)

    def length(self, progress: float) -> int:
        """Length of the pieces that windows are cut into when a share `progress` of training is done."""
        stages = (self.window // self.first).bit_length() - 1
        done = int(progress / self.share * stages)
        return min(self.window, self.first << min(done, stages))

    def shares(self) -> dict[int, float]:
        """Share of training that each length has."""
        stages = (self.window // self.first).bit_length() - 1
        short = {self.first << i: self.share / stages for i in range(stages)}
        return short | {self.window: 1 - self.share if stages else 1.0}
