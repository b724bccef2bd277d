"""AdamW's parameter groups: what decays, and what learns more slowly."""

from collections import defaultdict
from typing import Any

import torch
from torch import nn

from dnasm.config import OptimConfig

_NEVER_DECAYED = (nn.LayerNorm, nn.Embedding)


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Sort parameters by weight decay and peak learning rate.

    No decay for what is marked `_no_weight_decay` (filters, state-space parameters), for biases and other vectors, for
    norms and for embeddings. A parameter marked `_max_lr` learns at that rate if the peak is above it.

    Returns:
        Groups as `torch.optim` takes them, each parameter in exactly one; `initial_lr` is the group's peak.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    seen: set[int] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            decays = not (
                getattr(parameter, "_no_weight_decay", False)
                or parameter.ndim < 2
                or isinstance(module, _NEVER_DECAYED)
            )
            lr = min(config.lr, getattr(parameter, "_max_lr", config.lr))
            groups[config.weight_decay if decays else 0.0, lr].append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr": lr, "initial_lr": lr}
        for (decay, lr), parameters in groups.items()
    ]


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Make the optimizer; one fused kernel updates all parameters of a group."""
    return torch.optim.AdamW(parameter_groups(model, config), lr=config.lr, betas=config.betas, fused=True)
