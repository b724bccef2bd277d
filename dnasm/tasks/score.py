"""Variants -> log-likelihood ratios, one row for each ALT: the function, and the command that calls it."""

import sys
from collections import Counter
from contextlib import ExitStack
from os import PathLike
from pathlib import Path

from torch import nn

from dnasm.config import ScoreConfig
from dnasm.errors import ConfigError, InputError
from dnasm.genome import Genome
from dnasm.genome.vcf import VcfReader, read_vcf
from dnasm.models.checkpoint import load
from dnasm.ops import set_backend
from dnasm.tasks.forward_batches import BatchSize
from dnasm.tasks.new_file import STANDARD_OUTPUT, check_new_file, refuse_same_file
from dnasm.tasks.precision_guard import measure_drift
from dnasm.tasks.progress import Meter
from dnasm.tasks.run_record import now, write_run_json
from dnasm.tasks.score_output import SUFFIXES, AnnotatedVcf, open_sink, require_parquet
from dnasm.tasks.score_table import ScoreTable
from dnasm.tasks.variant_checks import CheckRef
from dnasm.tasks.variant_input import Variants, alleles_of_vcf, count_alleles, is_vcf, read_alleles
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
) -> ScoreTable:
    """Compare the likelihood of each ALT with that of REF.

    Both alleles stand in windows of equal length whose place depends on the variant alone; indels take extra flank
    on the far side. The reverse strand has a window of its own, read and placed in its reading direction. N is never
    scored. A row depends on nothing but its variant: not on batch size, order or the other rows.

    Args:
        model: A causal model, as `dnasm.load` returns it.
        variants: A VCF, VCF.gz, BCF or table file, `chr17:43045705:T:C`, or an iterable of such texts and `Variant`s.
        genome: What the coordinates speak of; contig names match with and without `chr`.
        window: Bases in a window; None: what the model was built for, at most 8192.
        grid: Windows begin at multiples of it: 1 puts each variant at its window's middle, 64 lets neighbours share
            windows, which are then read once.
        strands: Which strand's ratio fills the column `llr`; `mean` computes both.
        check_ref: What to do with a REF that the genome does not hold: `error` stops at the first, `warn` names it on
            standard error, `skip` only counts it; both leave the row without a score.
        batch_size: Windows in a forward call.

    Returns:
        One row for each ALT in input order, none left out; `status` says which have no score, `reason` why.

    Raises:
        InputError: If the input cannot be read, no contig of it is known, or too many REFs disagree.
        ReferenceMismatch: The same, of REFs.

    Source: Nguyen et al. 2024 (Evo), equal windows for both alleles as in Brixi et al. 2025 (Evo 2).
    """
    opened = genome if isinstance(genome, Genome) else Genome(genome)
    scorer = VariantScorer(
        model, opened, window=window, grid=grid, strands=strands, check_ref=check_ref, batch_size=batch_size
    )
    table = ScoreTable.concatenate(scorer.score(read_alleles(variants)))
    require_known_contigs(table.counts(), opened)
    return table


def require_known_contigs(counts: dict[str, int], genome: Genome) -> None:
    """Refuse an input of which the genome has not a single contig.

    Raises:
        InputError: Names the genome and its first contigs.
    """
    if set(counts) == {"unknown_contig"}:
        names = ", ".join(name for name, _ in zip(genome.contigs, range(5), strict=False))
        raise InputError(
            f"{genome.path}: has none of the contigs of the input ({counts['unknown_contig']:,} alleles); "
            f"its own are {names}{', ...' if len(genome.contigs) > 5 else ''}. Is this the right genome?"
        )


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
    total = count_alleles(config.variants)
    if config.dtype != "float32":
        _guard_precision(config, total)
    scorer = _make_scorer(config, config.dtype, config.check_ref)
    if config.dry_run:
        _check_only(scorer, config, total)
        return
    counts = _score(scorer, config, suffix, total)
    _say(f"{_listed(counts)}{'' if config.out == STANDARD_OUTPUT else f' -> {config.out}'}", config)
    if config.out != STANDARD_OUTPUT:
        files = [config.genome, *([config.variants] if Path(config.variants).is_file() else [])]
        weights = Path(config.model) / "model.safetensors"
        record = {"alleles": dict(counts), "window": scorer.window}
        write_run_json(Path(f"{config.out}.run.json"), config, inputs=[*files, weights], counts=record, started=started)


def _guard_precision(config: ScoreConfig, total: int | None) -> None:
    """Say whether a narrow dtype would change ranks, and stop there with `strict`."""
    if total is None:
        _say("standard input is read once, so the effect of --dtype on ranks is not checked", config)
        return
    exact, narrow = (_make_scorer(config, dtype, "skip") for dtype in ("float32", config.dtype))
    drift = measure_drift(exact, narrow, read_alleles(config.variants))
    if drift.swapped and config.strict:
        raise ConfigError(f"--dtype {config.dtype}: {drift}; take float32, or leave --strict out")
    _say(f"{'warning: ' if drift.swapped else ''}in {config.dtype} {drift} beside float32", config)


def _make_scorer(config: ScoreConfig, dtype: str, check_ref: CheckRef) -> VariantScorer:
    set_backend(config.conv_backend)
    return VariantScorer(
        load(config.model, config.device, dtype),
        Genome(config.genome, quiet=config.quiet),
        window=config.window,
        grid=config.grid,
        strands=config.strands,
        check_ref=check_ref,
        batch_size=config.batch_size,
    )


def _score(scorer: VariantScorer, config: ScoreConfig, suffix: str, total: int | None) -> Counter[str]:
    counts: Counter[str] = Counter()
    command = (
        f"dnasm score --model {config.model} --window {scorer.window} --grid {config.grid} --strands {config.strands}"
    )
    with ExitStack() as stack:
        reader = stack.enter_context(read_vcf(config.variants)) if is_vcf(config.variants) else None
        if reader is not None:
            _compare_contigs(reader, scorer.genome)
        sink = stack.enter_context(
            open_sink(config.out, suffix, genome=scorer.genome, reader=reader, command=command, force=config.force)
        )
        meter = stack.enter_context(Meter("score", "alleles", total, quiet=config.quiet))
        if reader is None:
            alleles = read_alleles(config.variants)
        elif isinstance(sink, AnnotatedVcf):
            alleles = sink.alleles(reader)
        else:
            alleles = alleles_of_vcf(reader)
        for table in scorer.score(alleles):
            sink.write(table)
            counts.update(table.counts())
            meter.advance(len(table))
        require_known_contigs(counts, scorer.genome)
    return counts


def _check_only(scorer: VariantScorer, config: ScoreConfig, total: int | None) -> None:
    counts = scorer.check(read_alleles(config.variants)) if total is not None else Counter[str]()
    require_known_contigs(counts, scorer.genome)
    found = "standard input is not read in a dry run" if total is None else _listed(counts)
    print(f"{config.variants}: {found}; windows of {scorer.window:,} bases on {scorer.runner.device} -> {config.out}")


def _compare_contigs(reader: VcfReader, genome: Genome) -> None:
    """Warn of a contig whose length in the VCF's header is not the genome's: it is likely another build."""
    for name, length in reader.contigs.items():
        ours = genome.contigs.get(name)
        if None not in (length, ours) and length != ours:
            print(
                f"dnasm score: warning: {reader.name} says that {name} has {length:,} bases, "
                f"{genome.path} has {ours:,}; is it the same genome build?",
                file=sys.stderr,
            )
            return


def _listed(counts: Counter[str]) -> str:
    total = sum(counts.values())
    if not total:
        return "no variant in the input"
    parts = [f"{count:,} {status}" for status, count in counts.items()]
    return f"{total:,} alleles: {', '.join(parts)}"


def _say(text: str, config: ScoreConfig) -> None:
    if not config.quiet:
        print(f"dnasm score: {text}", file=sys.stderr)
