"""Other people's tools work on plain `forward`: torch.compile, torch.export, PEFT's LoRA, FSDP2 over two processes."""

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dnasm.config import ModelConfig
from dnasm.models import LanguageModel
from dnasm.models.suffixes import HyenaReader, prefix_reader

Maker = Callable[[ModelConfig], LanguageModel]
FAMILIES = ["hyena", "h3", "rotary", "multihybrid", "modal", "cnn"]


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["export", "compile", "fsdp"])
def test_the_tool_gives_what_the_plain_model_gives(tool: str) -> None:
    script = Path(__file__).with_name("open_models.py")
    outcome = subprocess.run([sys.executable, script, tool], capture_output=True, text=True, timeout=300, check=False)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    assert outcome.stdout.split() == FAMILIES


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler for torch.compile")
def test_compiled_to_machine_code_it_gives_the_same(tmp_path: Path) -> None:
    script = Path(__file__).with_name("open_models.py")
    settings = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    call = [sys.executable, script, "inductor", "hyena"]
    outcome = subprocess.run(
        call, env={**os.environ, **settings}, capture_output=True, text=True, timeout=300, check=False
    )
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    assert outcome.stdout.split() == ["hyena"]


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_every_linear_layer_may_be_an_adapter(
    configs: dict[str, ModelConfig], make_model: Maker, tokens: Tensor, name: str
) -> None:
    """Projections too, in forward and from a state: nothing reads a layer's weight past its adapter."""
    peft = pytest.importorskip("peft")
    model = make_model(configs[name])
    before = model(tokens)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules="all-linear"))
    count = sum("lora_B" in key for key, _ in adapted.named_parameters())
    assert count >= 2 * 3
    torch.testing.assert_close(adapted(tokens), before)
    for key, parameter in adapted.named_parameters():
        if "lora_B" in key:
            parameter.normal_(std=0.1)
            assert (adapted(tokens) - before).abs().max() > 1e-4, key
            whole, state = adapted(tokens), model.start(3, 130)
            pieces = [model.extend(tokens[:, :100], state)]
            pieces += [model.extend(tokens[:, i : i + 1], state) for i in range(100, 104)]
            torch.testing.assert_close(torch.cat(pieces, 1), whole[:, :104], atol=5e-5, rtol=1e-4)
            parameter.zero_()


@pytest.mark.parametrize("kind", ["LoraConfig", "LoHaConfig"])
@pytest.mark.parametrize("name", ["hyena", "multihybrid", "modal", "both sides"])
@torch.no_grad()
def test_the_short_convolution_may_be_an_adapter(
    configs: dict[str, ModelConfig], make_model: Maker, tokens: Tensor, name: str, kind: str
) -> None:
    peft = pytest.importorskip("peft")
    both = name == "both sides"
    config = replace(configs["hyena"], bidirectional=True) if both else configs[name]
    model = make_model(config)
    before = model(tokens)
    rank = 3 * config.d_model if kind == "LoraConfig" else 2  # a multiple of the groups
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # merging is not supported
        adapted = peft.get_peft_model(model, getattr(peft, kind)(r=rank, target_modules=["short_filter"]))
    torch.testing.assert_close(adapted(tokens), before, atol=5e-5, rtol=1e-4)
    for key, parameter in adapted.named_parameters():
        if "lora_B" in key or "hada_w" in key:
            parameter.normal_(std=0.3)
    whole = adapted(tokens)
    assert (whole - before).abs().max() > 1e-3
    if not both:
        state = model.start(3, 130)
        pieces = [model.extend(tokens[:, :100], state)]
        pieces += [model.extend(tokens[:, i : i + 1], state) for i in range(100, 104)]
        torch.testing.assert_close(torch.cat(pieces, 1), whole[:, :104], atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("layer", ["in_proj", "short_filter", "out_proj", "fc1", "fc2", "word_embeddings"])
def test_scoring_goes_past_no_adapter(configs: dict[str, ModelConfig], make_model: Maker, layer: str) -> None:
    """The reader that reads weights itself is not taken where a layer is somebody else's."""
    peft = pytest.importorskip("peft")
    model = make_model(configs["hyena"])
    assert isinstance(prefix_reader(model), HyenaReader)
    kind = peft.LoraConfig if layer == "word_embeddings" else peft.LoHaConfig
    peft.get_peft_model(model, kind(r=2, target_modules=[layer]))
    assert prefix_reader(model) is None


@pytest.mark.parametrize("name", FAMILIES)
def test_lora_trains_adapters_alone(
    configs: dict[str, ModelConfig], make_model: Maker, tokens: Tensor, name: str
) -> None:
    peft = pytest.importorskip("peft")
    model = make_model(configs[name])
    before = model(tokens).detach()
    frozen = {key: value.clone() for key, value in model.state_dict().items()}
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["fc1", "fc2"]))
    torch.testing.assert_close(adapted(tokens), before)
    trained = [key for key, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 2 * 2
    assert all("lora_" in key for key in trained)
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], 0.1)
    for _ in range(2):  # the first step moves one half of each adapter, which begins at zero
        adapted(tokens).square().mean().backward()
        optimizer.step()
    assert (adapted(tokens) - before).abs().max() > 1e-4
    after = adapted.unload().state_dict()
    assert all(torch.equal(after[key], value) for key, value in frozen.items())
