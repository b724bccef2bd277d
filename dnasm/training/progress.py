"""Tell on standard error how training goes: a bar on a terminal, lines elsewhere."""

import math
import sys
import time
from typing import Any

from lightning.pytorch import Callback, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from dnasm.training.loss import RunningMean
from dnasm.training.module import Pretraining

_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_BETWEEN_FRAMES = 0.5


class TrainingProgress(Callback):
    """Steps, tokens a second, bits per base of training (since the last line) and of the last validation, time left."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._told = time.monotonic()
        self._recent = RunningMean()
        self._training = math.nan
        self._validation = math.nan

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        if trainer.is_global_zero and sys.stderr.isatty():
            columns = (TextColumn("pretrain"), BarColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.start()
            self._bar.add_task("", total=1.0)

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert isinstance(module, Pretraining)
        self._recent.add(outputs["loss"] * trainer.accumulate_grad_batches)  # Lightning divided it for the sum
        pause = _SECONDS_BETWEEN_LINES if self._bar is None else _SECONDS_BETWEEN_FRAMES
        if time.monotonic() - self._told >= pause:
            self._tell(trainer, module)

    def on_validation_end(self, trainer: Trainer, module: Any) -> None:
        assert isinstance(module, Pretraining)
        if module.validation is not None and not trainer.sanity_checking:
            self._validation = module.validation.bits_per_base
            self._tell(trainer, module)

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, module: Any, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _tell(self, trainer: Trainer, module: Pretraining) -> None:
        self._told = time.monotonic()
        if (recent := self._recent.take()) is not None:
            self._training = recent.item() / math.log(2)
        if self._bar is not None:
            done = module.schedule.progress(trainer.global_step, module.clock.seconds)
            self._bar.update(self._bar.task_ids[0], completed=done, description=self._status(trainer, module))
        elif trainer.is_global_zero:
            print(self._status(trainer, module), file=sys.stderr, flush=True)

    def _status(self, trainer: Trainer, module: Pretraining) -> str:
        seconds = max(module.clock.seconds, 1e-9)
        done = module.schedule.progress(trainer.global_step, seconds)
        left = int(seconds * (1 - done) / max(done, 1e-9))
        return (
            f"step {trainer.global_step:,}, {module.tokens_seen / seconds:,.0f} tokens/s, "
            f"bits per base {self._training:.4f} training, {self._validation:.4f} validation, "
            f"{left // 60}:{left % 60:02d} left"
        ).replace("nan", "-")
