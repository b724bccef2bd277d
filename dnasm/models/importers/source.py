"""Reading a foreign checkpoint: safetensors, or a pickle of tensors and nothing else."""

import hashlib
import math
import pickle
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dnasm.errors import InputError
from dnasm.models.checkpoint import CONFIG, read_json, read_tensors

WEIGHT_FILES = ("weights.ckpt", "model.safetensors", "pytorch_model.bin", "model.pt")


@dataclass(frozen=True)
class Source:
    """A foreign checkpoint as it stands in its file."""

    path: Path
    tensors: dict[str, Tensor]
    config: dict[str, Any]
    """Its config.json; empty where there is none."""
    has_config: bool
    lightning: bool
    """Whether the tensors stood under `state_dict`, beside a trainer's own state."""

    def provenance(self) -> dict[str, Any]:
        """What the model directory will remember of it."""
        digest = hashlib.sha256()
        with self.path.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
        return {"source_file": self.path.name, "source_sha256": digest.hexdigest(), "source_config": self.config}


def read_source(path: Path, trust_pickle: bool) -> Source:
    """Read a checkpoint file, or the one checkpoint of a folder, and the config.json beside it.

    Args:
        path: File or folder.
        trust_pickle: Unpickle whatever the file holds, which can run any code, where the safe reader refuses.

    Raises:
        InputError: If there is none, it is damaged, or it holds more than tensors and plain values.
    """
    weights = weights_file(path)
    config_path = weights.with_name(CONFIG)
    config = read_json(config_path) if config_path.exists() else {}
    if weights.suffix == ".safetensors":
        return Source(weights, read_tensors(weights), config, config_path.exists(), lightning=False)
    content = _read_pickle(weights, trust_pickle)
    lightning = isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping)
    tensors = content["state_dict"] if lightning else content
    if not isinstance(tensors, Mapping) or not tensors:
        raise InputError(f"{weights}: holds a {type(tensors).__name__}, not a table of tensors")
    odd = [str(name) for name, value in tensors.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if odd:
        raise InputError(f"{weights}: these entries are no tensors: {', '.join(odd[:10])}")
    return Source(weights, dict(tensors), config, config_path.exists(), lightning)


def rename(tensors: Mapping[str, Tensor], new_name: Callable[[str], str], where: Path) -> dict[str, Tensor]:
    """Give every tensor its new name; two that would meet are an error."""
    names = {old: new_name(old) for old in tensors}
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        meeting = [old for old, new in names.items() if new in twice]
        raise InputError(f"{where}: several tensors stand for one: {', '.join(meeting)}")
    return {names[old]: tensor for old, tensor in tensors.items()}


def widened(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Half precisions as float32, so that filters are made of what the file holds, not of its rounding again."""
    return {name: t.float() if t.is_floating_point() and t.itemsize < 4 else t for name, t in tensors.items()}


def size(tensors: Mapping[str, Tensor], name: str, axis: int, where: Path) -> int:
    """Read a dimension off a tensor.

    Raises:
        InputError: If the tensor is missing or has no such axis.
    """
    if name not in tensors:
        raise InputError(f"{where}: missing {name}; is this a checkpoint of the kind that was named?")
    if axis >= tensors[name].ndim:
        raise InputError(f"{where}: {name} has shape {list(tensors[name].shape)}, with no axis {axis}")
    return tensors[name].shape[axis]


def count_layers(tensors: Mapping[str, Tensor], where: Path) -> int:
    """Count `backbone.layers.0`, `.1`, ...

    Raises:
        InputError: If there is none, or a number is left out.
    """
    parts = [name.split(".") for name in tensors if name.startswith("backbone.layers.")]
    found = {int(part[2]) for part in parts if len(part) > 2 and part[2].isdecimal()}
    if not found or found != set(range(len(found))):
        raise InputError(f"{where}: layers are numbered {sorted(found)[:20]}, not 0, 1, 2, ...")
    return len(found)


def attention_layers(tensors: Mapping[str, Tensor], layers: int) -> list[int]:
    """Find the layers whose mixer is attention: the file knows, published descriptions differ from it."""
    return [i for i in range(layers) if f"backbone.layers.{i}.mixer.Wqkv.weight" in tensors]


def check_stated(stated: Mapping[str, Any], found: Mapping[str, Any], where: Path) -> None:
    """Compare what a config.json states with what the tensors show; what it does not state is not compared.

    Raises:
        InputError: With every contradiction.
    """
    wrong = [
        f"{name} is {stated[name]!r}, the weights show {found[name]!r}"
        for name in found
        if stated.get(name) is not None and stated[name] != found[name]
    ]
    if wrong:
        raise InputError(f"{where.with_name(CONFIG)} contradicts {where.name}: " + "; ".join(wrong))


def number(stated: Mapping[str, Any], name: str, default: float, where: Path) -> float:
    """Read a number that a config.json states, else take the default.

    Raises:
        InputError: If it is no finite number.
    """
    value = stated.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{where.with_name(CONFIG)}: {name} is {value!r}, not a number that is finite")
    return float(value)


def section(stated: Mapping[str, Any], name: str, where: Path) -> dict[str, Any]:
    """Read an object of settings that a config.json may state.

    Raises:
        InputError: If it is no object.
    """
    value = stated.get(name) or {}
    if not isinstance(value, dict):
        raise InputError(f"{where.with_name(CONFIG)}: {name} is {value!r}, not an object of settings")
    return value


def weights_file(path: Path) -> Path:
    """Find the checkpoint that a path names: a file, or the only one in a folder.

    Raises:
        InputError: If there is none, or there are several.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    there = [path / name for name in WEIGHT_FILES if (path / name).is_file()]
    if len(there) != 1:
        what = ", ".join(file.name for file in there) or f"none of {', '.join(WEIGHT_FILES)}"
        raise InputError(f"{path}: expected one checkpoint in this folder and found {what}; name the file itself")
    return there[0]


def _read_pickle(path: Path, trust: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not trust:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{path}: holds more than tensors and plain values, or is damaged ({reason}); unpickling it can run "
                "any code: if you trust where it comes from, add --trust-pickle"
            ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot read the checkpoint: {error}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # a pickle may raise whatever its classes raise
        raise InputError(f"{path}: cannot read the checkpoint: {type(error).__name__}: {error}") from error
