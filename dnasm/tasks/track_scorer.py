"""Log-likelihood and entropy of every base, in windows that overlap so that each base has enough before it.

A base's window follows from its place on the contig, the window and the context alone, so its value is the same
whatever region it was asked for with. The reverse strand is tiled in its own reading direction: a genome and its
reverse complement give the same numbers with the strands swapped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from dnasm import vocabulary
from dnasm.errors import ConfigError
from dnasm.genome import Genome, Interval
from dnasm.models.likelihood import base_log_probs, target_log_probs
from dnasm.tasks.forward_batches import BatchRunner, BatchSize, check_choice
from dnasm.tasks.likelihood import check_vocabulary
from dnasm.tasks.variant_scorer import Strands, pick_window
from dnasm.vocabulary import Tokens

Values = npt.NDArray[np.float32]

_FEWEST_WINDOWS = 16  # in a chunk, so that the windows at its ends, which both neighbours need, are few


@dataclass(frozen=True, eq=False)
class Track:
    """Values of consecutive bases, in nats; nan at N, and at a base that has nothing before it."""

    contig: str
    start: int
    """0-based."""
    log_likelihood: Values
    entropy: Values
    """Of the four probabilities that the model gives before it sees the base: at most log 4 = 1.386."""

    @property
    def end(self) -> int:
        """0-based, excluded."""
        return self.start + len(self.log_likelihood)


@dataclass(frozen=True)
class Tiling:
    """Windows of one contig: window k begins at k * (window - context), and only the first scores its first part."""

    window: int
    context: int
    length: int
    """Bases of the contig."""

    def windows(self, start: int, end: int) -> range:
        """Numbers of the windows that score bases `start` to `end`."""
        return range(self._window_of(start), self._window_of(end - 1) + 1)

    def _window_of(self, base: int) -> int:
        return 0 if base < self.window else (base - self.context) // (self.window - self.context)

    def span(self, number: int) -> tuple[int, int]:
        """Bases that a window reads."""
        start = number * (self.window - self.context)
        return start, min(start + self.window, self.length)

    def scored(self, number: int) -> tuple[int, int]:
        """Bases that a window scores; of all windows, these are the contig, each base once."""
        start, end = self.span(number)
        return start + (self.context if number else 0), end


@dataclass
class _Strand:
    """One strand of one contig, read and tiled in its own direction."""

    genome: Genome
    contig: str
    tiling: Tiling
    reverse: bool
    known: dict[int, Values] = field(default_factory=dict)
    """Window -> (bases, 2) of what it scores."""

    def missing(self, start: int, end: int) -> list[int]:
        """Windows that bases `start` to `end` of the forward strand still need; others are forgotten."""
        wanted = self.tiling.windows(*self._own(start, end))
        self.known = {number: values for number, values in self.known.items() if number in wanted}
        return [number for number in wanted if number not in self.known]

    def tokens(self, number: int) -> Tokens:
        start, end = self._own(*self.tiling.span(number))
        tokens = self.genome.tokens(self.contig, start, end)
        return vocabulary.reverse_complement(tokens) if self.reverse else tokens

    def learn(self, number: int, tokens: Tokens, row: Values) -> None:
        """Keep what a window scores of the model's values, which begin at its second base."""
        values = np.full((len(tokens), 2), np.nan, np.float32)
        values[1:] = row[: len(tokens) - 1]
        values[(tokens < vocabulary.A) | (tokens > vocabulary.T)] = np.nan
        self.known[number] = values[self.tiling.scored(number)[0] - self.tiling.span(number)[0] :]

    def values(self, start: int, end: int) -> Values:
        """Values of bases `start` to `end`, in the forward strand's order."""
        begin, stop = self._own(start, end)
        numbers = self.tiling.windows(begin, stop)
        joined = np.concatenate([self.known[number] for number in numbers])
        offset = self.tiling.scored(numbers[0])[0]
        own = joined[begin - offset : stop - offset]
        return own[::-1] if self.reverse else own

    def _own(self, start: int, end: int) -> tuple[int, int]:
        """Turn coordinates of one strand into those of the other, if this is the reverse one."""
        return (self.tiling.length - end, self.tiling.length - start) if self.reverse else (start, end)


class TrackScorer:
    """A model and a genome, ready to score any number of regions, in chunks."""

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
        check_vocabulary(model, causal=True)
        check_choice("strands", strands, get_args(Strands))
        self.genome = genome
        self.runner = BatchRunner(model, batch_size, pad=True)
        self.window = pick_window(model, window)
        self.context = self.window // 2 if context is None else context
        if not 1 <= self.context < self.window:
            raise ConfigError(f"context is {context}; it must be from 1 to {self.window - 1}, less than the window")
        self._reverse = {"forward": (False,), "reverse": (True,), "mean": (False, True)}[strands]

    @property
    def plan(self) -> str:
        """How each base is scored."""
        return f"windows of {self.window:,} with {self.context:,} of context"

    def score(self, intervals: Sequence[Interval]) -> Iterator[Track]:
        """Yield the values of sorted intervals piece by piece, each base once."""
        step = max(_FEWEST_WINDOWS, 2 * self.runner.size(self.window)) * (self.window - self.context)
        strands: list[_Strand] = []
        for interval in intervals:
            if not strands or strands[0].contig != interval.contig:
                tiling = Tiling(self.window, self.context, self.genome.contigs[interval.contig])
                strands = [_Strand(self.genome, interval.contig, tiling, reverse) for reverse in self._reverse]
            for start in range(interval.start, interval.end, step):
                yield self._piece(strands, start, min(start + step, interval.end))

    def _piece(self, strands: Sequence[_Strand], start: int, end: int) -> Track:
        jobs = [(strand, number, strand.tokens(number)) for strand in strands for number in strand.missing(start, end)]
        rows = self.runner.run([tokens for _, _, tokens in jobs], self._compute)
        for (strand, number, tokens), row in zip(jobs, rows, strict=True):
            strand.learn(number, tokens, row)
        values = np.stack([strand.values(start, end) for strand in strands]).mean(0, dtype=np.float64)
        columns = values.astype(np.float32).T
        return Track(strands[0].contig, start, *columns)

    def _compute(self, tokens: Integer[Tensor, "b l"]) -> Float[Tensor, "b l-1 2"]:
        logits = self.runner.model(tokens)
        log_probs = base_log_probs(logits[:, :-1])
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return torch.stack([target_log_probs(logits, tokens), entropy], -1)
