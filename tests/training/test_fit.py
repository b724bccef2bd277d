"""A training as a whole: it repeats itself, ends when it should, and writes what it says."""

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dnasm.config import DataConfig, GenomeConfig, ModelConfig, OptimConfig, TrainerConfig
from dnasm.datasets.datamodule import PretrainingData
from dnasm.errors import TrainingDiverged
from dnasm.models.backbone import build_model
from dnasm.training.fit import fit
from dnasm.training.loss import next_base_loss
from dnasm.training.module import Pretraining
from dnasm.training.result import Fit, ValidationResult
from dnasm.training.schedule import Schedule

WINDOW = 32
MODEL = ModelConfig(d_model=8, num_layers=1, d_inner=16, max_length=WINDOW, filter_order=8, embedding_dropout=0.1)


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genome") / "g.fa"
    letters = np.random.default_rng(0).choice(list("ACGT"), 6000)
    path.write_text(f">train\n{''.join(letters[:4000])}\n>held\n{''.join(letters[4000:])}\n")
    return path


class Recorded(Pretraining):
    """Keeps the loss of every batch, to the last bit."""

    losses: list[float]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.item())
        return loss


Train = Callable[..., tuple[Recorded, Fit, Path]]


@pytest.fixture
def train(fasta: Path, tmp_path: Path) -> Train:
    def run(
        *, seed: int = 0, workers: int = 0, optim: dict[str, Any] | None = None, name: str = "run", **trainer: Any
    ) -> tuple[Recorded, Fit, Path]:
        data = DataConfig(
            genomes=[GenomeConfig(path=str(fasta), validation=["held"])],
            window=WINDOW,
            batch_size=4,
            windows_per_epoch=100,
            validation_windows=12,
            num_workers=workers,
        )
        settings = TrainerConfig(**{"max_steps": 20, "validate_every": 8, "checkpoint_every": 6} | trainer)
        rates = OptimConfig(**{"lr": 3e-3} | (optim or {}))
        torch.manual_seed(seed)
        module = Recorded(
            build_model(MODEL), rates, Schedule.of(rates, settings), genomes=["g"], window=WINDOW, provenance={"a": 1}
        )
        module.losses = []
        folder = tmp_path / name
        folder.mkdir()
        device = torch.device("cpu")
        outcome = fit(module, PretrainingData(data, seed=seed), settings, folder, device=device, quiet=True)
        return module, outcome, folder

    return run


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")  # on 2 cores
def test_the_same_seed_gives_the_same_losses_with_0_1_and_3_workers(train: Train) -> None:
    """60 steps of 25 an epoch: to the last bit, across two epochs' ends and several validations."""
    runs = [train(workers=n, max_steps=60, patience=None, name=f"run{n}")[0].losses for n in (0, 1, 3)]
    assert len(runs[0]) == 60
    assert len(set(runs[0])) == 60
    assert runs[0] == runs[1] == runs[2]
    other, _, _ = train(seed=1, max_steps=60, patience=None, name="other")
    assert all(a != b for a, b in zip(runs[0], other.losses, strict=True))


def test_validation_does_not_change_training(train: Train) -> None:
    often, _, _ = train(validate_every=3, name="often")
    rarely, _, _ = train(validate_every=1000, name="rarely")
    assert often.losses == rarely.losses


def test_a_run_counts_and_writes_what_it_did(train: Train) -> None:
    module, outcome, folder = train()
    assert (outcome.steps, outcome.tokens, outcome.why) == (20, 20 * 4 * WINDOW, "all steps done")
    rows = rows_of(folder)
    training = [row for row in rows if row["train_nats"]]
    assert [row["step"] for row in training] == ["10", "20"]
    assert float(training[0]["train_nats"]) == pytest.approx(np.mean(module.losses[:10]), abs=1e-12)
    assert float(training[0]["train_bits_per_base"]) == float(training[0]["train_nats"]) / math.log(2)
    assert training[1]["tokens"] == str(outcome.tokens)
    validation = [row for row in rows if row["val_nats"]]
    assert [row["step"] for row in validation] == ["8", "16", "20"]  # the last step is validated too
    assert min(float(row["val_nats"]) for row in validation) == outcome.best.nats
    assert outcome.best.targets == 12 * (WINDOW - 1)
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert list((folder / "tensorboard").glob("events*"))


def test_the_best_checkpoint_holds_the_weights_that_scored_best(train: Train, fasta: Path) -> None:
    # A rate that rises for the whole run makes a later validation worse than an earlier one.
    module, outcome, folder = train(optim={"lr": 0.3, "warmup_steps": 1000}, max_steps=60, validate_every=5)
    assert outcome.best_step < outcome.steps
    state = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    assert state["dnasm"]["provenance"]["steps"] == outcome.best_step
    assert state["dnasm"]["provenance"]["validation_bits_per_base"] == outcome.best.bits_per_base
    model = build_model(MODEL)
    model.load_state_dict({name.removeprefix("model."): value for name, value in state["state_dict"].items()})
    losses = [
        next_base_loss(model.eval()(batch["tokens"]), batch["tokens"], batch["weights"]).item()
        for batch in held_out(fasta)
    ]
    assert np.mean(losses) == pytest.approx(outcome.best.nats, rel=1e-5)
    assert np.mean(losses) != pytest.approx(module.validation.nats if module.validation else 0, rel=1e-5)
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == outcome.steps


def held_out(fasta: Path) -> Any:
    config = DataConfig(
        genomes=[GenomeConfig(path=str(fasta), validation=["held"])], window=WINDOW, batch_size=4, validation_windows=12
    )
    return PretrainingData(config).val_dataloader()


def test_position_loss_belongs_to_the_best_validation(train: Train) -> None:
    _, outcome, folder = train()
    with (folder / "position_loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["start"]) for row in rows] == list(range(1, WINDOW))
    assert all(int(row["end"]) == int(row["start"]) + 1 and row["targets"] == "12" for row in rows)
    assert np.mean([float(row["nats"]) for row in rows]) == pytest.approx(outcome.best.nats, rel=1e-9)


def test_training_ends_when_validation_no_longer_improves(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    nats = iter([1.3, 1.2, 1.25, 1.21, 1.1, 1.2, 1.2, 1.2, 1.0])

    def scripted(self: Any, reduce: Any) -> ValidationResult:
        return ValidationResult(next(nats), 1, [1.0], [1])

    monkeypatch.setattr("dnasm.training.loss.ValidationTally.result", scripted)
    _, outcome, _ = train(max_steps=100, validate_every=2, patience=3)
    assert outcome.why == "validation no longer improved"
    assert (outcome.best.nats, outcome.best_step, outcome.steps) == (1.1, 10, 16)


def test_training_ends_with_the_time_and_a_validation(train: Train) -> None:
    _, outcome, folder = train(max_steps=1_000_000, max_minutes=2 / 60, validate_every=1_000_000)
    assert outcome.why == "time is up"
    assert 2 <= outcome.seconds < 20
    assert 1 < outcome.steps == outcome.best_step < 1_000_000
    rates = [float(row["lr"]) for row in rows_of(folder) if row["lr"]]
    assert rates[-1] < 0.15 * 3e-3  # the schedule followed the clock down to its end


def test_two_small_batches_make_one_large_step(train: Train) -> None:
    _, outcome, folder = train(accumulate=2, max_steps=10, validate_every=4)
    assert (outcome.steps, outcome.tokens) == (10, 10 * 2 * 4 * WINDOW)
    validations = [row["step"] for row in rows_of(folder) if row["val_nats"]]
    assert validations == ["4", "8", "10"]


def test_a_gradient_that_is_not_finite_ends_training_and_keeps_checkpoints(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = next_base_loss
    calls = iter(range(1000))

    def broken(*args: Any) -> Tensor:
        return real(*args) * (math.nan if next(calls) == 13 else 1)

    monkeypatch.setattr("dnasm.training.module.next_base_loss", broken)
    with pytest.raises(TrainingDiverged, match="step 14"):
        train()
    state = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 12
    assert all(value.isfinite().all() for value in state["state_dict"].values())


def test_an_interrupt_is_an_interrupt(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any) -> Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr("dnasm.training.module.next_base_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train()


def test_the_learning_rate_that_is_logged_is_the_one_of_the_schedule(train: Train) -> None:
    module, _, folder = train(optim={"lr": 1e-3, "warmup_steps": 5})
    logged = [float(row["lr"]) for row in rows_of(folder) if row["lr"]]
    assert logged == [1e-3 * module.schedule.factor(step - 1, 0.0) for step in (10, 20)]


def test_gradients_are_clipped(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, closure: Any = None) -> Any:
        def measured() -> Any:
            loss = closure()
            gradients = [p.grad.norm() for group in self.param_groups for p in group["params"] if p.grad is not None]
            norms.append(torch.stack(gradients).norm().item())
            return loss

        return step(self, measured)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    train(optim={"clip_norm": 1e-3}, max_steps=5)
    assert len(norms) == 5
    assert all(norm == pytest.approx(1e-3, rel=1e-3) for norm in norms)
