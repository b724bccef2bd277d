"""Every single change of a sequence or region: the function, and the command that calls it."""

import sys
from os import PathLike
from pathlib import Path

import numpy as np
from torch import nn

from dnasm.config import MutagenesisConfig
from dnasm.errors import ConfigError, InputError, OutputError
from dnasm.genome import Genome, Interval
from dnasm.models.checkpoint import load
from dnasm.ops import set_backend
from dnasm.report.mutation_map import save_figure
from dnasm.tasks.contig_names import ContigNames
from dnasm.tasks.forward_batches import BatchSize, encode_all
from dnasm.tasks.measured_effects import agreements, read_measured
from dnasm.tasks.mutagenesis_picture import picture
from dnasm.tasks.mutagenesis_table import Mutagenesis, require_table_format
from dnasm.tasks.mutagenesis_windows import Mutagenizer
from dnasm.tasks.new_file import STANDARD_OUTPUT, check_new_file, new_file, refuse_same_file
from dnasm.tasks.precision_guard import compare
from dnasm.tasks.progress import Meter
from dnasm.tasks.region_input import parse_place
from dnasm.tasks.run_record import now, write_run_json
from dnasm.tasks.variant_scorer import Strands, pick_window
from dnasm.vocabulary import Tokens

_SUFFIXES = (".tsv", ".parquet", STANDARD_OUTPUT)
_PICTURES = (".svg", ".png")
_LONGEST = 20_000
"""Bases of a region; beyond it, the scores of known variants are what is wanted."""
_GUARDED_BASES = 64


def mutagenesis(
    model: nn.Module,
    seq: str | Tokens,
    genome: Genome | str | PathLike[str] | None = None,
    *,
    window: int | None = None,
    strands: Strands = "mean",
    deletions: bool = True,
    gradient: bool = True,
    batch_size: BatchSize = "auto",
) -> Mutagenesis:
    """Replace every base by each other one, and say how much likelier or less likely the sequence becomes.

    A model that sees both sides is asked for all four letters where a base is masked: its numbers are those of
    `score_variants(method="masked_llr")`, and deletions and gradient are nan.

    Args:
        model: As `dnasm.load` returns it.
        seq: A sequence, letters or token ids; with `genome` a place, as `chr20:1,001-1,100` (from 1, both ends in).
        genome: What the place is on; each base then stands in a window of its contig.
        window: Bases in that window; None: what the model was built for, at most 8192. A region longer than half of
            it is taken in parts.
        strands: Which strands' ratios are averaged.
        deletions: Also leave each base out; a base from the far side takes its place, or both are cut to one length.
        gradient: Also compute gradient x input, which needs a model of dnasm.
        batch_size: Sequences in a forward call.

    Returns:
        A `Mutagenesis`; `numpy.asarray` of it is float64 (l, 4), columns A, C, G, T: log p(changed) - log p(unchanged)
        in nats, 0 at the base itself, nan at N.

    Raises:
        InputError: If the sequence cannot be read, is longer than the model takes, or the place is none.
    """
    scan = Mutagenizer(model, strands=strands, deletions=deletions, gradient=gradient, batch_size=batch_size)
    if genome is None:
        if window is not None:
            raise ConfigError(f"window is {window}; a sequence by itself is its own window: leave it out")
        try:
            return scan.sequence(encode_all([seq], scan.runner.max_length)[0])
        except InputError as error:
            if not (isinstance(seq, str) and ":" in seq):
                raise
            raise InputError(f"{seq!r:.60} is no sequence; for a place pass the genome that it is on") from error
    opened = genome if isinstance(genome, Genome) else Genome(genome)
    return scan.region(opened, parse_place(str(seq), opened, ContigNames(opened, "mutagenesis")), window)


def run(config: MutagenesisConfig) -> None:
    """Write a table, and pictures if they are asked for.

    Raises:
        InputError: If an input cannot be used; then there is no output.
        OutputError: If an output exists or cannot be written.
    """
    started = now()
    suffix, pictures = _check_outputs(config)
    if Path(config.region).is_file():
        raise ConfigError(f"--region {config.region} is a file; name one place, as contig:first-last")
    genome = Genome(config.genome, quiet=config.quiet)
    region = parse_place(config.region, genome, ContigNames(genome, "mutagenesis"))
    if region.length > _LONGEST:
        raise ConfigError(
            f"--region {config.region} has {region.length:,} bases; at most {_LONGEST:,} are changed one by one. "
            "Name a part of it, or give the variants that matter to dnasm score"
        )
    measured = None
    if config.measured is not None:
        measured = read_measured(config.measured, genome, region, config.element, config.min_barcodes)
    scan = _make(config, config.dtype)
    size = pick_window(scan.model, config.window)
    plan = f"{region.length:,} bases of {region.contig} in windows of {size:,} on {scan.runner.device} -> {config.out}"
    if config.dry_run:
        print(plan)
        return
    _say(plan, config)
    if scan.masked:
        _say("the model sees both sides: each base is masked in turn; deletions and gradient x input are empty", config)
    if config.dtype != "float32":
        _guard_precision(scan, genome, region, config)
    total = scan.changes(genome.tokens(region.contig, region.start, region.end))
    with Meter("mutagenesis", "changes", total, quiet=config.quiet) as meter:
        scan.done = meter.advance
        result = scan.region(genome, region, config.window)
    if measured is not None:
        result = Mutagenesis(**(vars(result) | {"measured": measured}))
    found = [str(agreement) for agreement in agreements(result)] if measured is not None else []
    if found:
        _say(f"against measured effects, with 95 % intervals over {config.measured}", config)
    for line in found:
        _say(f"  {line}", config)
    _write_table(result, suffix, config)
    if config.out != STANDARD_OUTPUT:
        files = [config.genome, *([] if config.measured is None else [config.measured])]
        counts = {"bases": region.length, "changes": sum(1 for _ in result.rows()), "window": size, "measured": found}
        weights = Path(config.model) / "model.safetensors"
        write_run_json(Path(f"{config.out}.run.json"), config, inputs=[*files, weights], counts=counts, started=started)
    _write_pictures(result, pictures, config)


def _check_outputs(config: MutagenesisConfig) -> tuple[str, list[Path]]:
    suffix = check_new_file(config.out, _SUFFIXES, force=config.force)
    require_table_format(suffix)
    pictures = []
    if config.picture is not None:
        named = config.picture.lower().endswith(_PICTURES)
        pictures = [config.picture] if named else [f"{config.picture}{end}" for end in _PICTURES]
    for name in pictures:
        check_new_file(name, _PICTURES, force=config.force)
    for out in (config.out, *pictures):
        refuse_same_file(out, config.genome, *([] if config.measured is None else [config.measured]))
    return suffix, [Path(name) for name in pictures]


def _make(config: MutagenesisConfig, dtype: str) -> Mutagenizer:
    set_backend(config.conv_backend)
    model = load(config.model, config.device, dtype)
    return Mutagenizer(
        model,
        strands=config.strands,
        deletions=config.deletions,
        gradient=config.gradient,
        batch_size=config.batch_size,
    )


def _guard_precision(narrow: Mutagenizer, genome: Genome, region: Interval, config: MutagenesisConfig) -> None:
    """Say how far a narrow dtype drifts from float32, and stop there with `strict` if ranks change."""
    part = Interval(region.contig, region.start, min(region.end, region.start + _GUARDED_BASES))
    values = [scan.region(genome, part, config.window).llr for scan in (_make(config, "float32"), narrow)]
    known = np.isfinite(values[0]) & (values[0] != 0)
    drift = compare(values[0][known], values[1][known], of="substitution")
    if drift.swapped and config.strict:
        raise ConfigError(f"--dtype {config.dtype}: {drift}; take float32, or leave --strict out")
    _say(f"{'warning: ' if drift.swapped else ''}in {config.dtype} {drift} beside float32", config)


def _write_table(result: Mutagenesis, suffix: str, config: MutagenesisConfig) -> None:
    if suffix == STANDARD_OUTPUT:
        result.write_tsv(sys.stdout)
    else:
        with new_file(config.out) as draft:
            if suffix == ".parquet":
                result.write_parquet(draft)
            else:
                with draft.open("x", encoding="utf-8", newline="") as handle:
                    result.write_tsv(handle)


def _write_pictures(result: Mutagenesis, pictures: list[Path], config: MutagenesisConfig) -> None:
    if not pictures:
        return
    try:
        with picture(result) as figure:
            for path in pictures:
                with new_file(path) as draft:
                    save_figure(figure, draft)
    except OutputError as error:
        raise OutputError(f"{error}; the table {config.out} is whole, the picture is not") from error


def _say(text: str, config: MutagenesisConfig) -> None:
    if not config.quiet:
        print(f"dnasm mutagenesis: {text}", file=sys.stderr)
