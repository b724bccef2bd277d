"""Pretraining as a Lightning module: model, loss, optimizer, learning rate, validation."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from dnasm.config import OptimConfig
from dnasm.errors import TrainingDiverged
from dnasm.models.backbone import LanguageModel
from dnasm.models.compiled import compile_parts
from dnasm.models.graphed import GraphedLoss
from dnasm.training import CHECKPOINT_SCHEMA
from dnasm.training.arrival import Arrival
from dnasm.training.compilation import Compilation
from dnasm.training.length_warmup import LengthWarmup
from dnasm.training.loss import RunningMean, ValidationTally, next_base_loss
from dnasm.training.masking import mask_batch
from dnasm.training.optim import build_optimizer
from dnasm.training.result import ValidationResult
from dnasm.training.schedule import Schedule, Stopwatch


class Pretraining(LightningModule):
    """Prediction of the next base, or of masked ones where the model sees both sides.

    Loggers, checkpoints and progress are callbacks'; they read the attributes below.
    """

    def __init__(
        self,
        model: LanguageModel,
        optim: OptimConfig,
        schedule: Schedule,
        *,
        genomes: Sequence[str],
        window: int,
        provenance: Mapping[str, Any],
        seed: int = 0,
        lengths: LengthWarmup | None = None,
        compilation: Compilation | None = None,
    ) -> None:
        """Take what training needs.

        Args:
            model: The model, with fresh or loaded weights.
            optim: Optimizer settings.
            schedule: Learning rate and end of training.
            genomes: Names of the genomes, in the order of the batches' genome numbers.
            window: Tokens in a window.
            provenance: What checkpoints say of their origin; plain JSON values.
            seed: Seed of the masks.
            lengths: Lengths that windows are cut into as training goes on; None: whole windows.
            compilation: How whole batches run; None: as they are.
        """
        super().__init__()
        self.model = model
        self.optim, self.schedule = optim, schedule
        self.genomes, self.window = list(genomes), window
        self.provenance = dict(provenance)
        self.seed, self.lengths = seed, lengths
        self.compilation = compilation
        self._compiled = compilation is not None and bool(compilation.lengths)
        self._loss: Callable[[Tensor, Tensor, Tensor], Tensor] = next_base_loss
        self._covered = True
        if self._compiled:
            self._loss = compile_parts(model.backbone.layers, model.backbone.ln_f, next_base_loss)
        self._graphed = GraphedLoss(self._model_loss, model.parameters())
        self.clock = Stopwatch()
        self.train_nats = RunningMean()
        self.tokens_seen = 0
        self.rate = math.nan
        self.grad_norm: Arrival | None = None
        self._unchecked: int | None = None
        self._weights: list[nn.Parameter] = []
        self.validation: ValidationResult | None = None
        self._tally: ValidationTally | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self._weights = list(self.model.parameters())  # to look for them at each step takes a while
        return build_optimizer(self.model, self.optim)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.clock.start()

    def on_before_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Hide bases on the host, which to read them back would wait for a GPU; leave out what no step reads."""
        if not self.model.config.causal:
            shown, weights = mask_batch(batch, self.seed)
            batch = batch | {"shown": shown, "weights": weights}
        if self.trainer.training:
            return {name: batch[name] for name in ("tokens", "shown", "weights") if name in batch}
        return batch

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        length = self.window
        if self.lengths is not None:
            length = self.lengths.length(self.schedule.progress(self.global_step, self.clock.seconds))
        tokens, how = batch["tokens"].numel(), self.compilation
        self._covered = not self._compiled or (how is not None and how.covers(tokens, length))
        loss_of = self._graphed if how is not None and how.records(tokens) else self._model_loss
        with self._compiler(used=self._covered):
            loss = loss_of(*_cut(batch, length))
        self.train_nats.add(loss)
        self.tokens_seen += batch["tokens"].numel() * self.trainer.world_size
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Take gradients; blocks that run again for theirs run as they ran."""
        with self._compiler(used=self._covered):
            super().backward(loss, *args, **kwargs)

    def _compiler(self, *, used: bool) -> AbstractContextManager[Any]:
        return nullcontext() if used else torch.compiler.set_stance("force_eager")

    def _predict(self, shown: Tensor) -> Tensor:
        """Return logits, of which `[:, i]` are for token i + 1; the first token is no target, as everywhere."""
        logits: Tensor = self.model(shown)
        return logits if self.model.config.causal else logits.roll(-1, 1)

    def _model_loss(self, shown: Tensor, tokens: Tensor, weights: Tensor) -> Tensor:
        return self._loss(self._predict(shown), tokens, weights)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient to `optim.clip_norm` and set the step's learning rate: the last thing before the step.

        A GPU skips a step whose gradient is not finite by itself, so that the host hears of it one step later and never
        waits.

        Raises:
            TrainingDiverged: If the gradient is not finite.
        """
        norm = torch.nn.utils.clip_grad_norm_(self._weights, self.optim.clip_norm)
        self.check_gradient()
        factor = self.schedule.factor(self.global_step, self.clock.seconds)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.rate = self.optim.lr * factor
        self.grad_norm, self._unchecked = Arrival(norm), self.global_step + 1
        if norm.is_cuda:
            inner: Any = getattr(optimizer, "optimizer", optimizer)
            inner.found_inf = (~norm.isfinite()).float()  # what AMP's scaler sets: AdamW leaves the step out
        else:
            self.check_gradient()

    def check_gradient(self) -> None:
        """Wait for the norm of the last gradient.

        Raises:
            TrainingDiverged: If it is not finite.
        """
        if self._unchecked is None or self.grad_norm is None:
            return
        step, self._unchecked = self._unchecked, None
        norm = self.grad_norm.item()
        if not math.isfinite(norm):
            raise TrainingDiverged(
                f"the gradient is {norm} at step {step}, learning rate {self.rate:.3g}; "
                "lower optim.lr, lengthen optim.warmup_steps, or check the data"
            )

    def on_validation_epoch_start(self) -> None:
        self.check_gradient()
        self._tally = ValidationTally(len(self.genomes), self.window, self.device)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        assert self._tally is not None
        shown, tokens, weights = _cut(batch, self.window)
        with self._compiler(used=not self._compiled):  # as the exported model runs, and whatever the batch
            logits = self._predict(shown)
        self._tally.add(logits, tokens, weights, batch["windows"][:, 0])

    def on_validation_epoch_end(self) -> None:
        assert self._tally is not None
        self.validation = self._tally.result(lambda sums: self.trainer.strategy.reduce(sums, reduce_op="sum"))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say in plain values what the weights are, so that they can be exported from the file alone."""
        checkpoint["dnasm"] = {
            "schema_version": CHECKPOINT_SCHEMA,
            "model": asdict(self.model.config),
            "provenance": self.provenance
            | {
                "steps": self.global_step,
                "tokens": self.tokens_seen,
                "validation_bits_per_base": None if self.validation is None else self.validation.bits_per_base,
            },
        }


def _cut(batch: dict[str, Tensor], length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the model sees, the tokens, and what each counts as a target, in windows of this length."""
    shown, tokens, weights = (batch.get("shown", batch["tokens"]), batch["tokens"], batch["weights"])
    return shown.reshape(-1, length), tokens.reshape(-1, length), weights.reshape(-1, length)
