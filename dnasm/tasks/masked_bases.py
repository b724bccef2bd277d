"""What a model that sees both sides expects at a base: that base alone is masked, and stands in the middle of a window.

A value depends on the base's place and the window alone. The windows are those in which `dnasm score` sees a
substitution of that base, so the two agree.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from dnasm import vocabulary
from dnasm.genome import Genome, Interval
from dnasm.models.likelihood import base_log_probs
from dnasm.tasks.allele_windows import Change, place_window
from dnasm.tasks.forward_batches import BatchRunner
from dnasm.vocabulary import BASES, MASK, Tokens

LogProbs = npt.NDArray[np.float32]
"""(n, 4): of A, C, G and T; nan where the genome has none of them."""

_AT_ONCE = 256  # copies of a window, each with another base masked


def masked_log_probs(runner: BatchRunner, windows: Sequence[Tokens], places: Sequence[int]) -> LogProbs:
    """Log-probabilities of A, C, G and T at one masked place of each window, a forward pass for each."""
    found: list[LogProbs] = []
    for start in range(0, len(places), _AT_ONCE):
        copies = []
        for window, place in zip(windows[start : start + _AT_ONCE], places[start : start + _AT_ONCE], strict=True):
            copies.append(window.copy())
            copies[-1][place] = MASK
        found += runner.run(copies, partial(_at_mask, runner.model))
    return np.stack(found) if found else np.empty((0, 4), np.float32)


def _at_mask(model: nn.Module, tokens: Integer[Tensor, "b l"]) -> Float[Tensor, "b 4"]:
    place = (tokens == MASK).int().argmax(1)
    return base_log_probs(model(tokens)[torch.arange(len(tokens), device=tokens.device), place])


def expected_in_sequence(runner: BatchRunner, tokens: Tokens, strand: str) -> LogProbs:
    """What is expected at each base of a sequence that is its own window, in the order and letters of `tokens`."""
    own = vocabulary.reverse_complement(tokens) if strand == "reverse" else tokens
    places = np.flatnonzero(np.isin(own, BASES)).tolist()
    found = np.full((len(own), 4), np.nan, np.float32)
    found[places] = masked_log_probs(runner, [own] * len(places), places)
    return found[::-1, ::-1] if strand == "reverse" else found


def expected_in_region(runner: BatchRunner, genome: Genome, region: Interval, window: int, strand: str) -> LogProbs:
    """What is expected at each base of a region, in the order and letters of the forward strand."""
    length = genome.contigs[region.contig]
    spans = [_span(base, length, window, strand) for base in range(region.start, region.end)]
    first = min(start for start, _ in spans)
    tokens = genome.tokens(region.contig, first, max(end for _, end in spans))
    windows, places, known = [], [], []
    for i, (start, end) in enumerate(spans):
        base = region.start + i
        if tokens[base - first] in BASES:
            cut = tokens[start - first : end - first]
            reverse = strand == "reverse"
            windows.append(vocabulary.reverse_complement(cut) if reverse else cut)
            places.append(end - 1 - base if reverse else base - start)
            known.append(i)
    found = np.full((region.length, 4), np.nan, np.float32)
    rows = masked_log_probs(runner, windows, places)
    found[known] = rows[:, ::-1] if strand == "reverse" else rows
    return found


def _span(base: int, length: int, window: int, strand: str) -> tuple[int, int]:
    """Where the window of a base starts and ends, in coordinates of the forward strand."""
    change = Change(base, base + 1, np.empty(1, np.uint8))
    if strand == "forward":
        start, width = place_window(change, length, window)
        return start, start + width
    start, width = place_window(change.mirrored(length), length, window)
    return length - start - width, length - start
