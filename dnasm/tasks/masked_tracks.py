"""Log-probability and entropy of every base under a model that sees both sides, each base masked in turn."""

from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np
from torch import nn

from dnasm import vocabulary
from dnasm.errors import ConfigError
from dnasm.genome import Genome, Interval
from dnasm.tasks.forward_batches import BatchRunner, BatchSize, check_choice
from dnasm.tasks.likelihood import check_vocabulary
from dnasm.tasks.masked_bases import LogProbs, expected_in_region
from dnasm.tasks.track_scorer import Track, Values
from dnasm.tasks.variant_scorer import Strands, pick_window

_STEP = 256  # bases of a piece


class MaskedTrackScorer:
    """As `TrackScorer`, for a model of masked bases: a forward pass for each base and strand."""

    def __init__(
        self,
        model: nn.Module,
        genome: Genome,
        *,
        window: int | None = None,
        context: int | None = None,
        strands: Strands = "mean",
        batch_size: BatchSize = "auto",
    ) -> None:
        check_vocabulary(model)
        check_choice("strands", strands, get_args(Strands))
        if context is not None:
            raise ConfigError(
                f"context is {context}: it is for models that read from left to right; this one sees both sides, and "
                "each base stands in the middle of a window of its own: leave it out"
            )
        self.genome = genome
        self.runner = BatchRunner(model, batch_size)
        self.window = pick_window(model, window)
        self._strands = ("forward", "reverse") if strands == "mean" else (strands,)

    @property
    def plan(self) -> str:
        """How each base is scored."""
        return f"each base masked in the middle of {self.window:,}"

    def score(self, intervals: Sequence[Interval]) -> Iterator[Track]:
        """Yield the values of sorted intervals piece by piece, each base once."""
        for interval in intervals:
            for start in range(interval.start, interval.end, _STEP):
                piece = Interval(interval.contig, start, min(start + _STEP, interval.end))
                tokens = self.genome.tokens(piece.contig, piece.start, piece.end)
                strands = [self._strand(piece, tokens, strand) for strand in self._strands]
                values = np.stack(strands).mean(0, dtype=np.float64).astype(np.float32)
                yield Track(piece.contig, start, values[0], values[1])

    def _strand(self, piece: Interval, tokens: vocabulary.Tokens, strand: str) -> Values:
        expected: LogProbs = expected_in_region(self.runner, self.genome, piece, self.window, strand)
        own = np.clip(tokens.astype(np.int64) - vocabulary.A, 0, 3)  # of N all four are nan
        chosen = np.take_along_axis(expected, own[:, None], 1)[:, 0]
        return np.stack([chosen, -(np.exp(expected) * expected).sum(1)])
