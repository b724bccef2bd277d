"""`dnasm import`: a HyenaDNA or H3 checkpoint -> a model directory."""

import sys
from pathlib import Path

from dnasm.config import ImportConfig
from dnasm.errors import ConfigError
from dnasm.models.backbone import LanguageModel
from dnasm.models.checkpoint import CONFIG, save_model
from dnasm.models.importers import import_h3, import_hyenadna
from dnasm.models.importers.h3 import H3Settings
from dnasm.models.importers.source import Source, read_source, weights_file
from dnasm.tasks.outputs import check_new_folder

_LARGE = 1 << 30  # bytes of a checkpoint whose reading takes so long that one wonders
_ONLY_H3 = ("num_heads", "rotary_dim", "discretization")


def run(config: ImportConfig) -> None:
    """Import a checkpoint.

    Raises:
        ConfigError: If a setting belongs to the other kind.
        InputError: If the checkpoint is missing, damaged, or not what it is said to be.
        OutputError: If the model directory exists or cannot be written.
    """
    foreign = _ONLY_H3 if config.kind == "hyenadna" else ("modulation_shift",)
    for name in foreign:
        if getattr(config, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')} has no meaning for {config.kind}")
    target = check_new_folder(config.out, force=config.force, marker=CONFIG)
    weights = weights_file(Path(config.path))
    size = weights.stat().st_size
    if size >= _LARGE and not config.quiet:
        print(f"reading {weights} ({size / 1e9:.1f} GB) ...", file=sys.stderr)
    source = read_source(weights, config.trust_pickle)
    model, notes = _convert(config, source)
    save_model(model, target, {"importer": config.kind, "notes": notes} | source.provenance(), replace=True)
    if not config.quiet:
        count = sum(parameter.numel() for parameter in model.parameters())
        for line in (*notes, f"{source.path} -> {target}: {count:,} parameters"):
            print(line, file=sys.stderr)


def _convert(config: ImportConfig, source: Source) -> tuple[LanguageModel, list[str]]:
    notes = [] if source.has_config else [f"no {CONFIG} beside {source.path.name}: sizes are read off the weights"]
    left_out = [name for name in source.tensors if "torchmetrics" in name]
    if left_out:
        notes.append(f"left out {len(left_out)} values of training metrics")
    if config.kind == "h3":
        settings = H3Settings(
            num_heads=config.num_heads, rotary_dim=config.rotary_dim, discretization=config.discretization
        )
        model, more = import_h3(source, settings)
        if model.config.vocabulary == "gpt2":
            more.append("it speaks GPT-2's text tokens: forward and generate take ids, verbs on DNA refuse it")
        return model, notes + more
    model = import_hyenadna(source, config.modulation_shift)
    notes.append(f"modulation_shift {model.config.modulation_shift}")
    return model, notes
