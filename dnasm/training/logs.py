"""What a run writes as it goes: `metrics.csv`, TensorBoard, and `position_loss.csv`."""

import csv
import math
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from dnasm.training.module import Pretraining
from dnasm.training.result import ValidationResult

LOG_EVERY = 10
"""Steps between rows of training metrics; each is a mean over these steps."""


class MetricsCsv(Logger):
    """`metrics.csv`: fixed columns, appended row by row, so that it can be followed while it grows."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        super().__init__()
        self._path, self._columns = path, columns
        if not path.exists():
            self._append(columns)

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Write nothing: `config.yaml` holds them."""

    def log_metrics(self, metrics: Mapping[str, float | int], step: int | None = None) -> None:
        row = {**metrics, "step": step}
        self._append([_text(row.get(column)) for column in self._columns])

    def _append(self, cells: list[str]) -> None:
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow(cells)


def _text(value: float | int | None) -> str:
    """All digits of a float, so that two runs can be compared to the last; nothing for a value that is not there."""
    return "" if value is None else repr(value)


def metric_columns(genomes: list[str]) -> list[str]:
    """Columns of `metrics.csv`: training rows fill some of them, validation rows others."""
    columns = ["step", "epoch", "seconds", "tokens", "lr", "grad_norm", "train_nats", "train_bits_per_base"]
    return [*columns, "val_nats", "val_bits_per_base", *genome_columns(genomes)]


def genome_columns(genomes: list[str]) -> list[str]:
    """Columns with the validation of each genome, where there are several."""
    return [f"val_bits_per_base/{genome}" for genome in genomes] if len(genomes) > 1 else []


class RunLog(Callback):
    """Sends training metrics to the loggers every few steps, and validation metrics when there are any.

    Those of a step are sent when the next one is on its way, so that a GPU need not wait for them.
    """

    def __init__(self) -> None:
        self._due: Callable[[], None] | None = None

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert isinstance(module, Pretraining)
        self._send_due()
        accumulating = (batch_idx + 1) % trainer.accumulate_grad_batches
        if accumulating or (trainer.global_step % LOG_EVERY and not trainer.should_stop):
            return
        self._due = self._training(trainer, module)

    def _training(self, trainer: Trainer, module: Pretraining) -> Callable[[], None]:
        """Note what is to be said of this step; its numbers arrive later."""
        common, step, rate = self._common(trainer, module), trainer.global_step, module.rate
        loss, norm = module.train_nats.take(), module.grad_norm
        assert loss is not None, "a step has a loss"
        assert norm is not None, "a step has a gradient"

        def send() -> None:
            nats = loss.item()
            row = {"lr": rate, "grad_norm": norm.item(), "train_nats": nats, "train_bits_per_base": nats / math.log(2)}
            _send(trainer, common | row, step)

        return send

    def _send_due(self) -> None:
        if self._due is not None:
            self._due()
            self._due = None

    def on_validation_start(self, trainer: Trainer, module: Any) -> None:
        self._send_due()

    def on_exception(self, trainer: Trainer, module: Any, exception: BaseException) -> None:
        self._send_due()

    def on_validation_end(self, trainer: Trainer, module: Any) -> None:
        assert isinstance(module, Pretraining)
        if trainer.sanity_checking or module.validation is None:
            return
        result = module.validation
        by_genome = zip(genome_columns(module.genomes), result.genome_bits_per_base, strict=False)
        row = {"val_nats": result.nats, "val_bits_per_base": result.bits_per_base, **dict(by_genome)}
        _send(trainer, self._common(trainer, module) | row, trainer.global_step)

    def _common(self, trainer: Trainer, module: Pretraining) -> dict[str, float | int]:
        return {
            "epoch": trainer.current_epoch,
            "seconds": round(module.clock.seconds, 3),
            "tokens": module.tokens_seen,
        }


def _send(trainer: Trainer, metrics: dict[str, float | int], step: int) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step)


def write_position_loss(path: Path, result: ValidationResult) -> None:
    """Write the validation loss by the target's place in its window (0-based, end excluded)."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["start", "end", "targets", "nats", "bits_per_base"])
        for start, end, targets, nats in result.positions:
            table.writerow([start, end, targets, repr(nats), repr(nats / math.log(2))])
