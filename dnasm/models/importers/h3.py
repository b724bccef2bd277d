"""H3's language models, as the original code saves them, the older names of the published files included."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dnasm.config import ModelConfig
from dnasm.errors import InputError
from dnasm.memory import ROWS
from dnasm.models.backbone import LanguageModel
from dnasm.models.checkpoint import empty_model, fill
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
from dnasm.models.mixers.attention import rotary_frequencies
from dnasm.presets import preset, preset_names

_MIXER = "backbone.layers.{}.mixer."
_EMBEDDING, _HEAD = "backbone.embeddings.word_embeddings.weight", "lm_head.weight"
_ROTARY = ".mixer.rotary_emb.inv_freq"


@dataclass(frozen=True, kw_only=True)
class H3Settings:
    """What the tensors of an H3 checkpoint do not show; None: what config.json or the published model says."""

    num_heads: int | None = None
    rotary_dim: int | None = None
    discretization: Literal["bilinear", "zoh"] | None = None


def import_h3(source: Source, settings: H3Settings | None = None) -> tuple[LanguageModel, list[str]]:
    """Build the model that an H3 checkpoint holds, in float32 and eval mode.

    Attention layers are where the file has them. The number of their heads and the rotary channels cannot be seen in
    the weights: they come from the settings, else from config.json, else from the published model of that shape.

    Args:
        source: What `read_source` read.
        settings: What the caller knows.

    Returns:
        The model, and a line for each thing that was taken from a published model's description.

    Raises:
        InputError: If a tensor is missing, unexpected or of another shape, each named, or something is not known.
    """
    found = _present_names(_official_names(source), source.path)
    rotary = _stored_rotary(found, source.path)
    tied = _HEAD not in found
    if not tied and _EMBEDDING in found and torch.equal(found[_HEAD], found[_EMBEDDING]):
        del found[_HEAD]
        tied = True
    config, notes = _configuration(found, source, settings or H3Settings(), rotary, tied)
    model = empty_model(config)
    fill(model, {_own_name(name): tensor for name, tensor in found.items()}, str(source.path))
    return model.eval(), notes


def _official_names(source: Source) -> dict[str, Tensor]:
    """Undo the trainer's prefix and the names of the published files."""
    kept = {name: tensor for name, tensor in source.tensors.items() if "torchmetrics" not in name}

    def new_name(name: str) -> str:
        name = name.removeprefix("model.") if source.lightning else name
        name = re.sub(r"^s4seq\.encoder\.", "backbone.", name)
        name = re.sub(r"^embedding\.", "backbone.embeddings.word_embeddings.", name)
        return re.sub(r"^backbone\.norm\.", "backbone.ln_0.", name)

    return widened(rename(kept, new_name, source.path))


def _present_names(found: dict[str, Tensor], where: Path) -> dict[str, Tensor]:
    """Move the norms of files from before norms stood in front of their layer: each belongs to the layer after it."""
    if "backbone.ln_0.weight" not in found:
        return found
    layers = count_layers(found, where)
    moves = {"backbone.ln_0": "backbone.layers.0.norm1"}
    for i in range(layers):
        after = f"backbone.layers.{i + 1}.norm1" if i + 1 < layers else "backbone.ln_f"
        moves |= {f"backbone.layers.{i}.norm1": f"backbone.layers.{i}.norm2", f"backbone.layers.{i}.norm2": after}

    def new_name(name: str) -> str:
        stem, _, last = name.rpartition(".")
        return f"{moves[stem]}.{last}" if stem in moves else name

    return rename(found, new_name, where)


def _own_name(name: str) -> str:
    return re.sub(r"\.mixer\.(kernel|ssm_k_kernel)\.kernel\.", r".mixer.\1.", name)


def _stored_rotary(found: dict[str, Tensor], where: Path) -> int | None:
    """Take stored rotary frequencies out, once they are seen to be ours; return the channels that they turn."""
    dims = set()
    for name in [name for name in found if name.endswith(_ROTARY)]:
        stored = found.pop(name)
        dims.add(2 * stored.numel())
        if not torch.allclose(stored.double().flatten(), rotary_frequencies(2 * stored.numel()), rtol=1e-4):
            raise InputError(f"{where}: {name} holds other frequencies than 10000^(-2i/{2 * stored.numel()})")
    if len(dims) > 1:
        raise InputError(f"{where}: attention layers turn different numbers of channels: {sorted(dims)}")
    return dims.pop() if dims else None


def _configuration(
    found: Mapping[str, Tensor], source: Source, settings: H3Settings, rotary: int | None, tied: bool
) -> tuple[ModelConfig, list[str]]:
    where = source.path
    layers = count_layers(found, where)
    attention = attention_layers(found, layers)
    first = next((i for i in range(layers) if i not in attention), 0)
    mixer = _MIXER.format(first)
    rows, d_model = (size(found, _EMBEDDING, axis, where) for axis in (0, 1))
    vocabulary = {count: name for name, count in ROWS.items()}.get(rows)
    if vocabulary is None:
        raise InputError(
            f"{where}: the embedding has {rows} rows; dnasm reads {ROWS['gpt2']} (GPT-2) and {ROWS['dna']} (DNA)"
        )
    ssm = section(source.config, "ssm_cfg", where)
    heads = size(found, mixer + "D", 0, where)
    shapes = {
        "d_model": d_model,
        "n_layer": layers,
        "d_inner": size(found, "backbone.layers.0.mlp.fc1.weight", 0, where),
    }
    ssm_shapes = {
        "d_state": size(found, mixer + "ssm_k_kernel.kernel.B", 1, where),
        "head_dim": d_model // max(heads, 1),
    }
    check_stated(source.config, shapes | {"attn_layer_idx": attention}, where)
    check_stated(ssm, ssm_shapes, where)
    if ssm.get("mode", "diag") != "diag":
        raise InputError(f"{where}: ssm_cfg.mode is {ssm['mode']!r}; dnasm's H3 has the diagonal one alone")
    num_heads, rotary_dim, notes = _attention(attention, source, settings, rotary, d_model, layers)
    c = source.config
    config = ModelConfig(
        family="h3",
        vocabulary=vocabulary,  # type: ignore[arg-type]
        d_model=d_model,
        num_layers=layers,
        d_inner=shapes["d_inner"],
        max_length=None,
        attention_layers=attention,
        num_heads=num_heads,
        rotary_dim=rotary_dim,
        state_size=ssm_shapes["d_state"],
        head_dim=ssm_shapes["head_dim"],
        discretization=settings.discretization or _choice(ssm.get("disc", "bilinear"), where),
        embedding_dropout=number(c, "embed_dropout", 0.1, where),
        residual_dropout=number(c, "resid_dropout", 0.0, where),
        layer_norm_epsilon=number(c, "layer_norm_epsilon", 1e-5, where),
        tie_embeddings=tied,
    )
    return config, notes


def _attention(
    attention: list[int], source: Source, settings: H3Settings, rotary: int | None, d_model: int, layers: int
) -> tuple[int, int, list[str]]:
    """Find the number of heads and the rotary channels, and what was taken from a published model for it."""
    if not attention:
        return 1, 0, []
    stated = section(source.config, "attn_cfg", source.path)
    published = _published(d_model, layers, attention)
    notes = []
    num_heads = settings.num_heads or stated.get("num_heads")
    if num_heads is None and published is not None:
        num_heads = published.num_heads
        notes.append(f"num_heads {num_heads}: as in the published H3 of this shape")
    if not isinstance(num_heads, int):
        raise InputError(
            f"{source.path}: layers {attention} are attention, and neither a config.json beside the file nor the "
            "published models say how many heads they have: give --num-heads"
        )
    given = settings.rotary_dim
    if given is None and stated.get("rotary_emb_dim") is not None:
        given = int(number(stated, "rotary_emb_dim", 0.0, source.path))
    if given is None and rotary is None and published is not None and not stated:
        given = published.rotary_dim
        notes.append(f"rotary_dim {given}: as in the published H3 of this shape")
    if rotary is not None and given not in (None, rotary):
        raise InputError(f"{source.path}: rotary_dim is given as {given}, the file stores frequencies for {rotary}")
    rotary_dim = rotary if rotary is not None else given or 0
    return num_heads, rotary_dim, notes


def _published(d_model: int, layers: int, attention: list[int]) -> ModelConfig | None:
    presets = [preset(name) for name in preset_names()]
    same = (c for c in presets if (c.d_model, c.num_layers, c.attention_layers) == (d_model, layers, attention))
    return next(same, None)


def _choice(value: Any, where: Path) -> Literal["bilinear", "zoh"]:
    if value not in ("bilinear", "zoh"):
        raise InputError(f"{where}: ssm_cfg.disc is {value!r}; dnasm knows bilinear and zoh")
    return value
