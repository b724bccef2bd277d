"""Variants -> log-likelihood ratios, one row for each ALT: the function, and the command that calls it."""

import os
import sys
from collections import Counter
from os import PathLike
from pathlib import Path

import torch
from torch import nn

from dnasm.config import ScoreConfig
from dnasm.errors import ConfigError
from dnasm.genome import Genome
from dnasm.models.checkpoint import load
from dnasm.ops import set_backend
from dnasm.tasks.forward_batches import BatchSize
from dnasm.tasks.new_file import STANDARD_OUTPUT, check_new_file, refuse_same_file
from dnasm.tasks.precision_guard import measure_drift
from dnasm.tasks.progress import counted
from dnasm.tasks.run_record import now, write_run_json
from dnasm.tasks.score_evaluation import evaluate_scores, parse_label
from dnasm.tasks.score_job import ScoreJob, require_known_contigs
from dnasm.tasks.score_methods import Method
from dnasm.tasks.score_output import SUFFIXES, require_parquet
from dnasm.tasks.score_parts import Rank
from dnasm.tasks.score_table import ScoreTable
from dnasm.tasks.variant_checks import CheckRef
from dnasm.tasks.variant_filter import Keep, RegionFilter, keep_everything, read_kept, read_labels
from dnasm.tasks.variant_input import Variants, read_alleles
from dnasm.tasks.variant_scorer import Strands, VariantScorer


def score_variants(
    model: nn.Module,
    variants: Variants,
    genome: Genome | str | PathLike[str],
    *,
    window: int | None = None,
    grid: int = 1,
    strands: Strands = "mean",
    check_ref: CheckRef = "error",
    batch_size: BatchSize = "auto",
    method: Method = "llr",
    layer: int = -1,
    left_align: bool = False,
) -> ScoreTable:
    """Compare the likelihood of each ALT with that of REF.

    Both alleles stand in windows of equal length whose place depends on the variant alone; indels take extra flank
    on the far side. The reverse strand has a window of its own, read and placed in its reading direction. N is never
    scored. A row depends on nothing but its variant: not on batch size, order or the other rows.

    Args:
        model: A model as `dnasm.load` returns it; a causal one for the default method.
        variants: A VCF, VCF.gz, BCF or table file, `chr17:43045705:T:C`, or an iterable of such texts and `Variant`s.
        genome: What the coordinates speak of; contig names match with and without `chr`.
        window: Bases in a window; None: what the model was built for, at most 8192.
        grid: Windows begin at multiples of it: 1 puts each variant at its window's middle, 64 lets neighbours share.
        strands: Which strand's ratio fills the column `llr`; `mean` computes both.
        check_ref: What to do with a REF that the genome does not hold: `error` stops at the first, `warn` names it on
            standard error, `skip` only counts it; both leave the row without a score.
        batch_size: Windows in a forward call.
        method: How the windows are compared: `llr` and `llr_mean` (a base), `next_base_divergence` for causal models,
            `masked_llr` and `pseudo_likelihood` for those that were trained on masked bases, `embedding_distance`.
        layer: Block after which `embedding_distance` reads hidden states, from 0; -1: after the final norm.
        left_align: Move insertions and deletions as far left as they can be written before they are scored.

    Returns:
        One row for each ALT in input order, none left out; `status` says which have no score, `reason` why.

    Raises:
        InputError: If the input cannot be read, no contig of it is known, or too many REFs disagree.
        ReferenceMismatch: The same, of REFs.

    Source: Nguyen et al. 2024 (Evo), equal windows for both alleles as in Brixi et al. 2025 (Evo 2).
    """
    opened = genome if isinstance(genome, Genome) else Genome(genome)
    scorer = VariantScorer(
        model,
        opened,
        window=window,
        grid=grid,
        strands=strands,
        check_ref=check_ref,
        batch_size=batch_size,
        method=method,
        layer=layer,
        left_align=left_align,
    )
    table = ScoreTable.concatenate(scorer.score(read_alleles(variants)))
    require_known_contigs(table.counts(), opened)
    return table


def run(config: ScoreConfig) -> None:
    """Score a file: what `score_variants` returns, written as it is computed.

    Raises:
        InputError: If an input cannot be used; then there is no output.
        OutputError: If the output exists or cannot be written.
    """
    started = now()
    suffix = check_new_file(config.out, SUFFIXES, force=config.force)
    refuse_same_file(config.out, config.variants, config.genome)
    require_parquet(suffix)
    _check_settings(config)
    keep: Keep = keep_everything
    if config.regions is not None:
        keep = RegionFilter(config.regions, Genome(config.genome, quiet=config.quiet))
    total = None if config.variants == "-" else sum(1 for _ in read_kept(config.variants, keep))
    if config.dtype != "float32":
        _guard_precision(config, total, keep)
    scorer = _make_scorer(config, config.dtype, config.check_ref)
    if config.dry_run:
        _check_only(scorer, config, total, keep)
        return
    job = ScoreJob(scorer, config, keep, suffix, total)
    result = job.run()
    if result is None:  # another rank joins the parts
        return
    counts, table = result
    _say(f"{_listed(counts)}{'' if config.out == STANDARD_OUTPUT else f' -> {config.out}'}", config)
    if config.labels is not None and table is not None:
        _evaluate(config, table, scorer.genome, keep)
    if config.out != STANDARD_OUTPUT:
        files = [config.genome, *([config.variants] if Path(config.variants).is_file() else [])]
        weights = Path(config.model) / "model.safetensors"
        record = {"alleles": dict(counts), "window": scorer.window, "forward_calls": scorer.runner.calls}
        write_run_json(Path(f"{config.out}.run.json"), config, inputs=[*files, weights], counts=record, started=started)


def _check_settings(config: ScoreConfig) -> None:
    if config.shard_size < 1:
        raise ConfigError(f"shard_size is {config.shard_size}; it must be at least 1")
    if config.labels is not None and not Path(config.variants).is_file():
        raise ConfigError(f"--labels needs a file of variants, {config.variants!r} is none")
    if Rank.from_environment().count > 1 and (config.out == STANDARD_OUTPUT or not Path(config.variants).is_file()):
        raise ConfigError("several ranks need a file of variants and a file to write; standard streams belong to one")


def _evaluate(config: ScoreConfig, table: ScoreTable, genome: Genome, keep: Keep) -> None:
    """Print the model beside the simple predictors, and write the same beside the output."""
    assert config.labels is not None
    labels = [parse_label(text, config.positive) for text in read_labels(config.variants, config.labels, keep)]
    source = f"{config.labels} = {', '.join(config.positive)}"
    found = evaluate_scores(table, labels, genome, gff=config.gff, source=source)
    print(found.text(), file=sys.stderr)
    if config.out != STANDARD_OUTPUT:
        found.write(Path(f"{config.out}.evaluation.json"))


def _guard_precision(config: ScoreConfig, total: int | None, keep: Keep) -> None:
    """Say whether a narrow dtype would change ranks, and stop there with `strict`."""
    if total is None:
        _say("standard input is read once, so the effect of --dtype on ranks is not checked", config)
        return
    exact, narrow = (_make_scorer(config, dtype, "skip", quiet=True) for dtype in ("float32", config.dtype))
    drift = measure_drift(exact, narrow, read_kept(config.variants, keep))
    if drift.swapped and config.strict:
        raise ConfigError(f"--dtype {config.dtype}: {drift}; take float32, or leave --strict out")
    _say(f"{'warning: ' if drift.swapped else ''}in {config.dtype} {drift} beside float32", config)


def _make_scorer(config: ScoreConfig, dtype: str, check_ref: CheckRef, *, quiet: bool = False) -> VariantScorer:
    set_backend(config.conv_backend)
    return VariantScorer(
        load(config.model, _device(config), dtype),
        Genome(config.genome, quiet=config.quiet or quiet),
        window=config.window,
        grid=config.grid,
        strands=config.strands,
        check_ref=check_ref,
        batch_size=config.batch_size,
        method=config.method,
        layer=config.layer,
        left_align=config.left_align,
        quiet=quiet,
    )


def _device(config: ScoreConfig) -> str:
    """Choose this rank's own GPU where several ranks share a node."""
    local = os.environ.get("LOCAL_RANK")
    if local is None or config.device not in ("auto", "cuda") or not torch.cuda.is_available():
        return config.device
    return f"cuda:{int(local) % torch.cuda.device_count()}"


def _check_only(scorer: VariantScorer, config: ScoreConfig, total: int | None, keep: Keep) -> None:
    counts = scorer.check(read_kept(config.variants, keep)) if total is not None else Counter[str]()
    require_known_contigs(counts, scorer.genome)
    found = "standard input is not read in a dry run" if total is None else _listed(counts)
    print(f"{config.variants}: {found}; windows of {scorer.window:,} bases on {scorer.runner.device} -> {config.out}")


def _listed(counts: Counter[str]) -> str:
    total = sum(counts.values())
    if not total:
        return "no variant in the input"
    parts = [f"{count:,} {status}" for status, count in counts.items()]
    return f"{counted(total, 'allele')}: {', '.join(parts)}"


def _say(text: str, config: ScoreConfig) -> None:
    if not config.quiet:
        print(f"dnasm score: {text}", file=sys.stderr)
