"""A model on disk: a directory of `config.json`, `model.safetensors`, `README.md` and `provenance.json`.

Nothing in it is ever executed or unpickled, and nothing is guessed: an unknown setting, a missing or unexpected
tensor, a wrong shape or a weight that is not finite is an error that names it.
"""

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dnasm import __version__
from dnasm.config import ModelConfig
from dnasm.errors import ConfigError, InputError, MissingExtra, OutputError
from dnasm.models.backbone import LanguageModel, build_model, cast_model, mark_parameters
from dnasm.presets import model_config

SCHEMA_VERSION = 1
CONFIG, WEIGHTS, CARD, PROVENANCE = "config.json", "model.safetensors", "README.md", "provenance.json"

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_MAX_CONFIG_BYTES = 1 << 20


def load(
    directory: str | os.PathLike[str], device: str | torch.device = "auto", dtype: torch.dtype | str | None = None
) -> LanguageModel:
    """Read a model directory, ready for use (in eval mode).

    Args:
        directory: Model directory, or where no such folder exists the `owner/name` of one on the Hugging Face hub.
        device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:N`.
        dtype: Precision of the weights, as `torch.bfloat16` or "bfloat16"; None: as stored. Filters stay in float32.

    Raises:
        InputError: If a file is missing, damaged, or the weights are not those that the configuration asks for.
        ConfigError: If config.json has an unknown key or a wrong type, or the device or dtype is none.
    """
    target, precision = pick_device(device), _pick_dtype(dtype)
    folder = _locate(directory)
    model = empty_model(read_config(folder))
    fill(model, read_tensors(folder / WEIGHTS), str(folder / WEIGHTS))
    if precision is not None:
        cast_model(model, precision)
    return model.to(target).eval()


def save_model(
    model: LanguageModel,
    directory: str | os.PathLike[str],
    provenance: Mapping[str, Any],
    card: str | None = None,
    *,
    replace: bool = False,
) -> Path:
    """Write a model directory; it appears whole or not at all.

    Args:
        model: What to write; its weights are stored in their own precision.
        directory: Folder to make.
        provenance: Where the model comes from, as JSON values: data, steps, seed, source file and its hash.
        card: Text of the model card; None: one is made of the configuration and provenance.
        replace: Replace a folder that exists.

    Raises:
        OutputError: If the folder exists, or cannot be written.
    """
    target = Path(directory)
    if target.exists() and not replace:
        raise OutputError(f"{target} exists already; choose another place or pass --force to replace it")
    config = {"schema_version": SCHEMA_VERSION, **asdict(model.config)}
    origin = {"dnasm_version": __version__, **provenance}
    files = {CONFIG: _json(config), PROVENANCE: _json(origin), CARD: card or model_card(model, origin)}
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors(model).items()}

    def write(draft: Path) -> None:
        for name, text in files.items():
            (draft / name).write_text(text, encoding="utf-8")
        save_file(weights, draft / WEIGHTS)
        (draft / WEIGHTS).chmod((draft / CONFIG).stat().st_mode)  # safetensors makes it private

    return write_whole(target, write)


def tensors(model: LanguageModel) -> dict[str, Tensor]:
    """Weights and buffers by name; what several modules share stands once, under its first name."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def empty_model(config: ModelConfig) -> LanguageModel:
    """Build a model without drawing weights; `fill` must follow."""
    with torch.device("meta"):
        model = build_model(config)
    model.to_empty(device="cpu")
    mark_parameters(model)  # to_empty made new parameters
    return model


def fill(model: LanguageModel, source: Mapping[str, Tensor], where: str) -> None:
    """Copy tensors into a model, strictly.

    Raises:
        InputError: With every tensor that is missing, unexpected, of another shape or not finite.
    """
    own = tensors(model)
    problems = [f"missing {name} {list(own[name].shape)}" for name in own if name not in source]
    problems += [f"unexpected {name} {list(source[name].shape)}" for name in source if name not in own]
    for name in own.keys() & source.keys():
        given, wanted = source[name], own[name]
        if given.shape != wanted.shape:
            problems.append(f"{name} has shape {list(given.shape)}, the configuration asks for {list(wanted.shape)}")
        elif not given.is_floating_point():
            problems.append(f"{name} holds {given.dtype}, not floating-point numbers")
        elif not given.isfinite().all():
            problems.append(f"{name} holds values that are not finite")
    if problems:
        raise InputError(f"{where}: the weights do not fit the model: " + "; ".join(sorted(problems)))
    with torch.no_grad():
        for name, tensor in own.items():
            if source[name].dtype != tensor.dtype:
                tensor.data = tensor.data.to(source[name].dtype)
            tensor.copy_(source[name])


def read_config(folder: Path) -> ModelConfig:
    """Read and check `config.json` of a model directory."""
    path = folder / CONFIG
    values = read_json(path)
    version = values.pop("schema_version", None)
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise ConfigError(
            f"{path}: schema_version is {version!r}, this dnasm reads {SCHEMA_VERSION}; "
            "foreign checkpoints come in through `dnasm import`"
        )
    return model_config(values, str(path))


def read_json(path: Path) -> dict[str, Any]:
    """Read a small JSON object.

    Raises:
        InputError: If the file is missing, too large, no JSON, or no object.
    """
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise InputError(f"{path}: larger than {_MAX_CONFIG_BYTES} bytes, so no configuration")
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read it: {error.strerror}; is this a model directory?") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds a {type(values).__name__}, not an object of settings")
    return values


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU.

    Raises:
        InputError: If it is missing or damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot read the weights: {error}") from error


def pick_device(device: str | torch.device) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:N` into a device that is there.

    Raises:
        ConfigError: If there is no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device {device!r} is none of auto, cpu, cuda, cuda:N") from error
    if picked.type == "cuda" and (picked.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {device!r}: PyTorch sees {torch.cuda.device_count()} GPUs here; try cpu or auto")
    return picked


def model_card(model: LanguageModel, provenance: Mapping[str, Any]) -> str:
    """Write the text of a plain model card."""
    c = model.config
    count = sum(parameter.numel() for parameter in model.parameters())
    length = "any length" if c.max_length is None else f"up to {c.max_length:,} tokens"
    origin = "\n".join(f"- {key}: `{json.dumps(value, default=str)}`" for key, value in provenance.items())
    return f"""---
library_name: dnasm
tags: [dna, genomics, {c.family}]
---
# {c.family} model, {count:,} parameters

{c.num_layers} layers of {c.d_model} channels, inputs of {length}, one token a base.

```python
import dnasm
model = dnasm.load("PATH_TO_THIS_FOLDER")
```

Every setting is in `config.json`. Where it comes from:

{origin}
"""


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, default=str) + "\n"


def write_whole(target: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a hidden sibling, then rename it to `target`; a folder that stood there is removed after.

    Raises:
        OutputError: If it cannot be written; then `target` is what it was.
    """
    draft, old = (target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.{end}") for end in ("new", "old"))
    try:
        draft.mkdir(parents=True)
        write(draft)
        for path in draft.iterdir():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
        if target.exists():
            target.rename(old)
        draft.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{target}: cannot write this folder: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _pick_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    picked = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and not (isinstance(picked, torch.dtype) and picked.is_floating_point):
        raise ConfigError(f"dtype {dtype!r} is none of float32, float64, bfloat16, float16")
    return picked


def _locate(directory: str | os.PathLike[str]) -> Path:
    folder = Path(directory)
    if folder.is_dir():
        return folder
    if folder.exists() or not _HUB_ID.fullmatch(os.fspath(directory)):
        raise InputError(f"{folder}: no model directory (a folder with {CONFIG} and {WEIGHTS})")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise MissingExtra(
            f"{folder}: no such folder; to look for it on the hub, install dnasm[hub] (pip install 'dnasm[hub]')"
        ) from error
    try:
        return Path(snapshot_download(os.fspath(directory), allow_patterns=[CONFIG, WEIGHTS, CARD, PROVENANCE]))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise InputError(f"{folder}: no such folder here, and the hub did not give it: {error}") from error
