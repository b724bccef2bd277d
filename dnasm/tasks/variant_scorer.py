"""Score alleles in chunks: check each, cut its windows, run the model once for each distinct window."""

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Literal, NamedTuple, get_args

import numpy as np
from torch import nn

from dnasm.errors import ConfigError
from dnasm.genome import Genome
from dnasm.tasks.allele_windows import (
    WindowPair,
    cut_windows,
    cut_windows_reverse,
    find_change,
    left_align,
    room,
)
from dnasm.tasks.forward_batches import BatchRunner, BatchSize, check_choice
from dnasm.tasks.prefetch import prefetch
from dnasm.tasks.score_methods import Measurer, Method, Pair, unfit
from dnasm.tasks.score_table import MISSING, ScoreTable
from dnasm.tasks.variant_checks import Allele, CheckRef, VariantChecker, Verdict
from dnasm.tasks.window_likelihoods import Window
from dnasm.vocabulary import Tokens

Strands = Literal["forward", "reverse", "mean"]

MAX_DEFAULT_WINDOW = 8192
_FEWEST_ALLELES = 512  # in a chunk, so that neighbours meet and share what is the same in their windows

_AROUND = 4096  # bases that are read on each side of what is asked for: neighbours find them there

Pairs = dict[str, Pair]
"""Strand -> the windows of REF and ALT."""


class _Chunk(NamedTuple):
    """Alleles that are scored together, and the distinct windows that this takes."""

    rows: list[tuple[Allele, Verdict, Pairs]]
    windows: list[Window]


class VariantScorer:
    """A model and a genome, ready to score any number of alleles, in chunks and in their order."""

    def __init__(
        self,
        model: nn.Module,
        genome: Genome,
        *,
        window: int | None = None,
        grid: int = 1,
        strands: Strands = "mean",
        check_ref: CheckRef = "error",
        batch_size: BatchSize = "auto",
        method: Method = "llr",
        layer: int = -1,
        left_align: bool = False,
        quiet: bool = False,
    ) -> None:
        check_choice("strands", strands, get_args(Strands))
        check_choice("check_ref", check_ref, get_args(CheckRef))
        self.runner = BatchRunner(model, batch_size)
        self._measurer = Measurer(self.runner, method, layer)
        self._method = method
        self.window = pick_window(model, window)
        if not 1 <= grid <= max(1, self.window // 4):
            raise ConfigError(f"grid is {grid}; it must be from 1 to a quarter of the window of {self.window} bases")
        self._grid = grid
        self._left_align = left_align
        self.checker = VariantChecker(genome, check_ref, quiet=quiet)
        self.genome = genome
        self._stretch: tuple[str, int, Tokens] = "", 0, np.empty(0, np.uint8)
        cut = {"forward": cut_windows, "reverse": cut_windows_reverse}
        self._cut = {name: cut[name] for name in cut if strands in (name, "mean")}

    def score(self, alleles: Iterable[Allele]) -> Iterator[ScoreTable]:
        """Yield tables whose rows, taken together, are the alleles in their order."""
        with prefetch(self._chunks(alleles)) as chunks:
            for chunk in chunks:
                yield self._evaluate(chunk)

    def cut(self, allele: Allele) -> dict[str, WindowPair]:
        """Return the windows of an allele on each strand that is scored; none if it cannot be scored."""
        return self._windows(allele)[1]

    def check(self, alleles: Iterable[Allele]) -> Counter[str]:
        """Count what would become of alleles, without the model."""
        return Counter(self._windows(allele)[0].status for allele in alleles)

    def _chunks(self, alleles: Iterable[Allele]) -> Iterator[_Chunk]:
        stream = iter(alleles)
        size = max(_FEWEST_ALLELES, self.runner.size(self.window))
        while listed := list(islice(stream, size)):
            yield self._prepare(listed)

    def _prepare(self, alleles: list[Allele]) -> _Chunk:
        distinct: dict[Window, int] = {}
        rows: list[tuple[Allele, Verdict, Pairs]] = []
        for allele in alleles:
            verdict, windows = self._windows(allele)
            pairs = {
                strand: Pair(
                    _number(distinct, pair.reference, pair),
                    _number(distinct, pair.alternate, pair),
                    pair.first,
                    pair.ref_length,
                    pair.alt_length,
                )
                for strand, pair in windows.items()
            }
            rows.append((allele, verdict, pairs))
        return _Chunk(rows, list(distinct))

    def _evaluate(self, chunk: _Chunk) -> ScoreTable:
        values = iter(
            self._measurer.values(chunk.windows, [pair for *_, pairs in chunk.rows for pair in pairs.values()])
        )
        return ScoreTable.from_rows(
            (_row(allele, verdict, {s: next(values) for s in pairs}) for allele, verdict, pairs in chunk.rows),
            self._method,
        )

    def _read(self, contig: str, start: int, end: int) -> Tokens:
        """Read bases of a contig, from the stretch that was read last if they are there."""
        held, first, tokens = self._stretch
        if held != contig or start < first or end > first + len(tokens):
            first = max(0, start - _AROUND)
            tokens = self.genome.tokens(contig, first, min(end + _AROUND, self.genome.contigs[contig]))
            self._stretch = contig, first, tokens
        return tokens[start - first : end - first]

    def _windows(self, allele: Allele) -> tuple[Verdict, dict[str, WindowPair]]:
        """Check an allele and cut its windows, none of them if it cannot be scored."""
        verdict = self.checker.check(allele)
        if verdict.status != "ok":
            return verdict, {}
        length = self.genome.contigs[verdict.contig]
        read = partial(self._read, verdict.contig)
        change = find_change(allele.pos - 1, allele.ref.upper(), allele.alt.upper())
        if self._left_align:
            change = left_align(change, read)
        longer = max(change.end - change.start, len(change.alternate))
        spaces = [room(c, length, self.window, self._grid) for c in (change, change.mirrored(length))]
        if length < 2 or longer > min(spaces):
            reason = (
                f"the longer allele changes {longer:,} bases, a window of {self.window:,} has room for {min(spaces):,}"
            )
            return Verdict("unsupported", reason if length > 1 else "the contig has a single base", True), {}
        reason = unfit(self._method, change.end - change.start, len(change.alternate))
        if reason:
            return Verdict("unsupported", reason, True), {}
        windows = {strand: cut(read, length, change, self.window, self._grid) for strand, cut in self._cut.items()}
        blind = [strand for strand, pair in windows.items() if pair.first == 0]
        if blind:
            note = f"the contig begins with it on the {blind[0]} strand, where its own probability is not scored"
            verdict = Verdict("ok", note, True, verdict.contig)
        return verdict, windows


def pick_window(model: nn.Module, window: int | None) -> int:
    """Check the window, or take what the model was built for, at most 8192 bases.

    Raises:
        ConfigError: If it is shorter than 2 bases or longer than the model takes.
    """
    config = getattr(model, "config", None)
    longest = getattr(config, "max_length", None)
    if longest is not None and getattr(config, "suffix_separator", False):
        longest -= 2  # published lengths count the special tokens around the bases
    if window is None:
        return MAX_DEFAULT_WINDOW if longest is None else min(longest, MAX_DEFAULT_WINDOW)
    if window < 2 or (longest is not None and window > longest):
        raise ConfigError(f"window is {window}; it must be 2 or more, and this model takes at most {longest} bases")
    return window


def _number(distinct: dict[Window, int], window: Tokens, pair: WindowPair) -> int:
    """Give equal windows the same number, so that the model reads each once."""
    return distinct.setdefault(Window(window.tobytes(), pair.cut, pair.reference.tobytes()), len(distinct))


def _row(allele: Allele, verdict: Verdict, ratios: dict[str, float]) -> tuple[object, ...]:
    llr = sum(ratios.values()) / len(ratios) if ratios else np.nan
    forward, reverse = ratios.get("forward", np.nan), ratios.get("reverse", np.nan)
    place = (allele.contig, allele.pos, allele.ref, allele.alt or MISSING)
    return (*place, llr, forward, reverse, verdict.ref_match, verdict.status, verdict.reason)
