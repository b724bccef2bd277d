"""Every named architecture has the size that it was published with. Counts of HyenaDNA are of a tied head."""

from functools import cache

import pytest
import torch

from dnasm.errors import ConfigError
from dnasm.models import build_model
from dnasm.presets import model_config, preset, preset_names

HYENADNA = {
    "hyenadna-tiny-1k": (2, 128, 512, 1026, 436_096),
    "hyenadna-tiny-1k-d256": (2, 256, 1024, 1026, 1_641_088),
    "hyenadna-tiny-16k": (2, 128, 512, 16386, 436_096),
    "hyenadna-small-32k": (4, 256, 1024, 32770, 3_277_568),
    "hyenadna-medium-160k": (8, 256, 1024, 160002, 6_550_528),
    "hyenadna-medium-450k": (8, 256, 1024, 450002, 6_550_528),
    "hyenadna-large-1m": (8, 256, 1024, 1000002, 6_550_528),
}
H3 = {
    "h3-125m": (12, 768, 12, [6], 0, 125e6),
    "h3-355m": (24, 1024, 16, [8, 16], 0, 355e6),
    "h3-1.3b": (24, 2048, 16, [8, 16], 0, 1.3e9),
    "h3-2.7b": (32, 2560, 20, [10, 21], 64, 2.7e9),
    "h3-2.7b-3attn": (32, 2560, 20, [8, 16, 24], 0, 2.7e9),
}


@cache
def _count(name: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(preset(name)).parameters())


@pytest.mark.parametrize("name", HYENADNA)
def test_hyenadna_sizes(name: str) -> None:
    config = preset(name)
    layers, d, d_inner, length, parameters = HYENADNA[name]
    assert (config.num_layers, config.d_model, config.d_inner, config.max_length) == (layers, d, d_inner, length)
    assert config.suffix_separator
    assert _count(name) == parameters


@pytest.mark.parametrize("name", H3)
def test_h3_sizes(name: str) -> None:
    config = preset(name)
    layers, d, heads, attention, rotary, nominal = H3[name]
    assert (config.num_layers, config.d_model, config.num_heads) == (layers, d, heads)
    assert (config.attention_layers, config.rotary_dim, config.vocabulary) == (attention, rotary, "gpt2")
    norms, mlp = 4 * d, 8 * d * d + 5 * d
    ssm = 4 * d * (d + 1) + 2 * d * 64 + d + d * (1 + 6 * 32) + d  # projections, shift, its D, diagonal, its D
    softmax = 4 * d * (d + 1)
    blocks = layers * (norms + mlp) + (layers - len(attention)) * ssm + len(attention) * softmax
    count = _count(name)
    assert count == 50_264 * d + blocks + 2 * d
    assert count == pytest.approx(nominal, rel=0.03)


def test_every_preset_can_be_built() -> None:
    assert {"tiny", "small", *HYENADNA, *H3} <= set(preset_names())
    for name in preset_names():
        assert _count(name) > 100_000


def test_presets_are_copies() -> None:
    preset("h3-125m").attention_layers.append(3)
    assert preset("h3-125m").attention_layers == [6]


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'huge'; there are tiny, small"):
        preset("huge")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"d_modle": 3}, r"here: unknown setting 'd_modle'; did you mean 'd_model'\?"),
        ({"d_model": "3"}, "here: d_model is '3', it must be int"),
        ({"d_model": True}, "d_model is True, it must be int"),
        ({"tie_embeddings": 1}, "tie_embeddings is 1, it must be bool"),
        ({"attention_layers": [1, "2"]}, r"attention_layers .* must be list\[int\]"),
        ({"family": "mamba"}, "family is 'mamba', it must be 'hyena' or 'h3'"),
        ({"embedding_dropout": None}, "embedding_dropout is None, it must be float"),
    ],
)
def test_plain_values_are_checked(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model_config(values, "here")


def test_an_integer_may_stand_for_a_float() -> None:
    assert model_config({"activation_frequency": 10, "max_length": None}, "here").max_length is None
