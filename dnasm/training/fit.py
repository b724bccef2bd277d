"""Run a pretraining with Lightning's trainer, its talk and its defaults tamed."""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from dnasm.config import TrainerConfig
from dnasm.training.checkpoints import AtomicCheckpointIO, Checkpoints
from dnasm.training.logs import MetricsCsv, RunLog, metric_columns
from dnasm.training.module import Pretraining
from dnasm.training.progress import TrainingProgress
from dnasm.training.result import Fit

_TAMED = (
    "The '.*_dataloader' does not have many workers",  # the windows are read faster than any model learns
    "The `srun` command is available on your system",  # whoever wants SLURM starts us with srun
    "You have overridden `on_before_batch_transfer` in `LightningModule`",  # the masks are the module's
    "GPU available but not used",  # who says --device cpu knows
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # Lightning's, against a newer torch
)


class Finish(Callback):
    """Ends training at the last step or at the time limit, with a validation of what was reached."""

    def __init__(self) -> None:
        self._longest_validation = 0.0
        self._began = 0.0

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert isinstance(module, Pretraining)
        limit = module.schedule.max_seconds
        # The last validation fits in the limit too, as far as the ones before it tell.
        late = limit is not None and module.clock.seconds + self._longest_validation >= limit
        if late or trainer.global_step >= module.schedule.max_steps:
            trainer.should_stop = True

    def on_validation_start(self, trainer: Trainer, module: Any) -> None:
        assert isinstance(module, Pretraining)
        self._began = module.clock.seconds

    def on_validation_end(self, trainer: Trainer, module: Any) -> None:
        assert isinstance(module, Pretraining)
        self._longest_validation = max(self._longest_validation, module.clock.seconds - self._began)


def fit(
    module: Pretraining,
    data: LightningDataModule,
    config: TrainerConfig,
    run: Path,
    *,
    device: torch.device,
    quiet: bool = False,
) -> Fit:
    """Train, and write metrics and checkpoints into the run directory.

    Raises:
        TrainingDiverged: If the gradient is no longer finite.
        KeyboardInterrupt: If the user stopped it.
    """
    keeper = Checkpoints(run, every=config.checkpoint_every, patience=config.patience)
    # Finish comes first: the others see that this step is the last.
    callbacks: list[Callback] = [Finish(), *([] if quiet else [TrainingProgress()]), RunLog(), keeper]
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in _TAMED:
            warnings.filterwarnings("ignore", message)
        trainer = _trainer(config, run, device, callbacks, module)
        try:
            trainer.fit(module, datamodule=data)
        except SystemExit as error:
            if error.code == 1 and trainer.interrupted:  # Lightning's answer to a KeyboardInterrupt
                raise KeyboardInterrupt from error
            raise
    assert keeper.best is not None, "training ends with a validation"
    why = "validation no longer improved" if keeper.overfitted else "all steps done"
    if not keeper.overfitted and trainer.global_step < config.max_steps:
        why = "time is up"
    return Fit(trainer.global_step, module.tokens_seen, module.clock.seconds, keeper.best, keeper.best_step, why)


def _trainer(
    config: TrainerConfig, run: Path, device: torch.device, callbacks: list[Callback], module: Pretraining
) -> Trainer:
    gpu = device.type == "cuda"
    half = config.precision == "bfloat16" or (config.precision == "auto" and gpu)
    return Trainer(
        default_root_dir=run,
        accelerator="gpu" if gpu else "cpu",
        devices=[device.index] if gpu and device.index is not None else config.devices,
        precision="bf16-mixed" if half else "32-true",
        logger=[
            MetricsCsv(run / "metrics.csv", metric_columns(module.genomes)),
            TensorBoardLogger(run, name="tensorboard", version=""),
        ],
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        max_epochs=-1,
        max_steps=config.max_steps,
        accumulate_grad_batches=config.accumulate,
        val_check_interval=config.validate_every * config.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=1,  # nothing goes through Lightning's own logging; this keeps it from warning
        deterministic=config.deterministic,
        use_distributed_sampler=False,  # the data module reads a rank's own batches
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
