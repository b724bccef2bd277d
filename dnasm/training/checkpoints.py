"""Checkpoints of a run: the best by validation, and the last."""

import os
import uuid
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, Trainer

from dnasm.training.logs import write_position_loss
from dnasm.training.module import Pretraining
from dnasm.training.result import ValidationResult


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, syncs it to disk and renames it.

    Lightning's own stages it in the system's temporary folder, which may be small or on another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        try:
            with draft.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)


class Checkpoints(Callback):
    """Keeps `best.ckpt` and `last.ckpt`, and ends training when validation no longer improves."""

    def __init__(self, run: Path, *, every: int, patience: int | None) -> None:
        """Take the settings.

        Args:
            run: Run directory.
            every: Steps between saves of the last checkpoint.
            patience: Validations in a row without an improvement that end training; None: never.
        """
        self.best: ValidationResult | None = None
        self.best_step = 0
        self.overfitted = False
        self._run, self._every, self._patience = run, every, patience
        self._worse = 0
        self._saved_at = 0

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if step and step % self._every == 0 and step != self._saved_at:
            self._save_last(trainer)

    def on_validation_end(self, trainer: Trainer, module: Any) -> None:
        assert isinstance(module, Pretraining)
        if trainer.sanity_checking or module.validation is None:
            return
        if self.best is None or module.validation.nats < self.best.nats:
            self.best, self.best_step, self._worse = module.validation, trainer.global_step, 0
            trainer.save_checkpoint(self._run / "checkpoints/best.ckpt")
            if trainer.is_global_zero:
                write_position_loss(self._run / "position_loss.csv", self.best)
            return
        self._worse += 1
        if self._patience is not None and self._worse >= self._patience:
            self.overfitted = trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        self._save_last(trainer)

    def _save_last(self, trainer: Trainer) -> None:
        self._saved_at = trainer.global_step
        trainer.save_checkpoint(self._run / "checkpoints/last.ckpt")
