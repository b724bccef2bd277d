"""H3's checkpoints: the official layer's outputs, and a whole language model against its formulas in float64."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dnasm.config import ModelConfig
from dnasm.errors import ConfigError, InputError
from dnasm.models import LanguageModel
from dnasm.models.importers import import_h3
from dnasm.models.importers.h3 import H3Settings
from dnasm.models.importers.source import read_source
from dnasm.models.mixers import H3
from dnasm.tasks.likelihood import log_likelihood
from tests.models.plain_layers import State, attention, convolve, layer_norm, linear

Maker = Callable[..., dict[str, Tensor]]


@pytest.mark.parametrize("head_dim", [1, 8])
def test_the_official_layer(shared: Path, head_dim: int) -> None:
    golden = load_file(shared / "golden" / "h3" / f"h3-layer-headdim{head_dim}.safetensors")
    d = golden["input"].shape[-1]
    layer = H3(ModelConfig(family="h3", d_model=d, head_dim=head_dim, state_size=64, max_length=None))
    names = {name: re.sub(r"kernel\.kernel\.", "kernel.", name.removeprefix("param.")) for name in golden}
    layer.load_state_dict({new: golden[old] for old, new in names.items() if old.startswith("param.")})
    assert golden["output"].abs().max() > 1
    torch.testing.assert_close(layer(golden["input"]), golden["output"], atol=1e-4, rtol=0)


# The language model as its authors wrote it, in float64, one equation after the other.


def _h3(x: Tensor, s: State, m: str) -> Tensor:
    q, k, v = (linear(x, s, f"{m}.{name}_proj") for name in "qkv")
    n, length = s[f"{m}.ssm_k_kernel.kernel.B"].shape[-1], x.shape[1]
    b, c = s[f"{m}.ssm_k_kernel.kernel.B"], s[f"{m}.ssm_k_kernel.kernel.C"][0]
    shift = torch.stack([(b[:, : n - j] * c[:, j:]).sum(1) for j in range(n)], 1)
    k = convolve(k, shift[:, :length]) + s[f"{m}.ssm_k_D"] * k
    a = torch.complex(-s[f"{m}.kernel.kernel.inv_A_real"].exp(), s[f"{m}.kernel.kernel.A_imag"])
    dt = s[f"{m}.kernel.kernel.log_dt"].exp()[:, None]
    b, c = (torch.view_as_complex(s[f"{m}.kernel.kernel.{name}"].reshape(*a.shape, 2)) for name in "BC")
    pole = (1 + a * dt / 2) / (1 - a * dt / 2)
    powers = pole[..., None] ** torch.arange(length)
    kernel = 2 * ((b * c * dt / (1 - a * dt / 2))[..., None] * powers).sum(1).real
    y = convolve(k * v, kernel) + s[f"{m}.D"] * k * v
    return linear(y * q, s, f"{m}.output_linear")


def _language_model(state: State, ids: Tensor, heads: int = 4, rotary: int = 0) -> Tensor:
    s = {name: value.double() for name, value in state.items()}
    x = s["backbone.embeddings.word_embeddings.weight"][ids]
    for i in range(12):
        layer = f"backbone.layers.{i}"
        inner, mixer = layer_norm(x, s, f"{layer}.norm1"), f"{layer}.mixer"
        attends = f"{mixer}.Wqkv.weight" in s
        x = x + (attention(inner, s, mixer, heads, rotary) if attends else _h3(inner, s, mixer))
        inner = linear(layer_norm(x, s, f"{layer}.norm2"), s, f"{layer}.mlp.fc1")
        x = x + linear(torch.nn.functional.gelu(inner, approximate="tanh"), s, f"{layer}.mlp.fc2")
    return layer_norm(x, s, "backbone.ln_f") @ s["lm_head.weight"].T


def _old_names(state: State) -> State:
    """Back to the published files: the norm of a layer stands behind the one before it, under an older trunk."""
    norms = ["backbone.norm"] + [f"backbone.layers.{i}.norm{j}" for i in range(12) for j in (1, 2)]
    present = [f"backbone.layers.{i}.norm{j}" for i in range(12) for j in (1, 2)] + ["backbone.ln_f"]
    moves = dict(zip(present, norms, strict=True))
    old = {}
    for name, value in state.items():
        stem, _, last = name.rpartition(".")
        name = f"{moves.get(stem, stem)}.{last}".replace("backbone.embeddings.word_embeddings.", "embedding.")
        old[re.sub(r"^backbone\.", "s4seq.encoder.", name)] = value
    return old


def _read(path: Path, **settings: Any) -> LanguageModel:
    return import_h3(read_source(path, trust_pickle=False), H3Settings(**settings))[0]


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(0, 50_257, (2, 40), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("names", ["present", "old", "lightning"])
def test_a_whole_language_model(h3: Maker, ids: Tensor, tmp_path: Path, names: str) -> None:
    state = h3()
    exact = _language_model(state, ids)
    content: Any = _old_names(state) if names == "old" else state
    if names == "lightning":
        content = {"pytorch-lightning_version": "1.8", "state_dict": {f"model.{k}": v for k, v in state.items()}}
    if names == "old":
        assert {"s4seq.encoder.norm.weight", "embedding.weight", "s4seq.encoder.layers.11.norm2.bias"} <= content.keys()
        assert not any(name.startswith("backbone") for name in content)
    torch.save(content, tmp_path / "model.pt")
    model = _read(tmp_path / "model.pt", num_heads=4)
    assert model.config.attention_layers == [6]
    assert model.config.vocabulary == "gpt2"
    assert model.config.tie_embeddings
    assert model.config.max_length is None
    logits = model(ids)
    assert logits.shape == (2, 40, 50_264)
    assert exact.std() > 1
    torch.testing.assert_close(logits.double(), exact, atol=1e-4, rtol=1e-4)


def test_the_settings_of_attention_matter(h3: Maker, ids: Tensor, tmp_path: Path) -> None:
    state = h3()
    torch.save(state, tmp_path / "model.pt")
    turned = _read(tmp_path / "model.pt", num_heads=2, rotary_dim=4)(ids).double()
    torch.testing.assert_close(turned, _language_model(state, ids, heads=2, rotary=4), atol=1e-4, rtol=1e-4)
    assert (turned - _language_model(state, ids, heads=4)).abs().max() > 1e-2


def test_stored_frequencies_give_the_rotary_channels(h3: Maker, ids: Tensor, tmp_path: Path) -> None:
    state = h3()
    name = "backbone.layers.6.mixer.rotary_emb.inv_freq"
    state[name] = 1 / 10_000 ** (torch.arange(0, 4, 2).float() / 4)
    torch.save(state, tmp_path / "model.pt")
    assert _read(tmp_path / "model.pt", num_heads=4).config.rotary_dim == 4
    with pytest.raises(InputError, match="given as 2, the file stores frequencies for 4"):
        _read(tmp_path / "model.pt", num_heads=4, rotary_dim=2)
    state[name] *= 2
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(InputError, match="holds other frequencies"):
        _read(tmp_path / "model.pt", num_heads=4)


def test_a_config_beside_the_file_is_used_and_held_against_it(h3: Maker, tmp_path: Path) -> None:
    torch.save(h3(), tmp_path / "model.pt")
    config = {"d_model": 16, "n_layer": 12, "attn_layer_idx": [6], "attn_cfg": {"num_heads": 4, "rotary_emb_dim": 2},
              "ssm_cfg": {"mode": "diag", "measure": "diag-lin", "disc": "zoh"}, "embed_dropout": 0.2}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    read = _read(tmp_path / "model.pt").config
    assert (read.num_heads, read.rotary_dim, read.discretization, read.embedding_dropout) == (4, 2, "zoh", 0.2)
    for change, message in (
        ({"attn_layer_idx": [1]}, r"attn_layer_idx is \[1\], the weights show \[6\]"),
        ({"d_model": 32}, "d_model is 32, the weights show 16"),
        ({"ssm_cfg": {"mode": "nplr"}}, "ssm_cfg.mode is 'nplr'"),
        ({"ssm_cfg": {"disc": "dss"}}, "ssm_cfg.disc is 'dss'"),
        ({"ssm_cfg": {"d_state": 64}}, "d_state is 64, the weights show 8"),
        ({"attn_cfg": 4}, "attn_cfg is 4, not an object"),
        ({"attn_cfg": {"num_heads": 4, "rotary_emb_dim": "half"}}, "rotary_emb_dim is 'half', not a number"),
        ({"embed_dropout": None}, "embed_dropout is None, not a number"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError, match=message):
            _read(tmp_path / "model.pt")


def test_what_cannot_be_known_is_asked_for(h3: Maker, tmp_path: Path) -> None:
    torch.save(h3(), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"layers \[6\] are attention.*give --num-heads"):
        _read(tmp_path / "model.pt")


def test_a_published_shape_says_so(h3: Maker, tmp_path: Path) -> None:
    """32 layers of 2,560 channels would be large: only what is looked up is of that shape here."""
    from dnasm.models.importers.h3 import _attention
    from dnasm.models.importers.source import Source

    source = Source(tmp_path / "model.pt", {}, {}, has_config=False, lightning=False)
    for layers, rotary in (([10, 21], 64), ([8, 16, 24], 0)):
        heads, found, notes = _attention(layers, source, H3Settings(), None, 2560, 32)
        assert (heads, found) == (20, rotary)
        assert len(notes) == 2
    assert _attention([10, 21], source, H3Settings(num_heads=10, rotary_dim=0), None, 2560, 32) == (10, 0, [])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("backbone.layers.3.mixer.D", None, r"missing backbone\.layers\.3\.mixer\.D"),
        ("backbone.layers.3.mixer.kernel.kernel.A_imag", None, r"missing backbone\.layers\.3\.mixer\.kernel\.A_imag"),
        ("backbone.layers.6.mixer.D", torch.zeros(16), r"unexpected backbone\.layers\.6\.mixer\.D"),
        ("backbone.position.weight", torch.zeros(16), r"unexpected backbone\.position\.weight"),
        ("backbone.layers.3.mixer.ssm_k_kernel.kernel.B", torch.zeros(16, 9), r"shape \[16, 9\]"),
        ("backbone.embeddings.word_embeddings.weight", torch.zeros(100, 16), "100 rows"),
    ],
)
def test_what_does_not_fit_is_named(h3: Maker, tmp_path: Path, name: str, value: Tensor | None, message: str) -> None:
    state = h3()
    if value is None:
        del state[name]
    else:
        state[name] = value
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(InputError, match=message):
        _read(tmp_path / "model.pt", num_heads=4)


def test_verbs_on_dna_refuse_a_text_model(h3: Maker, tmp_path: Path) -> None:
    torch.save(h3(), tmp_path / "model.pt")
    with pytest.raises(ConfigError, match="'gpt2'"):
        log_likelihood(_read(tmp_path / "model.pt", num_heads=4), ["ACGT"])
