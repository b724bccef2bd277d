"""`dnasm export`: a run directory or one of its checkpoints -> a model directory, ours or in HyenaDNA's format."""

import sys
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from dnasm.config import ExportConfig
from dnasm.errors import InputError
from dnasm.models.backbone import LanguageModel
from dnasm.models.checkpoint import WEIGHTS, empty_model, fill, load, save_model, tensors
from dnasm.models.importers import export_hyenadna
from dnasm.presets import model_config
from dnasm.tasks.outputs import check_new_folder
from dnasm.training import CHECKPOINT_SCHEMA


def run(config: ExportConfig) -> None:
    """Export a checkpoint.

    Raises:
        InputError: If there is no such checkpoint, or it is damaged or none of dnasm's.
        OutputError: If the model directory exists or cannot be written.
    """
    target = check_new_folder(config.out, force=config.force, marker="config.json")
    source = Path(config.run)
    is_model = (source / WEIGHTS).is_file()
    if source.is_dir() and not is_model:
        source = source / "checkpoints" / f"{config.checkpoint}.ckpt"
    if config.format == "hyenadna":
        model = load(source, device="cpu") if is_model else read_model(source)[0]
        export_hyenadna(model, target, replace=True)
    elif is_model:
        raise InputError(f"{source} is a model directory already; give a run directory or a checkpoint of one")
    else:
        export_checkpoint(source, target)
    if not config.quiet:
        print(f"{source} -> {target}", file=sys.stderr)


def export_checkpoint(checkpoint: Path, target: Path) -> None:
    """Write the weights of a checkpoint of ours as a model directory, in place of one that is there.

    Raises:
        InputError: If it is missing, damaged or none of dnasm's.
        OutputError: If the directory cannot be written.
    """
    model, provenance = read_model(checkpoint)
    save_model(model, target, provenance, replace=True)


def read_model(checkpoint: Path) -> tuple[LanguageModel, dict[str, Any]]:
    """Read the model in a checkpoint of ours, and where it comes from.

    Raises:
        InputError: If it is missing, damaged or none of dnasm's.
    """
    state = read_checkpoint(checkpoint)
    model = empty_model(model_config(state["dnasm"]["model"], str(checkpoint)))
    weights = state["state_dict"]
    fill(
        model,
        {name: weights[f"model.{name}"] for name in tensors(model) if f"model.{name}" in weights},
        str(checkpoint),
    )
    return model, state["dnasm"]["provenance"]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours; of what it pickles, torch's weights-only reader takes tensors and plain values alone.

    Raises:
        InputError: If it is missing, damaged or none of dnasm's.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; give a run directory, or a .ckpt file of one")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # a foreign file; what follows says it better
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: cannot read this checkpoint: {reason}") from error
    header = state.get("dnasm") if isinstance(state, dict) else None
    if not isinstance(header, dict) or header.get("schema_version") != CHECKPOINT_SCHEMA:
        raise InputError(f"{path}: no checkpoint of this dnasm; HyenaDNA's and H3's come in through `dnasm import`")
    return state
