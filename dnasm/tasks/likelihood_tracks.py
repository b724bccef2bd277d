"""Genome -> log-likelihood and entropy of every base: the function, and the command that calls it."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from dnasm.config import LikelihoodConfig
from dnasm.errors import ConfigError
from dnasm.genome import Genome, Interval
from dnasm.models.checkpoint import load
from dnasm.ops import set_backend
from dnasm.tasks.forward_batches import BatchSize
from dnasm.tasks.likelihood import sees_both_sides
from dnasm.tasks.masked_tracks import MaskedTrackScorer
from dnasm.tasks.new_file import STANDARD_OUTPUT, check_new_file, refuse_same_file
from dnasm.tasks.precision_guard import compare
from dnasm.tasks.progress import Meter, counted
from dnasm.tasks.region_input import Regions, merge_intervals, read_intervals
from dnasm.tasks.run_record import now, write_run_json
from dnasm.tasks.track_output import SUFFIXES, TrackSink, open_track, require_track_format
from dnasm.tasks.track_scorer import Track, TrackScorer
from dnasm.tasks.variant_scorer import Strands

_GUARDED_BASES = 512
"""Bases that are scored in float32 too before another dtype is used."""


def likelihood(
    model: nn.Module,
    genome: Genome | str | PathLike[str],
    regions: Regions = None,
    *,
    window: int | None = None,
    context: int | None = None,
    strands: Strands = "mean",
    batch_size: BatchSize = "auto",
) -> Iterator[Track]:
    """Compute log-likelihood and entropy of every base of some regions, or of a whole genome.

    Long contigs are read in windows that overlap: each base is scored once, with `context` bases or more before it
    (as many as there are, at a contig's beginning). A value depends on the base's place, the window and the context
    alone, not on the regions or the batch size. Probabilities are renormalised over A, C, G and T.

    A model that sees both sides has no likelihood of a sequence, but an opinion of each base where that base alone is
    masked, in the middle of a window of its own. This takes a forward pass for each base and strand.

    Args:
        model: As `dnasm.load` returns it.
        genome: What the coordinates speak of.
        regions: A BED, `contig`, `contig:first-last` (from 1, both ends in), intervals, or None for everything.
        window: Bases in a window; None: what the model was built for, at most 8192.
        context: Bases that each base has before it in its window at least; None: half the window. Of causal models.
        strands: `forward` reads what lies before a base, `reverse` what lies after it; `mean` averages both. A model
            that sees both sides reads the forward strand, the other one, or both.
        batch_size: Windows in a forward call.

    Returns:
        Pieces in the order of the genome, no base twice; regions that overlap are joined.

    Raises:
        InputError: If a region leaves its contig or is on an unknown one.
        ConfigError: If window and context do not fit the model.
    """
    opened = genome if isinstance(genome, Genome) else Genome(genome)
    kind = _scorer_kind(model)
    scorer = kind(model, opened, window=window, context=context, strands=strands, batch_size=batch_size)
    return scorer.score(_intervals(opened, regions))


def _scorer_kind(model: nn.Module) -> type[TrackScorer] | type[MaskedTrackScorer]:
    return MaskedTrackScorer if sees_both_sides(model) else TrackScorer


def _intervals(genome: Genome, regions: Regions) -> list[Interval]:
    """Find regions on the genome, sorted in its order, those that overlap joined."""
    return merge_intervals(read_intervals(regions, genome, "likelihood"), genome)


def run(config: LikelihoodConfig) -> None:
    """Write tracks: what `likelihood` returns, as it is computed.

    Raises:
        InputError: If an input cannot be used; then there is no output.
        OutputError: If an output exists or cannot be written.
    """
    started = now()
    outs = _outputs(config)
    scorer = _make_scorer(config, config.dtype)
    intervals = _intervals(scorer.genome, config.regions)
    total = sum(interval.length for interval in intervals)
    plan = (
        f"{counted(total, 'base')} in {counted(len(intervals), 'region')}, {scorer.plan} on {scorer.runner.device} -> "
        f"{', '.join(outs.values())}"
    )
    if config.dry_run:
        print(plan)
        return
    _say(plan, config)
    if config.dtype != "float32":
        _guard_precision(scorer, intervals, config)
    counts = _write(scorer, intervals, outs, total, config)
    if config.out != STANDARD_OUTPUT:
        files = [config.genome, *([config.regions] if config.regions and Path(config.regions).is_file() else [])]
        weights = Path(config.model) / "model.safetensors"
        record = counts | {"window": scorer.window, "context": getattr(scorer, "context", None)}
        write_run_json(Path(f"{config.out}.run.json"), config, inputs=[*files, weights], counts=record, started=started)


def _outputs(config: LikelihoodConfig) -> dict[str, str]:
    """Name of each track -> where it goes; checked."""
    outs = {"log_likelihood": config.out} | ({} if config.entropy is None else {"entropy": config.entropy})
    for out in outs.values():
        require_track_format(check_new_file(out, SUFFIXES, force=config.force))
        refuse_same_file(out, config.genome, *([] if config.regions is None else [config.regions]))
    if len(outs) == 2 and (len(set(outs.values())) == 1 or config.entropy == STANDARD_OUTPUT):
        raise ConfigError(f"--entropy {config.entropy}: the second track needs a file of its own")
    return outs


def _make_scorer(config: LikelihoodConfig, dtype: str) -> TrackScorer | MaskedTrackScorer:
    set_backend(config.conv_backend)
    model = load(config.model, config.device, dtype)
    return _scorer_kind(model)(
        model,
        Genome(config.genome, quiet=config.quiet),
        window=config.window,
        context=config.context,
        strands=config.strands,
        batch_size=config.batch_size,
    )


def _guard_precision(
    narrow: TrackScorer | MaskedTrackScorer, intervals: Sequence[Interval], config: LikelihoodConfig
) -> None:
    """Say how far a narrow dtype drifts from float32, and stop there with `strict` if ranks change."""
    exact = _make_scorer(config, "float32")
    drift = compare(_first_values(exact, intervals), _first_values(narrow, intervals), of="base")
    if drift.swapped and config.strict:
        raise ConfigError(f"--dtype {config.dtype}: {drift}; take float32, or leave --strict out")
    _say(f"{'warning: ' if drift.swapped else ''}in {config.dtype} {drift} beside float32", config)


def _first_values(scorer: TrackScorer | MaskedTrackScorer, intervals: Sequence[Interval]) -> npt.NDArray[np.float64]:
    sample, room = [], _GUARDED_BASES
    for interval in intervals:
        sample.append(Interval(interval.contig, interval.start, min(interval.end, interval.start + room)))
        room -= sample[-1].length
        if not room:
            break
    values = np.concatenate([track.log_likelihood for track in scorer.score(sample)] or [np.empty(0, np.float32)])
    return values[np.isfinite(values)].astype(np.float64)


def _write(
    scorer: TrackScorer | MaskedTrackScorer,
    intervals: Sequence[Interval],
    outs: dict[str, str],
    total: int,
    config: LikelihoodConfig,
) -> dict[str, int]:
    scored = 0
    with ExitStack() as stack:
        sinks: dict[str, TrackSink] = {}
        for name, out in outs.items():
            suffix = check_new_file(out, SUFFIXES, force=True)
            label = f"dnasm_{name}_{config.strands}"
            sinks[name] = stack.enter_context(open_track(out, suffix, scorer.genome, label))
        meter = stack.enter_context(Meter("likelihood", "bases", total, quiet=config.quiet))
        for track in scorer.score(intervals):
            for name, sink in sinks.items():
                sink.write(track.contig, track.start, getattr(track, name))
            scored += int(np.isfinite(track.log_likelihood).sum())
            meter.advance(track.end - track.start)
    ends = {"forward": "first base", "reverse": "last base", "mean": "first and last base"}[config.strands]
    why = "; N has none" if sees_both_sides(scorer.runner.model) else f"; N and a contig's {ends} have none"
    _say(f"{scored:,} of {counted(total, 'base')} with a value{why if scored < total else ''}", config)
    return {"bases": total, "bases_with_a_value": scored}


def _say(text: str, config: LikelihoodConfig) -> None:
    if not config.quiet:
        print(f"dnasm likelihood: {text}", file=sys.stderr)
