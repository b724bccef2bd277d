"""Memory: what `ModelConfig.memory` predicts is what a process takes; checkpointing changes nothing else."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dnasm import vocabulary
from dnasm.config import ModelConfig
from dnasm.memory import ROWS
from dnasm.models import LanguageModel, build_model
from dnasm.presets import preset, preset_names

Maker = Callable[[ModelConfig], LanguageModel]

BASE = ModelConfig(d_model=128, d_inner=512, num_layers=3, max_length=4096, embedding_dropout=0.0)
FAMILIES = {
    "hyena": BASE,
    "h3": replace(BASE, family="h3", max_length=None),
    "attention": replace(BASE, family="attention", max_length=None, rotary_dim=32),
    "hybrid": replace(BASE, family="h3", max_length=None, attention_layers=[1], d_inner=256),
    "multihybrid": replace(BASE, family="multihybrid", max_length=None, d_inner=256),
    "cnn": replace(BASE, family="cnn", max_length=None),
}
# length, batch, training, checkpointing
CASES = [(1024, 8, True, False), (1024, 8, True, True), (4096, 1, True, False)]
INFERENCE = (4096, 6, False, False)  # large beside what the allocator keeps


@pytest.fixture(scope="module")
def measured() -> dict[tuple[str, tuple[int, int, bool, bool]], int]:
    """Bytes that each case took."""
    keys = [(name, case) for name in FAMILIES for case in (*CASES, INFERENCE)]
    names = ("length", "batch", "training", "checkpoint_activations")
    lines = [
        json.dumps({"config": asdict(FAMILIES[name]), **dict(zip(names, case, strict=True))}) for name, case in keys
    ]
    script = Path(__file__).with_name("peak_memory.py")
    outcome = subprocess.run(
        [sys.executable, script], input="\n".join(lines), capture_output=True, text=True, check=True, timeout=600
    )
    return dict(zip(keys, json.loads(outcome.stdout), strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("case", [*CASES, INFERENCE], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_prediction_is_within_15_percent(
    measured: dict[tuple[str, tuple[int, int, bool, bool]], int], name: str, case: tuple[int, int, bool, bool]
) -> None:
    length, batch, training, again = case
    predicted = FAMILIES[name].memory(length, batch, training=training, checkpoint_activations=again)
    assert predicted == pytest.approx(measured[name, case], rel=0.15)


def test_rows_are_the_vocabularys() -> None:
    assert ROWS["dna"] == vocabulary.NUM_ROWS


@pytest.mark.parametrize("name", preset_names())
def test_parameters_are_counted_without_a_model(name: str) -> None:
    config = preset(name)
    with torch.device("meta"):
        model = build_model(config)
    assert config.parameters() == sum(parameter.numel() for parameter in model.parameters())


def test_every_kind_of_layer_is_counted(configs: dict[str, ModelConfig]) -> None:
    for base in configs.values():
        config = replace(base, bidirectional=True)
        assert config.parameters() == sum(p.numel() for p in build_model(config).parameters())
    for config in configs.values():
        assert config.parameters() == sum(p.numel() for p in build_model(config).parameters())
        assert config.memory(100, 1, training=False) < config.memory(100, 1)


def test_prediction_grows_with_the_work() -> None:
    config = preset("hyenadna-large-1m")
    plain, again = (config.memory(1_000_000, 1, checkpoint_activations=flag) for flag in (False, True))
    assert plain > 3 * again > 1e9
    assert config.memory(1_000_000, 2) > 1.75 * plain  # filters are made once


def test_checkpointing_changes_no_name_and_no_gradient(model: LanguageModel, tokens: Tensor) -> None:
    model.train()
    names = list(model.state_dict())
    gradients = []
    for again in (False, True):
        model.backbone.checkpoint_activations = again
        model.zero_grad()
        model(tokens).logsumexp(-1).sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert list(model.state_dict()) == names
    assert len(gradients[0]) == len(gradients[1]) == len(list(model.parameters()))
    for plain, again_ in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again_)


def test_checkpointing_repeats_the_dropout(configs: dict[str, ModelConfig], make_model: Maker, tokens: Tensor) -> None:
    model = make_model(replace(configs["hyena"], residual_dropout=0.3, embedding_dropout=0.2)).train()
    sums = []
    for again in (False, True):
        model.backbone.checkpoint_activations = again
        model.zero_grad()
        torch.manual_seed(0)
        model(tokens).logsumexp(-1).sum().backward()
        sums.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*sums)


def test_checkpointing_keeps_one_tensor_a_block(model: LanguageModel, tokens: Tensor) -> None:
    kept: dict[bool, int] = {}
    for again in (False, True):
        model.backbone.checkpoint_activations = again
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(tokens).sum()
        kept[again] = sum(sizes.values())
        del loss
    unit = 3 * 130 * 32 * 4
    weights = sum(p.numel() for p in model.parameters()) * 4
    assert kept[True] <= weights + 5 * unit < kept[False]
