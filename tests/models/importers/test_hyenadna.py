"""HyenaDNA's checkpoints in both layouts, the official code's own outputs, and what must be refused."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dnasm.config import ModelConfig
from dnasm.errors import ConfigError, InputError, OutputError
from dnasm.models import LanguageModel
from dnasm.models.importers import export_hyenadna, import_hyenadna
from dnasm.models.importers.source import read_source
from dnasm.presets import preset

Maker = Callable[..., dict[str, Tensor]]
State = dict[str, Tensor]

ORIGINAL_CONFIG: dict[str, Any] = {
    "d_model": 16, "n_layer": 2, "d_inner": 64, "vocab_size": 12, "resid_dropout": 0.0, "embed_dropout": 0.1,
    "fused_mlp": False, "checkpoint_mixer": False, "residual_in_fp32": True, "pad_vocab_size_multiple": 8,
    "layer": {"_name_": "hyena", "emb_dim": 5, "filter_order": 8, "local_order": 3, "l_max": 60, "modulate": True,
              "w": 10, "lr": 0.0006, "wd": 0.0, "lr_pos_emb": 0.0},
}  # fmt: skip
HUB_CONFIG: dict[str, Any] = {
    "activation_freq": 10, "d_inner": 64, "d_model": 16, "emb_dim": 5, "embed_dropout": 0.1, "filter_order": 8,
    "hyena_dropout": 0.0, "hyena_filter_dropout": 0.0, "hyena_order": 2, "layer_norm_epsilon": 1e-05,
    "max_seq_len": 60, "model_type": "hyenadna", "n_layer": 2, "num_inner_mlps": 2, "pad_token_id": 4,
    "pad_vocab_size_multiple": 8, "short_filter_order": 3, "tie_word_embeddings": False, "train_freq": True,
    "use_bias": True, "vocab_size": 12,
}  # fmt: skip


def _original(folder: Path, state: State, config: dict[str, Any] | None = ORIGINAL_CONFIG, **more: Any) -> Path:
    folder.mkdir()
    torch.save({"state_dict": {f"model.{k}": v for k, v in state.items()}, **more}, folder / "weights.ckpt")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def _hub(folder: Path, state: State, config: dict[str, Any] = HUB_CONFIG) -> Path:
    folder.mkdir()
    once = {k: v.clone() for k, v in state.items() if not re.search(r"\.[35]\.freq$", k)}
    save_file(
        {k if k.startswith("lm_head") else f"hyena.{k}": v for k, v in once.items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _read(path: Path, shift: float | None = None) -> LanguageModel:
    return import_hyenadna(read_source(path, trust_pickle=False), shift)


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(7, 11, (2, 60), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("length", [64, 1000, 1026])
def test_outputs_of_the_official_code(shared: Path, length: int) -> None:
    folder = shared / "golden" / "hyenadna-tiny-1k"
    model, golden = _read(folder), load_file(folder / "golden.safetensors")
    ids = golden[f"input_ids_{length}"]
    assert golden[f"logits_{length}"].abs().max() > 1
    torch.testing.assert_close(model.hidden(ids), golden[f"hidden_{length}"], atol=1e-4, rtol=0)
    torch.testing.assert_close(model(ids), golden[f"logits_{length}"], atol=1e-4, rtol=0)
    assert model.config == preset("hyenadna-tiny-1k").__class__(**{**vars(preset("hyenadna-tiny-1k")), "num_heads": 1})


def test_the_other_modulation_shift_misses_them(shared: Path) -> None:
    folder = shared / "golden" / "hyenadna-tiny-1k"
    golden = load_file(folder / "golden.safetensors")
    off = _read(folder, 0.0)(golden["input_ids_1000"]) - golden["logits_1000"]
    assert off.abs().max() > 1e-2


@pytest.mark.parametrize("tied", [True, False])
def test_every_layout_is_the_same_model(hyenadna: Maker, ids: Tensor, tmp_path: Path, tied: bool) -> None:
    state = hyenadna(tied=tied)
    checkpointed = {re.sub(r"\.(mixer|mlp)\.", r".\1.layer.", name): value for name, value in state.items()}
    models = [
        _read(_original(tmp_path / "a", state)),
        _read(_original(tmp_path / "b", checkpointed) / "weights.ckpt"),
        _read(_original(tmp_path / "c", state, None)),
        _read(_hub(tmp_path / "d", state)),
    ]
    assert models[0].config.tie_embeddings is tied
    assert models[0].config.suffix_separator
    for model in models:
        assert model.config == models[0].config
        assert torch.equal(model(ids), models[0](ids))
    assert models[0](ids).std() > 0.1


def test_every_tensor_is_kept_as_it_is(hyenadna: Maker, tmp_path: Path) -> None:
    """z, t and deltas of the file above all: a model that made its own would pass with default ones."""
    state = hyenadna()
    kept = _read(_original(tmp_path / "a", state)).state_dict()
    assert state.keys() - kept.keys() == {"lm_head.weight"}
    assert kept.keys() <= state.keys()
    for name in kept:
        assert torch.equal(kept[name], state[name]), name


def test_the_shift_is_the_flags_then_the_files_then_the_default(hyenadna: Maker, tmp_path: Path) -> None:
    state = hyenadna()
    stated = ORIGINAL_CONFIG | {"layer": ORIGINAL_CONFIG["layer"] | {"shift": 0.02}}
    plain, other = _original(tmp_path / "a", state), _original(tmp_path / "b", state, stated)
    assert _read(plain).config.modulation_shift == 0.05
    assert _read(plain, 0.0).config.modulation_shift == 0.0
    assert _read(other).config.modulation_shift == 0.02
    assert _read(other, 0.0).config.modulation_shift == 0.0


def test_a_longer_input_is_never_cut(hyenadna: Maker, tmp_path: Path) -> None:
    model = _read(_original(tmp_path / "a", hyenadna()))
    with pytest.raises(ConfigError, match=r"61 tokens.*max_length is 60"):
        model(torch.full((1, 61), 7))


def test_metrics_of_training_are_no_weights(hyenadna: Maker, ids: Tensor, tmp_path: Path) -> None:
    state = hyenadna()
    folder = tmp_path / "a"
    _original(folder, state)
    content = torch.load(folder / "weights.ckpt", weights_only=True)
    content["state_dict"]["train_torchmetrics.num_tokens.count"] = torch.tensor(3)
    torch.save(content, folder / "weights.ckpt")
    assert _read(folder)(ids).shape == (2, 60, 16)


def test_half_precision_is_widened(hyenadna: Maker, ids: Tensor, tmp_path: Path) -> None:
    state = {name: value.bfloat16() for name, value in hyenadna().items()}
    model = _read(_original(tmp_path / "a", state))
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    again = _read(_original(tmp_path / "b", {name: value.float() for name, value in state.items()}))
    assert torch.equal(model(ids), again(ids))


def _drop(name: str) -> Callable[[State], Any]:
    return lambda state: state.pop(name)


def _put(name: str, value: Tensor) -> Callable[[State], Any]:
    return lambda state: state.update({name: value})


LAYER = "backbone.layers.1."
FILTER = LAYER + "mixer.filter_fn."


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_drop(LAYER + "norm2.bias"), r"missing backbone\.layers\.1\.norm2\.bias \[16\]"),
        (_drop(FILTER + "pos_emb.z"), r"missing backbone\.layers\.1\.mixer\.filter_fn\.pos_emb\.z \[1, 60, 5\]"),
        (_drop("lm_head.weight"), r"missing lm_head\.weight \[16, 16\]"),
        (_drop("backbone.embeddings.word_embeddings.weight"), "missing backbone.embeddings"),
        (_put("decoder.weight", torch.zeros(2)), r"unexpected decoder\.weight \[2\]"),
        (
            _put(LAYER + "mlp.fc1.bias", torch.zeros(63)),
            r"fc1\.bias has shape \[63\], the configuration asks for \[64\]",
        ),
        (_put(FILTER + "implicit_filter.5.freq", torch.zeros(1, 8)), r"5\.freq differs from another freq"),
        (_put(LAYER + "mixer.layer.D", torch.zeros(2)), r"unexpected backbone\.layers\.1\.mixer\.D"),
        (_put("backbone.layers.3.norm1.bias", torch.zeros(16)), r"numbered \[0, 1, 3\]"),
        (_put(LAYER + "norm1.bias", torch.full((16,), torch.inf)), "not finite"),
        (_put(LAYER + "mlp.layer.fc1.bias", torch.zeros(64)), "several tensors stand for one"),
        (_put("backbone.embeddings.word_embeddings.weight", torch.zeros(12, 16)), "12 rows"),
    ],
)
def test_what_does_not_fit_is_named(
    hyenadna: Maker, tmp_path: Path, spoil: Callable[[State], Any], message: str
) -> None:
    state = hyenadna()
    spoil(state)
    with pytest.raises(InputError, match=message) as caught:
        _read(_original(tmp_path / "a", state))
    assert str(tmp_path / "a" / "weights.ckpt") in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"l_max": 1026}, "l_max is 1026, the weights show 60"),
        ({"order": 3}, "order is 3, dnasm's Hyena knows 2 alone"),
        ({"modulate": False}, "modulate is False"),
        ({"w": "10"}, "w is '10', not a number"),
        ({"shift": "0.05"}, r"config\.json: shift is '0\.05', not a number"),
        ({"shift": math.nan}, "shift is nan, not a number that is finite"),
        ({"shift": None}, "shift is None, not a number"),
    ],
)
def test_a_config_that_contradicts_is_named(hyenadna: Maker, tmp_path: Path, layer: Any, message: str) -> None:
    config = ORIGINAL_CONFIG | {"layer": ORIGINAL_CONFIG["layer"] | layer}
    with pytest.raises(InputError, match=message):
        _read(_original(tmp_path / "a", hyenadna(), config))


def test_sections_that_are_none_are_named(hyenadna: Maker, tmp_path: Path) -> None:
    state = hyenadna()
    for i, section in enumerate(("layer", "attn_cfg")):
        state["backbone.layers.1.mixer.Wqkv.weight"] = torch.zeros(48, 16)
        with pytest.raises(InputError, match=rf"{section} is \[3\], not an object of settings"):
            _read(_original(tmp_path / str(i), state, ORIGINAL_CONFIG | {section: [3]}))


def test_a_frequency_that_was_not_trained_is_the_configs(hyenadna: Maker, ids: Tensor, tmp_path: Path) -> None:
    state = hyenadna()
    for name in [name for name in state if name.endswith("freq")]:
        state[name] = torch.full((1, 8), 7.0)
    without = {name: value for name, value in state.items() if not name.endswith("freq")}
    config = HUB_CONFIG | {"train_freq": False, "activation_freq": 7}
    model = _read(_hub(tmp_path / "a", without, config))
    assert torch.equal(model(ids), _read(_original(tmp_path / "b", state))(ids))
    with pytest.raises(InputError, match=r"missing .*1\.freq"):
        _read(_hub(tmp_path / "c", without))


@pytest.mark.parametrize("tied", [True, False])
def test_exported_names_are_the_official_ones(hyenadna: Maker, ids: Tensor, tmp_path: Path, tied: bool) -> None:
    state = hyenadna(tied=tied)
    model = _read(_original(tmp_path / "a", state), 0.0)
    written = torch.load(export_hyenadna(model, tmp_path / "out") / "weights.ckpt", weights_only=True)["state_dict"]
    assert written.keys() == {f"model.{name}" for name in state}
    for name, value in state.items():
        assert torch.equal(written[f"model.{name}"], value), name
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["layer"]["l_max"] == 60
    assert config["layer"]["shift"] == 0.0, "the stand-alone file passes it on to its modulation"
    assert config["n_layer"] == 2
    back = _read(tmp_path / "out")
    assert back.config == model.config
    assert torch.equal(back(ids), model(ids))
    with pytest.raises(OutputError, match="exists already"):
        export_hyenadna(model, tmp_path / "out")
    export_hyenadna(model, tmp_path / "out", replace=True)


def test_what_hyenadna_cannot_hold_is_not_exported(
    configs: dict[str, ModelConfig], make_model: Callable[[ModelConfig], LanguageModel], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="this model is h3"):
        export_hyenadna(make_model(configs["hybrid"]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
