"""The multihybrid and the dilated CNN against their equations in float64, weights from the state dict by name."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dnasm.config import ModelConfig
from dnasm.errors import ConfigError
from dnasm.memory import mixers
from dnasm.models import LanguageModel
from tests.models.plain_layers import State, attention, convolve, layer_norm, linear, rms_norm

Maker = Callable[[ModelConfig], LanguageModel]
LENGTH = 130


def _filter(s: State, m: str, kind: str, c: ModelConfig) -> Tensor:
    """Taps of every channel, (d, taps): as the docs state them, but for the weights."""
    if kind == "li":
        residues, decay = s[f"{m}.filter_fn.residues"], s[f"{m}.filter_fn.log_decay"].exp()
        return (residues[..., None] * torch.exp(-decay[..., None] * torch.arange(LENGTH))).sum(1)
    taps = s[f"{m}.filter_fn.taps"]
    if kind == "mr":
        rate = 10 ** torch.linspace(0, 2, len(taps)).double()
        taps = taps * torch.exp(-rate[:, None] * torch.linspace(0, 1, taps.shape[1]).double())
    return taps.repeat_interleave(c.filter_group, 0)


def _gated(x: Tensor, s: State, m: str, kind: str, c: ModelConfig) -> Tensor:
    short = s[f"{m}.short_filter.weight"][:, 0].flip(1)
    x0, x1, v = (convolve(linear(x, s, f"{m}.in_proj"), short) + s[f"{m}.short_filter.bias"]).chunk(3, -1)
    return linear(x0 * convolve(x1 * v, _filter(s, m, kind, c)), s, f"{m}.out_proj")


def _dilated(x: Tensor, s: State, m: str, apart: int) -> Tensor:
    weight, joined = s[f"{m}.conv.weight"], s[f"{m}.conv.bias"]
    count = weight.shape[-1]
    for tap in range(count):
        back = (count - 1 - tap) * apart
        seen = torch.nn.functional.pad(x, (0, 0, back, 0))[:, : x.shape[1]]
        joined = joined + seen @ weight[..., tap].T
    a, b = joined.chunk(2, -1)
    return linear(a * b.sigmoid(), s, f"{m}.out_proj")


def _language_model(model: LanguageModel, tokens: Tensor) -> Tensor:
    s, c = {name: value.double() for name, value in model.state_dict().items()}, model.config
    gated = c.family == "multihybrid"
    norm = rms_norm if gated else layer_norm
    x = s["backbone.embeddings.word_embeddings.weight"][tokens.long()]
    for i, kind in enumerate(mixers(c)):
        layer = f"backbone.layers.{i}"
        inner, m = norm(x, s, f"{layer}.norm1"), f"{layer}.mixer"
        if kind == "attention":
            x = x + attention(inner, s, m, c.num_heads, c.rotary_dim)
        else:
            x = x + (_dilated(inner, s, m, 4**i) if kind == "cnn" else _gated(inner, s, m, kind, c))
        inner = linear(norm(x, s, f"{layer}.norm2"), s, f"{layer}.mlp.fc1")
        if gated:
            gate, value = inner.chunk(2, -1)
            inner = torch.nn.functional.silu(gate) * value
        else:
            inner = torch.nn.functional.gelu(inner, approximate="tanh")
        x = x + linear(inner, s, f"{layer}.mlp.fc2")
    return norm(x, s, "backbone.ln_f") @ s["backbone.embeddings.word_embeddings.weight"].T


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("multihybrid", {"pattern": ["se"]}),
        ("multihybrid", {"pattern": ["mr"]}),
        ("multihybrid", {"pattern": ["se", "mr", "li"], "num_layers": 4, "attention_layers": [1], "rotary_dim": 4}),
        ("modal", {}),
        ("cnn", {"num_layers": 3}),
    ],
)
@torch.no_grad()
def test_the_model_is_its_equations(
    configs: dict[str, ModelConfig], make_model: Maker, tokens: Tensor, name: str, more: dict[str, object]
) -> None:
    model = make_model(replace(configs[name], **more))  # type: ignore[arg-type]
    expected = _language_model(model, tokens)
    assert expected.std() > 0.5
    torch.testing.assert_close(model(tokens).double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["h3", "attention", "rotary", "multihybrid", "modal", "cnn", "hybrid"])
def test_no_family_but_hyena_has_a_longest_input_of_its_own(
    configs: dict[str, ModelConfig], make_model: Maker, name: str
) -> None:
    """And one that is given holds for each, as an error: an input is never cut."""
    tokens = torch.full((1, 301), 7)
    assert make_model(configs[name])(tokens).shape == (1, 301, 16)
    limited = make_model(replace(configs[name], max_length=300))
    assert limited(tokens[:, 1:]).shape == (1, 300, 16)
    for call in (limited, limited.hidden, lambda t: limited.start(1, t.shape[1])):
        with pytest.raises(ConfigError, match="max_length is 300"):
            call(tokens)
