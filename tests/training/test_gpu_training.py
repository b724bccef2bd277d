"""Training on a GPU: close to the CPU's losses, as one CUDA graph too, and stopped by a gradient that is not finite."""

import math
from dataclasses import replace
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
from dnasm.training.compilation import Compilation
from dnasm.training.fit import fit
from dnasm.training.module import Pretraining
from dnasm.training.schedule import Schedule

pytestmark = pytest.mark.gpu

WINDOW = 32
MODEL = ModelConfig(d_model=16, num_layers=1, d_inner=16, max_length=WINDOW, filter_order=8, embedding_dropout=0.0)


class Watched(Pretraining):
    """Keeps losses, on their device, and spoils the gradient of one step."""

    losses: list[Tensor]
    spoiled = 0

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.detach())
        return loss * (math.nan if self.global_step + 1 == self.spoiled else 1)


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), 6000))
    (tmp_path / "g.fa").write_text(f">train\n{letters[:4000]}\n>held\n{letters[4000:]}\n")
    genome = GenomeConfig(path=str(tmp_path / "g.fa"), validation=["held"])
    return DataConfig(genomes=[genome], window=WINDOW, batch_size=4, windows_per_epoch=100, validation_windows=12)


def train(
    data: DataConfig,
    folder: Path,
    device: str,
    *,
    model: ModelConfig = MODEL,
    spoiled: int = 0,
    **settings: Any,
) -> Watched:
    """Take twenty steps in float32."""
    common: dict[str, Any] = {"max_steps": 20, "validate_every": 8, "checkpoint_every": 6, "precision": "float32"}
    trainer = TrainerConfig(**common | settings)
    torch.manual_seed(0)
    schedule = Schedule.of(OptimConfig(), trainer)
    more: dict[str, Any] = {"genomes": ["g"], "window": WINDOW, "provenance": {}}
    more["compilation"] = Compilation.of(trainer, data, model, torch.device(device))
    module = Watched(build_model(model), OptimConfig(), schedule, **more)
    module.losses, module.spoiled = [], spoiled
    folder.mkdir()
    fit(module, PretrainingData(data), trainer, folder, device=torch.device(device), quiet=True)
    return module


@pytest.mark.parametrize("masked", [False, True])
def test_losses_and_the_log_are_those_of_a_cpu(data: DataConfig, tmp_path: Path, masked: bool) -> None:
    model = replace(MODEL, bidirectional=masked)
    modules = [train(data, tmp_path / device, device, model=model) for device in ("cpu", "cuda")]
    on_cpu, on_gpu = (torch.stack(module.losses).cpu() for module in modules)
    torch.testing.assert_close(on_gpu, on_cpu, atol=1e-3, rtol=0)
    tables = [np.genfromtxt(tmp_path / d / "metrics.csv", delimiter=",", names=True) for d in ("cpu", "cuda")]
    for column in ("step", "lr", "grad_norm", "train_nats", "val_nats"):
        np.testing.assert_allclose(tables[1][column], tables[0][column], rtol=1e-2, err_msg=column)


MODELS = {
    "hyena": MODEL,
    "h3": replace(MODEL, family="h3", num_layers=2, attention_layers=[1], num_heads=2, embedding_dropout=0.1),
    "masked": replace(MODEL, bidirectional=True),
    "multihybrid": replace(MODEL, family="multihybrid", num_layers=4),
    "attention": replace(MODEL, family="attention", num_layers=2),
    "cnn": replace(MODEL, family="cnn", bidirectional=True, num_layers=2),
}


@pytest.mark.parametrize("settings", [{}, {"accumulate": 2}, {"precision": "bfloat16"}, {"length_warmup": 8}])
@pytest.mark.parametrize("name", MODELS)
def test_a_step_as_one_graph_is_the_same_step(
    data: DataConfig, tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    plain, graphed = (
        train(data, tmp_path / str(graph), "cuda", model=MODELS[name], cuda_graph=graph, **settings)
        for graph in (False, True)
    )
    assert graphed._graphed._recording is not None
    torch.testing.assert_close(torch.stack(graphed.losses), torch.stack(plain.losses), atol=1e-4, rtol=0)


@pytest.mark.parametrize("graph", [False, True])
def test_a_gradient_that_is_not_finite_changes_no_weight(data: DataConfig, tmp_path: Path, graph: bool) -> None:
    with pytest.raises(TrainingDiverged, match="is nan at step 14,"):
        train(data, tmp_path / "run", "cuda", spoiled=14, cuda_graph=graph)
    state = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 12
    assert all(value.isfinite().all() for value in state["state_dict"].values())


@pytest.mark.parametrize("spoiled", [8, 20])
def test_the_last_gradient_before_a_validation_is_heard_of_before_it(
    data: DataConfig, tmp_path: Path, spoiled: int
) -> None:
    with pytest.raises(TrainingDiverged, match=f"at step {spoiled},"):
        train(data, tmp_path / "run", "cuda", spoiled=spoiled)
    assert not list((tmp_path / "run").glob("checkpoints/best.ckpt")) or spoiled == 20
