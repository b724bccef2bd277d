"""HyenaDNA's checkpoints: the original `weights.ckpt`, Hugging Face's safetensors, and back to the original names."""

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dnasm.config import ModelConfig
from dnasm.errors import ConfigError, InputError, OutputError
from dnasm.models.backbone import LanguageModel
from dnasm.models.checkpoint import CONFIG, empty_model, fill, tensors, write_whole
from dnasm.models.importers.source import (
    Source,
    attention_layers,
    check_stated,
    count_layers,
    number,
    rename,
    section,
    size,
    widened,
)
from dnasm.vocabulary import NUM_ROWS, NUM_TOKENS

DEFAULT_SHIFT = 0.05
"""What the stand-alone file and every Hugging Face model add to the decay window; the training code adds 0."""

_MIXER = "backbone.layers.{}.mixer."
_EMBEDDING, _HEAD = "backbone.embeddings.word_embeddings.weight", "lm_head.weight"
_ONLY = {
    "order": 2,
    "modulate": True,
    "normalized": False,
    "use_bias": True,
    "bidirectional": False,
    "max_position_embeddings": 0,
    "hyena_dropout": 0,
    "hyena_filter_dropout": 0,
    "dropout": 0,
    "filter_dropout": 0,
    "outer_mixing": False,
}
"""Settings of the original code that have one value in every published model, and no other here."""
_FREQUENCY = re.compile(r"(.*\.filter_fn\.implicit_filter\.)(\d+)\.freq")


def import_hyenadna(source: Source, modulation_shift: float | None = None) -> LanguageModel:
    """Build the model that a HyenaDNA checkpoint holds, in float32 and eval mode.

    Names may carry `model.` or `hyena.` in front and `.layer` inside (trained with checkpointing); the sine's
    frequency may stand once or at each of its uses; the head may be the embedding, or its own. The positions z and t
    and the decay rates are those of the file.

    Args:
        source: What `read_source` read.
        modulation_shift: Constant of the decay window; None: what config.json says (`layer.shift`), else 0.05.

    Raises:
        InputError: If a tensor is missing, unexpected or of another shape, each named, or config.json contradicts.
    """
    found = _own_names(source)
    stated = _stated(source)
    found = _unite_frequencies(found, stated, source.path)
    tied = stated.get("tie_word_embeddings") is True
    if _HEAD in found and _EMBEDDING in found and torch.equal(found[_HEAD], found[_EMBEDDING]):
        del found[_HEAD]
        tied = True
    model = empty_model(_configuration(found, stated, tied, modulation_shift, source.path))
    fill(model, found, str(source.path))
    return model.eval()


def export_hyenadna(model: LanguageModel, directory: Path, *, replace: bool = False) -> Path:
    """Write `weights.ckpt` and `config.json` as the original code reads them.

    Raises:
        ConfigError: If the model is no plain Hyena model of DNA.
        OutputError: If the folder exists, unless it may be replaced, or cannot be written.
    """
    c = model.config
    if c.family != "hyena" or c.attention_layers or not c.causal or c.vocabulary != "dna" or c.short_filter != 3:
        raise ConfigError(
            f"HyenaDNA's format holds Hyena layers with 3-tap short filters over DNA, this model is {c.family} "
            f"(attention_layers {c.attention_layers}, short_filter {c.short_filter}, vocabulary {c.vocabulary})"
        )
    if directory.exists() and not replace:
        raise OutputError(f"{directory} exists already; choose another place or pass --force to replace it")
    state = {f"model.{name}": tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    head = tensors(model)[_EMBEDDING if c.tie_embeddings else _HEAD]
    state[f"model.{_HEAD}"] = head.detach().cpu()

    packed = io.BytesIO()  # torch tells of a full disk by a RuntimeError; a plain write by an OSError
    torch.save({"state_dict": state}, packed)

    def write(draft: Path) -> None:
        (draft / "weights.ckpt").write_bytes(packed.getbuffer())
        (draft / CONFIG).write_text(json.dumps(_official_config(c), indent=1) + "\n")

    return write_whole(directory, write)


def _official_config(c: ModelConfig) -> dict[str, Any]:
    return {
        "d_model": c.d_model,
        "n_layer": c.num_layers,
        "d_inner": c.d_inner,
        "vocab_size": NUM_TOKENS,
        "pad_vocab_size_multiple": 8,
        "resid_dropout": c.residual_dropout,
        "embed_dropout": c.embedding_dropout,
        "layer_norm_epsilon": c.layer_norm_epsilon,
        "residual_in_fp32": True,
        "layer": {
            "_name_": "hyena",
            "emb_dim": c.filter_embedding,
            "filter_order": c.filter_order,
            "num_inner_mlps": c.filter_layers,
            "short_filter_order": c.short_filter,
            "l_max": c.max_length,
            "modulate": True,
            "shift": c.modulation_shift,
            "w": c.activation_frequency,
            "lr_pos_emb": 0.0,
        },
    }


def _own_names(source: Source) -> dict[str, Tensor]:
    """Strip what trainers and wrappers put around the names; metrics of a training run are no weights."""
    kept = {name: tensor for name, tensor in source.tensors.items() if "torchmetrics" not in name}

    def new_name(name: str) -> str:
        name = re.sub(r"^(model\.|hyena\.)", "", name)
        return re.sub(r"\.(mixer|mlp)\.layer\.", r".\1.", name)

    return widened(rename(kept, new_name, source.path))


def _stated(source: Source) -> dict[str, Any]:
    """Bring the two layouts of config.json under one set of names: the original's."""
    c = dict(source.config)
    c |= section(c, "layer", source.path)
    c.pop("layer", None)
    other = {
        "max_seq_len": "l_max",
        "activation_freq": "w",
        "hyena_order": "order",
        "local_order": "short_filter_order",
    }
    for theirs, ours in other.items():
        if theirs in c:
            c[ours] = c.pop(theirs)
    for name, known in _ONLY.items():
        if c.get(name) not in (None, known):
            raise InputError(
                f"{source.path.with_name(CONFIG)}: {name} is {c[name]!r}, dnasm's Hyena knows {known!r} alone"
            )
    return c


def _unite_frequencies(found: Mapping[str, Tensor], stated: Mapping[str, Any], where: Path) -> dict[str, Tensor]:
    """Keep the one frequency that all sines of a filter share, under the name of its first use."""
    united = {name: tensor for name, tensor in found.items() if not _FREQUENCY.fullmatch(name)}
    for name in found:
        if match := _FREQUENCY.fullmatch(name):
            first = f"{match[1]}1.freq"
            known = united.setdefault(first, found[name])
            if not torch.equal(known, found[name]):
                raise InputError(f"{where}: {name} differs from another freq of its filter; they are one in HyenaDNA")
    if stated.get("train_freq") is False and not any(_FREQUENCY.fullmatch(name) for name in united):
        for name in found:
            if name.endswith(".filter_fn.implicit_filter.0.bias"):
                frequency = torch.full((1, size(found, name, 0, where)), number(stated, "w", 1.0, where))
                united[name.replace("0.bias", "1.freq")] = frequency
    return united


def _configuration(
    found: Mapping[str, Tensor], stated: Mapping[str, Any], tied: bool, shift: float | None, where: Path
) -> ModelConfig:
    """Read the architecture off the tensors, and hold config.json against it."""
    layers = count_layers(found, where)
    attention = attention_layers(found, layers)
    hyena = next((i for i in range(layers) if i not in attention), 0)
    filters = _MIXER.format(hyena) + "filter_fn."
    rows, d_model = (size(found, _EMBEDDING, axis, where) for axis in (0, 1))
    if rows != NUM_ROWS:
        raise InputError(f"{where}: the embedding has {rows} rows, HyenaDNA's has {NUM_ROWS} (12 tokens, padded)")
    inner = [name for name in found if re.fullmatch(re.escape(filters) + r"implicit_filter\.\d+\.bias", name)]
    shapes = {
        "d_model": d_model,
        "n_layer": layers,
        "d_inner": size(found, "backbone.layers.0.mlp.fc1.weight", 0, where),
        "l_max": size(found, filters + "pos_emb.z", 1, where),
        "emb_dim": size(found, filters + "pos_emb.z", 2, where),
        "filter_order": size(found, filters + "implicit_filter.0.weight", 0, where),
        "short_filter_order": size(found, _MIXER.format(hyena) + "short_filter.weight", 2, where),
        "num_inner_mlps": len(inner) - 1,
    }
    check_stated(stated, shapes | ({"attn_layer_idx": attention} if attention else {}), where)
    return ModelConfig(
        family="hyena",
        d_model=shapes["d_model"],
        num_layers=shapes["n_layer"],
        d_inner=shapes["d_inner"],
        max_length=shapes["l_max"],
        attention_layers=attention,
        num_heads=_heads(stated, where) if attention else 1,
        short_filter=shapes["short_filter_order"],
        filter_order=shapes["filter_order"],
        filter_embedding=shapes["emb_dim"],
        filter_layers=shapes["num_inner_mlps"],
        activation_frequency=number(stated, "w", 10.0, where),
        modulation_shift=number(stated, "shift", DEFAULT_SHIFT, where) if shift is None else shift,
        embedding_dropout=number(stated, "embed_dropout", 0.1, where),
        residual_dropout=number(stated, "resid_dropout", 0.0, where),
        layer_norm_epsilon=number(stated, "layer_norm_epsilon", 1e-5, where),
        tie_embeddings=tied,
        suffix_separator=True,
    )


def _heads(stated: Mapping[str, Any], where: Path) -> int:
    heads = section(stated, "attn_cfg", where).get("num_heads")
    if not isinstance(heads, int):
        raise InputError(f"{where}: has attention layers, and no config.json beside it gives attn_cfg.num_heads")
    return heads
