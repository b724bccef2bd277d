"""Trains plain and compiled, and says in which ways both came out alike; `test_compilation` runs it."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dnasm.config import DataConfig, GenomeConfig, ModelConfig, OptimConfig, TrainerConfig
from dnasm.datasets.datamodule import PretrainingData
from dnasm.models.backbone import build_model
from dnasm.training.compilation import Compilation
from dnasm.training.fit import fit
from dnasm.training.length_warmup import LengthWarmup
from dnasm.training.module import Pretraining
from dnasm.training.schedule import Schedule

WINDOW = 32
CPU = torch.device("cpu")
MODEL = ModelConfig(d_model=8, num_layers=2, d_inner=16, max_length=WINDOW, filter_order=8, embedding_dropout=0.1)
SETTINGS: dict[str, Any] = {
    "max_steps": 12, "validate_every": 5, "checkpoint_every": 5, "patience": None, "accumulate": 2,
    "length_warmup": 8, "length_warmup_share": 0.5,
}  # fmt: skip

graphs: list[torch.fx.GraphModule] = []
compiler = torch.compile


def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
    """Run as it is what the compiler is given."""
    graphs.append(graph)
    return graph


def compiled(function: Any, **options: Any) -> Any:
    """Stand for `torch.compile`."""
    return compiler(function, backend=backend, **options)


class Recorded(Pretraining):
    """Keeps the loss of every batch."""

    losses: list[float]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.item())
        return loss


def train(folder: Path, **settings: Any) -> Recorded:
    """Ten windows an epoch in batches of four, so that the third is short; validations of one window more than that."""
    folder.mkdir()
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), 6000))
    (folder / "g.fa").write_text(f">train\n{letters[:4000]}\n>held\n{letters[4000:]}\n")
    genome = GenomeConfig(path=str(folder / "g.fa"), validation=["held"])
    data = DataConfig(genomes=[genome], window=WINDOW, batch_size=4, windows_per_epoch=10, validation_windows=5)
    trainer = TrainerConfig(**SETTINGS | settings)
    rates = OptimConfig(lr=3e-3)
    torch.manual_seed(0)
    model = build_model(MODEL)
    model.backbone.checkpoint_activations = True
    module = Recorded(
        model,
        rates,
        Schedule.of(rates, trainer),
        genomes=["g"],
        window=WINDOW,
        provenance={},
        lengths=LengthWarmup.of(trainer, WINDOW),
        compilation=Compilation.of(trainer, data, MODEL, CPU),
    )
    module.losses = []
    fit(module, PretrainingData(data), trainer, folder, device=CPU, quiet=True)
    return module


def inputs(graph: torch.fx.GraphModule) -> list[Tensor]:
    """Examples of what a graph was made for."""
    return [node.meta["example_value"] for node in graph.graph.nodes if node.op == "placeholder"]


def compare(folder: Path) -> None:
    """Train both ways: a length warm-up, short batches, accumulation, activations made twice, validations."""
    plain = train(folder / "plain", compile=False)
    assert not graphs
    fast = train(folder / "compiled", compile=True)
    assert len(plain.losses) > SETTINGS["max_steps"]
    assert fast.losses == plain.losses
    states = [
        torch.load(folder / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("plain", "compiled")
    ]
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    shapes = {tuple(x.shape) for graph in graphs for x in inputs(graph)}
    assert {(16, 8, 8), (8, 16, 8), (4, 32, 8)} <= shapes, shapes
    assert not {(8, 8, 8), (4, 16, 8), (2, 32, 8), (1, 32, 8)} & shapes, "short batches and validations"
    assert len(graphs) == 9, "a block, which both share, a norm and a loss, for three lengths"


if __name__ == "__main__":
    torch.compile = compiled  # type: ignore[assignment]
    compare(Path(tempfile.mkdtemp()))
    print("alike")
