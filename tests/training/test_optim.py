import pytest
import torch
from torch import nn

from dnasm.config import ModelConfig, OptimConfig
from dnasm.models.backbone import build_model
from dnasm.training.optim import build_optimizer, parameter_groups

SMALL = ModelConfig(d_model=16, num_layers=2, d_inner=32, max_length=64, num_heads=2)


@pytest.mark.parametrize("family", ["hyena", "h3", "attention"])
def test_every_parameter_is_in_one_group(family: str) -> None:
    model = build_model(ModelConfig(**vars(SMALL) | {"family": family}))
    groups = parameter_groups(model, OptimConfig())
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted({id(parameter) for parameter in model.parameters()})


def decayed(model: nn.Module) -> set[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, OptimConfig(weight_decay=0.1))
    return {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}


def test_only_weights_of_linear_maps_and_convolutions_decay() -> None:
    model = build_model(SMALL)
    block = "backbone.layers.0."
    assert {name for name in decayed(model) if name.startswith(block)} == {
        block + name
        for name in (
            "mixer.in_proj.weight",
            "mixer.out_proj.weight",
            "mixer.short_filter.weight",
            "mlp.fc1.weight",
            "mlp.fc2.weight",
        )
    }
    assert not any(
        "embedding" in name or "norm" in name or "bias" in name or "filter_fn" in name for name in decayed(model)
    )


def test_norms_and_embeddings_never_decay_marked_or_not() -> None:
    model = nn.Sequential(nn.Embedding(3, 4), nn.LayerNorm((4, 4)), nn.Linear(4, 4))
    assert decayed(model) == {"2.weight"}


def test_a_slow_parameter_keeps_its_own_peak() -> None:
    model = build_model(ModelConfig(**vars(SMALL) | {"family": "h3"}))
    optimizer = build_optimizer(model, OptimConfig(lr=5e-3))
    rates = {group["lr"] for group in optimizer.param_groups}
    assert rates == {5e-3, 1e-3}
    assert all(group["initial_lr"] == group["lr"] for group in optimizer.param_groups)
    slow = {id(p) for group in optimizer.param_groups if group["lr"] == 1e-3 for p in group["params"]}
    assert slow == {id(p) for p in model.parameters() if hasattr(p, "_max_lr")}
    assert {group["lr"] for group in build_optimizer(model, OptimConfig(lr=1e-4)).param_groups} == {1e-4}


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    (group,) = parameter_groups(model, OptimConfig())
    assert group["params"] == [model.weight]


def test_settings_reach_the_optimizer() -> None:
    optimizer = build_optimizer(nn.Linear(2, 2), OptimConfig(lr=0.5, betas=(0.8, 0.9), weight_decay=0.2))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.9)}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.2}
