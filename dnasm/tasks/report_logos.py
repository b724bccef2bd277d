"""What a model expects around a variant, as a logo: the letters' heights are their share of the information."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from dnasm import vocabulary
from dnasm.errors import DnasmError
from dnasm.genome import Genome, Interval
from dnasm.models.checkpoint import load
from dnasm.models.likelihood import base_log_probs
from dnasm.report.logo import logo_svg
from dnasm.tasks.allele_windows import Change, place_window
from dnasm.tasks.forward_batches import BatchRunner
from dnasm.tasks.likelihood import sees_both_sides
from dnasm.tasks.masked_bases import expected_in_region
from dnasm.tasks.report_inputs import read_json
from dnasm.tasks.variant_scorer import pick_window

Heights = npt.NDArray[np.float64]

_FLANK = 16
_WINDOW = 512
"""Bases that the model reads around a variant, at most."""


def find_model(scores: str, genome: Genome | None) -> tuple[nn.Module | None, str]:
    """Open the model that the record beside a score table names.

    Returns:
        The model, or None and why there is none.
    """
    record = Path(f"{scores}.run.json")
    if genome is None or not record.is_file():
        return None, ""  # why is said of the genome
    held = read_json(record)
    named = held.get("config", {}).get("model") if isinstance(held.get("config"), dict) else None
    path = Path(os.path.join(str(held.get("folder", ".")), str(named)))
    try:
        model = load(path, "cpu")
    except DnasmError as error:
        return None, f"no logos are drawn, the model of {scores} cannot be read: {error}"
    return model, ""


def expected_logos(model: nn.Module, genome: Genome, places: Sequence[Interval]) -> list[Heights]:
    """Find what the model expects around each place, both strands' opinions averaged: heights in bits."""
    window = min(pick_window(model, None), _WINDOW)
    if sees_both_sides(model):
        return [_expected_masked(BatchRunner(model), genome, place, window) for place in places]
    jobs = [_strand_job(genome, place, window, reverse=reverse) for place in places for reverse in (False, True)]
    runner = BatchRunner(model, pad=True)

    def compute(tokens: Integer[Tensor, "b l"]) -> Float[Tensor, "b l 4"]:
        log_probs = base_log_probs(runner.model(tokens)[:, :-1])
        return torch.cat([torch.full_like(log_probs[:, :1], -np.log(4)), log_probs], 1)

    rows = runner.run([tokens for tokens, _, _ in jobs], compute)
    opinions = [row[first:last] for row, (_, first, last) in zip(rows, jobs, strict=True)]
    pairs = zip(opinions[::2], opinions[1::2], strict=True)
    return [information((own + other[::-1, ::-1]) / 2) for own, other in pairs]


def _expected_masked(runner: BatchRunner, genome: Genome, place: Interval, window: int) -> Heights:
    """Mask each shown base in turn; N, which is not asked about, has no letters."""
    start, end = _shown(place, genome.contigs[place.contig])
    shown = Interval(place.contig, start, end)
    both = [expected_in_region(runner, genome, shown, window, strand) for strand in ("forward", "reverse")]
    return information(np.nan_to_num(np.mean(both, 0), nan=-np.log(4)))


def draw_logo_of(place: Interval, heights: Heights, top: float, ref: str, alt: str) -> str:
    """Draw one of `expected_logos` over the letters of its window: column by column, nothing over ALT.

    Args:
        place: Of the variant, whose own bases are marked.
        heights: Of the bases around it.
        top: Bits at the upper edge.
        ref: REF as the page writes it, perhaps shortened; bases that it does not spell out are left out.
        alt: ALT as the page writes it, behind REF.
    """
    before = place.start - _shown(place, place.end)[0]
    spelled = min(place.length, len(ref.partition("…")[0]))
    nothing = np.zeros((len(ref) - spelled + len(alt), heights.shape[1]))
    columns = np.concatenate([heights[: before + spelled], nothing, heights[before + place.length :]])
    return logo_svg(columns, "what the model expects", top=top, mark=(before, before + spelled))


def _shown(place: Interval, length: int) -> tuple[int, int]:
    """Bases around a place, on a contig of this length, that are drawn."""
    return max(0, place.start - _FLANK), min(length, place.end + _FLANK)


def _strand_job(genome: Genome, place: Interval, window: int, *, reverse: bool) -> tuple[vocabulary.Tokens, int, int]:
    """Tokens of one strand's window, and where in it the shown bases lie."""
    length = genome.contigs[place.contig]
    shown = _shown(place, length)
    change = Change(place.start, place.start + 1, np.empty(1, np.uint8))
    start, width = place_window(change.mirrored(length) if reverse else change, length, window)
    if reverse:
        start = length - start - width
    tokens = genome.tokens(place.contig, start, start + width)
    first, last = max(shown[0] - start, 0), min(shown[1] - start, width)
    if reverse:
        return vocabulary.reverse_complement(tokens), width - last, width - first
    return tokens, first, last


def information(log_probs: npt.NDArray[np.floating]) -> Heights:
    """Heights of a logo of probabilities: each letter's share of 2 bits less the entropy.

    >>> information(np.log(np.array([[0.5, 0.5, 1e-30, 1e-30]]))).round(3).tolist()
    [[0.5, 0.5, 0.0, 0.0]]
    """
    weights = np.exp(log_probs.astype(np.float64))
    shares = weights / weights.sum(1, keepdims=True)
    entropy = -(shares * np.log2(np.maximum(shares, 1e-300))).sum(1, keepdims=True)
    return shares * (2 - entropy)
