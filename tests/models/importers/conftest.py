"""Checkpoints of other projects, typed from their published names and shapes: nothing here is made by our exporter."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

HYENADNA_TAILS = {
    "mixer.in_proj.weight": ("3d", "d"),
    "mixer.in_proj.bias": ("3d",),
    "mixer.out_proj.weight": ("d", "d"),
    "mixer.out_proj.bias": ("d",),
    "mixer.short_filter.weight": ("3d", 1, 3),
    "mixer.short_filter.bias": ("3d",),
    "mixer.filter_fn.bias": ("d",),
    "mixer.filter_fn.pos_emb.z": (1, "L", 5),
    "mixer.filter_fn.pos_emb.t": (1, "L", 1),
    "mixer.filter_fn.implicit_filter.0.weight": ("f", 5),
    "mixer.filter_fn.implicit_filter.0.bias": ("f",),
    "mixer.filter_fn.implicit_filter.1.freq": (1, "f"),
    "mixer.filter_fn.implicit_filter.2.weight": ("f", "f"),
    "mixer.filter_fn.implicit_filter.2.bias": ("f",),
    "mixer.filter_fn.implicit_filter.3.freq": (1, "f"),
    "mixer.filter_fn.implicit_filter.4.weight": ("f", "f"),
    "mixer.filter_fn.implicit_filter.4.bias": ("f",),
    "mixer.filter_fn.implicit_filter.5.freq": (1, "f"),
    "mixer.filter_fn.implicit_filter.6.weight": ("d", "f"),
    "mixer.filter_fn.modulation.deltas": (1, 1, "d"),
    "norm1.weight": ("d",),
    "norm1.bias": ("d",),
    "mlp.fc1.weight": ("i", "d"),
    "mlp.fc1.bias": ("i",),
    "mlp.fc2.weight": ("d", "i"),
    "mlp.fc2.bias": ("d",),
    "norm2.weight": ("d",),
    "norm2.bias": ("d",),
}
"""Of each layer, from models.md 2.4; d channels, i in the MLP, f in the filter's MLP, L positions."""

H3_TAILS = {
    "mixer.q_proj.weight": ("d", "d"),
    "mixer.q_proj.bias": ("d",),
    "mixer.k_proj.weight": ("d", "d"),
    "mixer.k_proj.bias": ("d",),
    "mixer.v_proj.weight": ("d", "d"),
    "mixer.v_proj.bias": ("d",),
    "mixer.ssm_k_kernel.kernel.C": (1, "d", "n"),
    "mixer.ssm_k_kernel.kernel.B": ("d", "n"),
    "mixer.ssm_k_D": ("d",),
    "mixer.kernel.kernel.C": (1, "d", "n/2", 2),
    "mixer.kernel.kernel.log_dt": ("d",),
    "mixer.kernel.kernel.B": ("d", "n/2", 2),
    "mixer.kernel.kernel.inv_A_real": ("d", "n/2"),
    "mixer.kernel.kernel.A_imag": ("d", "n/2"),
    "mixer.D": ("d",),
    "mixer.output_linear.weight": ("d", "d"),
    "mixer.output_linear.bias": ("d",),
}
ATTENTION_TAILS = {
    "mixer.Wqkv.weight": ("3d", "d"),
    "mixer.Wqkv.bias": ("3d",),
    "mixer.out_proj.weight": ("d", "d"),
    "mixer.out_proj.bias": ("d",),
}
COMMON_TAILS = {name: shape for name, shape in HYENADNA_TAILS.items() if not name.startswith("mixer")}

Maker = Callable[..., dict[str, Tensor]]


def _draw(table: dict[str, tuple[Any, ...]], prefix: str, sizes: dict[str, int]) -> dict[str, Tensor]:
    drawn = {}
    for tail, shape in table.items():
        value = 0.2 * torch.randn([sizes.get(n, n) if isinstance(n, str) else n for n in shape])
        if "norm" in tail and "weight" in tail:
            value += 1
        if tail.endswith("log_dt"):
            value -= 4
        if tail.endswith("A_imag"):
            value += 3.1 * torch.arange(value.shape[-1])
        drawn[prefix + tail] = value
    return drawn


def _repeat_frequency(state: dict[str, Tensor]) -> None:
    for name in state:
        if name.endswith((".3.freq", ".5.freq")):
            state[name] = state[name.replace(".3.freq", ".1.freq").replace(".5.freq", ".1.freq")]


@pytest.fixture
def hyenadna() -> Maker:
    """Make a state dict of the original layout, its names without `model.`."""

    def make(layers: int = 2, d: int = 16, f: int = 8, length: int = 60, tied: bool = True) -> dict[str, Tensor]:
        torch.manual_seed(5)
        sizes = {"d": d, "3d": 3 * d, "i": 4 * d, "f": f, "L": length}
        state = {"backbone.embeddings.word_embeddings.weight": torch.randn(16, d)}
        for i in range(layers):
            state |= _draw(HYENADNA_TAILS, f"backbone.layers.{i}.", sizes)
        state |= _draw({"weight": ("d",), "bias": ("d",)}, "backbone.ln_f.", sizes)
        _repeat_frequency(state)
        own = torch.randn(16, d)
        state["lm_head.weight"] = state["backbone.embeddings.word_embeddings.weight"] if tied else own
        return state

    return make


@pytest.fixture
def h3() -> Maker:
    """Make a state dict of the official H3 language model, in its present names."""

    def make(layers: int = 12, d: int = 16, n: int = 8, attention: tuple[int, ...] = (6,)) -> dict[str, Tensor]:
        torch.manual_seed(6)
        sizes = {"d": d, "3d": 3 * d, "i": 4 * d, "n": n, "n/2": n // 2}
        state = {"backbone.embeddings.word_embeddings.weight": torch.randn(50_264, d)}
        for i in range(layers):
            mixer = ATTENTION_TAILS if i in attention else H3_TAILS
            state |= _draw(mixer | COMMON_TAILS, f"backbone.layers.{i}.", sizes)
        state |= _draw({"weight": ("d",), "bias": ("d",)}, "backbone.ln_f.", sizes)
        state["lm_head.weight"] = state["backbone.embeddings.word_embeddings.weight"]
        return state

    return make
