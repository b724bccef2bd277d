"""`dnasm export`: a run directory or one of its checkpoints -> a model directory."""

import sys
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from dnasm.config import ExportConfig, model_config
from dnasm.errors import InputError
from dnasm.models.checkpoint import empty_model, fill, save_model, tensors
from dnasm.tasks.outputs import check_new_folder
from dnasm.training.module import CHECKPOINT_SCHEMA


def run(config: ExportConfig) -> None:
    """Export a checkpoint.

    Raises:
        InputError: If there is no such checkpoint, or it is damaged or none of dnasm's.
        OutputError: If the model directory exists or cannot be written.
    """
    target = check_new_folder(config.out, force=config.force, marker="config.json")
    source = Path(config.run)
    if source.is_dir():
        source = source / "checkpoints" / f"{config.checkpoint}.ckpt"
    export_checkpoint(source, target)
    if not config.quiet:
        print(f"{source} -> {target}", file=sys.stderr)


def export_checkpoint(checkpoint: Path, target: Path) -> None:
    """Write the weights of a checkpoint of ours as a model directory, in place of one that is there.

    Raises:
        InputError: If it is missing, damaged or none of dnasm's.
        OutputError: If the directory cannot be written.
    """
    state = read_checkpoint(checkpoint)
    model = empty_model(model_config(state["dnasm"]["model"], str(checkpoint)))
    weights = state["state_dict"]
    fill(
        model,
        {name: weights[f"model.{name}"] for name in tensors(model) if f"model.{name}" in weights},
        str(checkpoint),
    )
    save_model(model, target, state["dnasm"]["provenance"], replace=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours; of what it pickles, torch's weights-only reader takes tensors and plain values alone.

    Raises:
        InputError: If it is missing, damaged or none of dnasm's.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; give a run directory, or a .ckpt file of one")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise InputError(f"{path}: cannot read this checkpoint: {str(error).splitlines()[0]}") from error
    header = state.get("dnasm") if isinstance(state, dict) else None
    if not isinstance(header, dict) or header.get("schema_version") != CHECKPOINT_SCHEMA:
        raise InputError(f"{path}: no checkpoint of this dnasm; HyenaDNA's and H3's come in through `dnasm import`")
    return state
