"""`dnasm pretrain`: genomes -> a run directory with checkpoints, metrics, baselines and the exported best model."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from dnasm.config import PretrainConfig, to_yaml
from dnasm.datasets.corpus import Corpus
from dnasm.errors import BaselineNotBeaten, ConfigError
from dnasm.models.backbone import build_model
from dnasm.models.checkpoint import pick_device
from dnasm.ops import set_backend
from dnasm.tasks.baseline_table import BaselineRow, baselines_json, best_baseline, comparison_text, markov_rows
from dnasm.tasks.export import export_checkpoint
from dnasm.tasks.forward_batches import is_out_of_memory
from dnasm.tasks.outputs import check_new_folder, check_space, make_folder
from dnasm.tasks.run_record import now, write_run_json, write_text
from dnasm.training.compilation import Compilation
from dnasm.training.length_warmup import LengthWarmup
from dnasm.training.result import Fit
from dnasm.training.schedule import Schedule

_MARKER = "config.yaml"
_ORDERS_TO_BEAT = 8
_COMPILER = ("torch._dynamo", "torch._inductor")  # where its errors are defined
# best.ckpt, last.ckpt and a draft hold weights and AdamW's two moments, the exported model the weights: 4 bytes each.
_BYTES_PER_PARAMETER = (3 * 3 + 1) * 4


@dataclass(frozen=True)
class Plan:
    """What a run is going to do, all of it checked."""

    config: PretrainConfig
    run: Path
    device: torch.device
    corpus: Corpus
    schedule: Schedule
    genomes: list[str]
    """A short name for each genome."""
    parameters: int
    compilation: Compilation

    def text(self) -> str:
        """Say it in a few lines."""
        c = self.config
        lines = [f"run      {self.run}"]
        for path, counts in self.corpus.counts().items():
            lines.append(
                f"genome   {path}: {counts['training_bases']:,} bases to train on "
                f"({counts['share']:.1%} of the windows), {counts['validation_bases']:,} for validation "
                f"({counts['validation_windows']:,} windows), {counts['test_bases']:,} for the test"
            )
        step = c.data.batch_size * c.trainer.accumulate * c.trainer.devices
        limit = (
            "" if c.trainer.max_minutes is None else f", or {c.trainer.max_minutes:g} minutes, whichever comes first"
        )
        tokens = f"{c.trainer.max_steps * step * c.data.window:,} tokens"
        return "\n".join([
            *lines,
            f"windows  {c.data.window:,} bases, {step:,} a step",
            f"model    {c.model.family}, {c.model.num_layers} layers of {c.model.d_model} channels, "
            f"{self.parameters:,} parameters",
            f"steps    {c.trainer.max_steps:,} ({tokens}){limit}",
            f"device   {self.device}, {self.compilation}, convolution backend {c.conv_backend}, seed {c.seed}",
        ])  # fmt: skip


def run(config: PretrainConfig) -> None:
    """Pretrain a model.

    Nothing is written before everything that can be checked is checked. The error of `trainer.require_below_markov`
    comes last, when all is written.

    Raises:
        ConfigError: If settings contradict each other or the data.
        InputError: If a genome or a BED file cannot be used.
        OutputError: If the run directory exists or cannot be written.
        TrainingDiverged: If the gradient is no longer finite.
        BaselineNotBeaten: If the model was required to be below every Markov baseline and is not.
    """
    started = now()
    plan = make_plan(config)
    if config.dry_run:
        print(plan.text())
        return
    _say(plan.text(), config)
    make_folder(plan.run)
    write_text(plan.run / _MARKER, to_yaml(config))
    _record(plan, started, {"state": "training"})
    # A model that sees both sides of a base has an easier task than one that sees the past: no comparison.
    orders = config.trainer.markov_orders if config.model.causal else -1
    rows = markov_rows(plan.corpus, plan.genomes, orders)
    if rows:
        best = best_baseline(rows)
        _say(f"Markov baselines fitted: the best is {best.name}, {best.bits_per_base:.4f} bits per base", config)
    outcome = _train(plan)
    write_text(plan.run / "baselines.json", baselines_json(rows, plan.genomes, outcome.best, outcome.best_step))
    export_checkpoint(plan.run / "checkpoints/best.ckpt", plan.run / "model")
    _record(plan, started, _counts(plan, outcome))
    print(_summary(plan, outcome, rows))
    if config.trainer.require_below_markov:
        _require_below(outcome, rows)


def _say(text: str, config: PretrainConfig) -> None:
    if not config.quiet:
        print(text, file=sys.stderr, flush=True)


def make_plan(config: PretrainConfig) -> Plan:
    """Check all that can be known before the first step, and write nothing but token stores beside the genomes."""
    folder = check_new_folder(config.out, force=config.force, marker=_MARKER)
    device = pick_device(config.device)
    set_backend(config.conv_backend)
    schedule = Schedule.of(config.optim, config.trainer)
    _check_settings(config, device)
    LengthWarmup.of(config.trainer, config.data.window)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in build_model(config.model).parameters())
    corpus = Corpus(config.data, seed=config.seed)
    check_space(folder, parameters * _BYTES_PER_PARAMETER)
    compilation = Compilation.of(config.trainer, config.data, config.model, device)
    return Plan(config, folder, device, corpus, schedule, _short_names(config), parameters, compilation)


def _check_settings(config: PretrainConfig, device: torch.device) -> None:
    model, data, trainer = config.model, config.data, config.trainer
    for wrong, message in (
        (
            model.max_length is not None and data.window > model.max_length,
            f"data.window is {data.window}, but the model reads at most model.max_length = {model.max_length} tokens: "
            "shorten the window or lengthen the model",
        ),
        (data.window < 2, f"data.window is {data.window}; a window needs 2 bases, one to read and one to predict"),
        (model.vocabulary != "dna", f"model.vocabulary is {model.vocabulary}; only dna models can read genomes"),
        (min(trainer.validate_every, trainer.checkpoint_every, trainer.accumulate, trainer.devices) < 1,
         "trainer.validate_every, checkpoint_every, accumulate and devices must be at least 1"),
        (trainer.patience is not None and trainer.patience < 1,
         f"trainer.patience is {trainer.patience}; it must be at least 1, or null"),
        (config.optim.clip_norm <= 0, f"optim.clip_norm is {config.optim.clip_norm}; it must be above 0"),
        (config.optim.lr <= 0, f"optim.lr is {config.optim.lr}; it must be above 0"),
        (min(data.batch_size, data.windows_per_epoch, data.validation_windows) < 1,
         "data.batch_size, data.windows_per_epoch and data.validation_windows must be at least 1"),
        (data.num_workers < 0, f"data.num_workers is {data.num_workers}; it is at least 0"),
        (device.type == "cpu" and trainer.devices > 1, f"trainer.devices is {trainer.devices}; the CPU takes one"),
        (trainer.markov_orders > 12, f"trainer.markov_orders is {trainer.markov_orders}; 12 is the highest"),
        (trainer.require_below_markov and not model.causal,
         "trainer.require_below_markov compares next-base likelihoods; a model that sees both sides has none"),
        (trainer.require_below_markov and trainer.markov_orders < _ORDERS_TO_BEAT,
         f"trainer.require_below_markov compares with orders 0 to {_ORDERS_TO_BEAT}, "
         f"but trainer.markov_orders is {trainer.markov_orders}"),
    ):  # fmt: skip
        if wrong:
            raise ConfigError(message)


def _short_names(config: PretrainConfig) -> list[str]:
    """Name genomes by their files, with the folder where two are called the same."""
    paths = [Path(genome.path) for genome in config.data.genomes]
    stems = [path.name.split(".")[0] for path in paths]
    twice = {name for name, count in Counter(stems).items() if count > 1}
    return [
        f"{path.parent.name}/{path.name}" if stem in twice else stem for path, stem in zip(paths, stems, strict=True)
    ]


def _train(plan: Plan) -> Fit:
    # Lightning takes seconds to import; a plan, and an error in one, come without it.
    from dnasm.datasets.datamodule import PretrainingData
    from dnasm.training.fit import fit
    from dnasm.training.module import Pretraining

    config = plan.config
    torch.manual_seed(config.seed)
    model = build_model(config.model)
    model.backbone.checkpoint_activations = config.trainer.checkpoint_activations
    module = Pretraining(
        model,
        config.optim,
        plan.schedule,
        genomes=plan.genomes,
        window=config.data.window,
        provenance={"verb": "pretrain", "seed": config.seed, "genomes": plan.genomes, "window": config.data.window},
        seed=config.seed,
        lengths=LengthWarmup.of(config.trainer, config.data.window),
        compilation=plan.compilation,
    )
    data = PretrainingData(config.data, seed=config.seed, corpus=plan.corpus)
    try:
        return fit(module, data, config.trainer, plan.run, device=plan.device, quiet=config.quiet)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise ConfigError(_memory_advice(plan)) from error
        if type(error).__module__.startswith(_COMPILER):
            first = str(error).strip().split("\n")[0]
            raise ConfigError(f"the model could not be compiled ({first}): set trainer.compile false") from error
        raise


def _memory_advice(plan: Plan) -> str:
    """Say what the steps need, and what would need less."""
    c = plan.config
    plain, again = (
        c.model.memory(c.data.window, c.data.batch_size, checkpoint_activations=flag) / 1e9 for flag in (False, True)
    )
    return (
        f"{plan.device} has no room for steps of {c.data.batch_size} windows of {c.data.window:,} bases, which need "
        f"about {again if c.trainer.checkpoint_activations else plain:.2g} GB in float32: lower data.batch_size (and "
        "raise trainer.accumulate)"
        + ("" if c.trainer.checkpoint_activations else f", or set trainer.checkpoint_activations ({again:.2g} GB)")
    )


def _inputs(config: PretrainConfig) -> list[str]:
    optional = [
        path
        for genome in config.data.genomes
        for path in (genome.include, genome.exclude, genome.validation_bed, genome.test_bed)
        if path is not None
    ]
    return [*(genome.path for genome in config.data.genomes), *optional]


def _record(plan: Plan, started: datetime, counts: dict[str, Any]) -> None:
    write_run_json(
        plan.run / "run.json",
        plan.config,
        inputs=_inputs(plan.config),
        counts={"parameters": plan.parameters, "genomes": plan.corpus.counts(), **counts},
        started=started,
    )


def _counts(plan: Plan, outcome: Fit) -> dict[str, Any]:
    return {
        "state": "done",
        "ended_because": outcome.why,
        "steps": outcome.steps,
        "tokens": outcome.tokens,
        "training_seconds": round(outcome.seconds, 3),
        "best_step": outcome.best_step,
        "best_validation_bits_per_base": outcome.best.bits_per_base,
        "validation_targets": outcome.best.targets,
    }


def _summary(plan: Plan, outcome: Fit, rows: Sequence[BaselineRow]) -> str:
    places = {
        "model": "the best checkpoint, for score, embed and dnasm.load",
        "checkpoints": "best.ckpt and last.ckpt",
        "metrics.csv": "the curves; tensorboard/ has them too",
        "position_loss.csv": "validation loss by the place in the window",
        "baselines.json": "the table above",
        "config.yaml": "every setting",
        "run.json": "versions, inputs with hashes, counts",
    }
    return "\n".join([
        comparison_text(rows, plan.genomes, outcome.best, outcome.best_step),
        "",
        f"{outcome.steps:,} steps, {outcome.tokens:,} tokens, {outcome.seconds:.0f} seconds ({outcome.why})",
        *(f"{plan.run / name!s:<40} {what}" for name, what in places.items()),
    ])  # fmt: skip


def _require_below(outcome: Fit, rows: Sequence[BaselineRow]) -> None:
    strongest = best_baseline(rows)
    if not outcome.best.bits_per_base < strongest.bits_per_base:
        raise BaselineNotBeaten(
            f"the best checkpoint has {outcome.best.bits_per_base:.4f} bits per base on {outcome.best.targets:,} "
            f"targets, the Markov model of {strongest.name} has "
            f"{strongest.bits_per_base:.4f} on the same: train longer or on more "
            "data, or set trainer.require_below_markov false"
        )
