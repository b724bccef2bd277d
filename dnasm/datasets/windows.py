"""Which window is sample i of epoch e: a pure function of (seed, epoch, i), computed for a batch at once.

Every choice is read off a counter-based hash: a sample needs no generator state, so it is the same for any batch size
and any number of workers, ranks and restarts. The hash absorbs seed, epoch, index and a draw counter one after another,
each through SplitMix64's finaliser, a bijection of 64-bit words: within an epoch no two samples share a state.
A draw counter holds the purpose of the draw (which genome, where, which strand) and the attempt, so that drawing a
position again, because the window holds too many N, moves neither the genome nor the strand.

Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", the finaliser (variant 13).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
import numpy.typing as npt

from dnasm.datasets.regions import Integers, Layout, Spans, num_bases
from dnasm.errors import ConfigError, InputError
from dnasm.genome.runs import Runs, count_inside

Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
ShortRegions = Literal["skip", "pad"]

MAX_ATTEMPTS = 256
"""Draws of one window; where nine tenths of the starts have too many N, one sample in 10^12 fails."""

_WORD = 2**64
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LOW = np.uint64(0xFFFFFFFF)


class _Draw(IntEnum):
    """Purposes of a draw; the attempt counts on from the last."""

    GENOME = 0
    STRAND = 1
    POSITION = 2


def mix(words: Words) -> Words:
    """SplitMix64's finaliser: a bijection of 64-bit words that spreads every bit over all.

    >>> int(mix(np.array([0x9E3779B97F4A7C15], dtype=np.uint64))[0]) == 0xE220A8397B1DCDAF
    True
    """
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def absorb(state: Words, value: Words | int) -> Words:
    """Hash one more word into a state; for a given state no two values collide."""
    word = np.uint64(value % _WORD) if isinstance(value, int) else value
    return mix((state ^ word) + _GOLDEN)


def sample_states(seed: int, epoch: int, indices: Integers) -> Words:
    """Give each sample of an epoch its hash state."""
    start = absorb(absorb(np.zeros(1, dtype=np.uint64), seed), epoch)
    return absorb(start, indices.astype(np.uint64))


def below(words: Words, bounds: Integers | int) -> Integers:
    """Map uniform 64-bit words to integers in [0, bound): the high half of their product.

    No value is favoured by more than bound / 2**64, a part in 10^9 for the largest genomes.
    """
    n = np.asarray(bounds).astype(np.uint64)
    high, low = words >> np.uint64(32), words & _LOW
    n_high, n_low = n >> np.uint64(32), n & _LOW
    middle = ((low * n_low) >> np.uint64(32)) + ((high * n_low) & _LOW) + low * n_high  # n < 2**62, so that this fits
    return (high * n_high + ((high * n_low) >> np.uint64(32)) + (middle >> np.uint64(32))).astype(np.int64)


def uniform(words: Words) -> npt.NDArray[np.float64]:
    """Map uniform 64-bit words to floats in [0, 1)."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True)
class Windows:
    """A batch of windows."""

    table: Integers
    """(n, 5): a row a window, with the columns below; in one array, as a batch carries it along."""

    @classmethod
    def of(cls, genome: Integers, contig: Integers, start: Integers, length: Integers, reverse: Mask) -> "Windows":
        """Join the columns."""
        return cls(np.stack([genome, contig, start, length, reverse.astype(np.int64)], axis=1))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, rows: slice | Integers) -> "Windows":
        return Windows(self.table[rows])

    @property
    def genome(self) -> Integers:
        """Number of the genome, in the order of the settings."""
        return self.table[:, 0]

    @property
    def contig(self) -> Integers:
        """Number of the contig, in file order."""
        return self.table[:, 1]

    @property
    def start(self) -> Integers:
        """First base in the contig, 0-based on the forward strand."""
        return self.table[:, 2]

    @property
    def length(self) -> Integers:
        """Bases that are read; the rest of the window, to the right before it is turned round, is padding."""
        return self.table[:, 3]

    @property
    def reverse(self) -> Mask:
        """Whether the window is read from the other strand."""
        return self.table[:, 4] != 0


@dataclass(frozen=True)
class GenomeRegions:
    """One genome as the samplers see it: no bases, only coordinates."""

    path: str
    """For messages."""
    layout: Layout
    regions: Spans
    """Where windows may lie."""
    n_runs: Runs
    """Where the sequence is N, in offsets of the token store."""
    weight: float | None = None
    """Share of the windows relative to the other genomes; None: by the number of bases."""


class _Starts:
    """The window starts that one genome's regions allow."""

    def __init__(self, source: GenomeRegions, window: int, max_n_fraction: float, short: ShortRegions) -> None:
        spans = source.regions
        lengths = spans[:, 1] - spans[:, 0]
        usable = np.full(len(spans), True) if short == "pad" else lengths >= window
        self.path, self.layout = source.path, source.layout
        self.spans = spans[usable]
        self.num_bases = num_bases(self.spans)
        self.num_skipped, self.bases_skipped = int((~usable).sum()), int(lengths[~usable].sum())
        self.lengths = np.minimum(lengths[usable], window)
        # A region shorter than the window has one place for it; it is drawn as often as its bases deserve.
        places = np.where(lengths[usable] >= window, lengths[usable] - window + 1, lengths[usable])
        self._before = np.concatenate([[0], np.cumsum(places)])
        self.total = int(self._before[-1])
        self.max_n_fraction = max_n_fraction
        self._n_runs = source.n_runs

    def draw(self, words: Words) -> tuple[Integers, Integers]:
        """Map words to starts on the line, uniform over all the places, and to lengths."""
        place = below(words, self.total)
        region = np.searchsorted(self._before, place, side="right") - 1
        length = self.lengths[region]
        last = self.spans[region, 1] - length
        return np.minimum(self.spans[region, 0] + place - self._before[region], last), length

    def too_many_n(self, start: Integers, length: Integers) -> Mask:
        offset = start - self.layout.locate(start)[0]  # the line has one base more for each contig before this one
        return count_inside(self._n_runs, offset, offset + length) > self.max_n_fraction * length

    def tile(self, window: int) -> tuple[Integers, Integers]:
        """Starts and lengths of windows side by side from each region's start; what is left at its end is not used."""
        counts = np.maximum((self.spans[:, 1] - self.spans[:, 0]) // window, 1)
        region = np.repeat(np.arange(len(counts)), counts)
        step = np.arange(len(region)) - np.repeat(np.cumsum(counts) - counts, counts)
        start, length = self.spans[region, 0] + step * window, self.lengths[region]
        kept = ~self.too_many_n(start, length)
        return start[kept], length[kept]


def _starts_of(
    sources: Sequence[GenomeRegions], window: int, max_n_fraction: float, short: ShortRegions
) -> list[_Starts]:
    if window < 1:
        raise ConfigError(f"data.window is {window}; a window has at least 1 base")
    if not 0 <= max_n_fraction <= 1:
        raise ConfigError(f"data.max_n_fraction is {max_n_fraction}; it is a share from 0 to 1")
    return [_Starts(source, window, max_n_fraction, short) for source in sources]


def _longest(sources: Sequence[GenomeRegions]) -> str:
    """Describe the longest region there is."""
    best = max((s for s in sources if len(s.regions)), key=lambda s: int((s.regions[:, 1] - s.regions[:, 0]).max()))
    at = int((best.regions[:, 1] - best.regions[:, 0]).argmax())
    interval = best.layout.intervals(best.regions[at : at + 1])[0]
    length = interval.end - interval.start
    return f"{interval.contig}:{interval.start}-{interval.end} of {best.path}, {length} bases"


class WindowSampler:
    """Draws training windows, each allowed start as likely as any other start of its genome."""

    def __init__(
        self,
        sources: Sequence[GenomeRegions],
        window: int,
        *,
        max_n_fraction: float = 0.5,
        reverse_complement: float = 0.5,
        short: ShortRegions = "skip",
    ) -> None:
        """Prepare to draw.

        Args:
            sources: The genomes with their training regions.
            window: Bases in a window.
            max_n_fraction: A window with a larger share of N is drawn again.
            reverse_complement: Probability that a window is read from the other strand.
            short: What becomes of regions shorter than the window: left out, or padded.

        Raises:
            ConfigError: If a setting is out of range, some genomes have a weight and others none, or nothing of a
                genome is left to train on.
            InputError: If no region of a genome holds a window.
        """
        if not 0 <= reverse_complement <= 1:
            raise ConfigError(f"data.reverse_complement is {reverse_complement}; it is a probability from 0 to 1")
        self.window, self.reverse_complement = window, reverse_complement
        self._genomes = _starts_of(sources, window, max_n_fraction, short)
        for source, starts in zip(sources, self._genomes, strict=True):
            if not starts.total:
                self._refuse(source, window)
        self.shares = _shares([source.weight for source in sources], [g.num_bases for g in self._genomes])
        self._cumulative = np.cumsum(self.shares)[:-1]

    @staticmethod
    def _refuse(source: GenomeRegions, window: int) -> None:
        if not len(source.regions):
            raise ConfigError(f"{source.path}: nothing is left to train on after include, exclude, validation and test")
        raise InputError(
            f"no training region of {source.path} holds a window of {window} bases: the longest is "
            f"{_longest([source])}; shorten data.window, or set data.short_regions to pad"
        )

    @property
    def skipped(self) -> Mapping[str, tuple[int, int]]:
        """Regions too short for a window and the bases in them, for each genome that has some."""
        return {g.path: (g.num_skipped, g.bases_skipped) for g in self._genomes if g.num_skipped}

    def sample(self, seed: int, epoch: int, indices: npt.ArrayLike) -> Windows:
        """Say which windows samples `indices` of an epoch are.

        Raises:
            InputError: If a genome holds too much N to find a window in a bounded number of draws.
        """
        states = sample_states(seed, epoch, np.asarray(indices, dtype=np.int64))
        genome = np.searchsorted(self._cumulative, uniform(absorb(states, _Draw.GENOME)), side="right").astype(np.int64)
        contig, start, length = np.empty_like(genome), np.empty_like(genome), np.empty_like(genome)
        for number in np.unique(genome).tolist():
            rows = np.flatnonzero(genome == number)
            line, length[rows] = self._place(self._genomes[number], states[rows])
            contig[rows], start[rows] = self._genomes[number].layout.locate(line)
        reverse = uniform(absorb(states, _Draw.STRAND)) < self.reverse_complement
        return Windows.of(genome, contig, start, length, reverse)

    def _place(self, genome: _Starts, states: Words) -> tuple[Integers, Integers]:
        start, length = genome.draw(absorb(states, _Draw.POSITION))
        again = np.flatnonzero(genome.too_many_n(start, length))
        for attempt in range(1, MAX_ATTEMPTS):
            if not len(again):
                return start, length
            start[again], length[again] = genome.draw(absorb(states[again], _Draw.POSITION + attempt))
            again = again[genome.too_many_n(start[again], length[again])]
        if len(again):
            raise InputError(
                f"{genome.path}: {MAX_ATTEMPTS} windows of {self.window} bases in a row had more than "
                f"{genome.max_n_fraction:.0%} N; exclude its N runs, or raise data.max_n_fraction"
            )
        return start, length


def _shares(weights: Sequence[float | None], bases: Sequence[int]) -> npt.NDArray[np.float64]:
    given = [weight for weight in weights if weight is not None]
    if given and len(given) < len(weights):
        raise ConfigError(f"data.genomes: {len(given)} of {len(weights)} have a weight; give all of them one, or none")
    if any(not 0 < weight < float("inf") for weight in given):
        raise ConfigError(f"data.genomes: the weights are {given}; each must be above 0")
    shares = np.asarray(given or bases, dtype=np.float64)
    return shares / shares.sum()


def tile_windows(
    sources: Sequence[GenomeRegions],
    window: int,
    at_most: int,
    *,
    max_n_fraction: float = 0.5,
    short: ShortRegions = "skip",
) -> Windows:
    """Choose the fixed windows of a validation: side by side, forward strand, spread evenly over the regions.

    Windows with too many N are left out before the choice. A region's end that holds no whole window is not read.

    Args:
        sources: The genomes with their held-out regions; their weights are not used.
        window: Bases in a window.
        at_most: Largest number of windows; of more, evenly spaced ones are taken.
        max_n_fraction: A window with a larger share of N is left out.
        short: What becomes of regions shorter than the window: left out, or padded.

    Raises:
        ConfigError: If no region is held out.
        InputError: If none of them holds a window.
    """
    if at_most < 1:
        raise ConfigError(f"data.validation_windows is {at_most}; a validation reads at least 1 window")
    tiles = [genome.tile(window) for genome in _starts_of(sources, window, max_n_fraction, short)]
    genome = np.repeat(np.arange(len(tiles)), [len(start) for start, _ in tiles])
    if not len(genome):
        if not any(len(source.regions) for source in sources):
            raise ConfigError("no regions are held out for validation; set validation or validation_bed of a genome")
        raise InputError(
            f"no held-out region gives a window of {window} bases with at most {max_n_fraction:.0%} N: the longest is "
            f"{_longest(sources)}; shorten data.window, or hold out more"
        )
    line, length = (np.concatenate(parts) for parts in zip(*tiles, strict=True))
    chosen = np.arange(len(genome))
    if len(genome) > at_most:
        chosen = (2 * np.arange(at_most) + 1) * len(genome) // (2 * at_most)  # the middle of each of at_most parts
    genome, line, length = genome[chosen], line[chosen], length[chosen]
    contig, start = np.empty_like(line), np.empty_like(line)
    for number in np.unique(genome).tolist():
        rows = genome == number
        contig[rows], start[rows] = sources[number].layout.locate(line[rows])
    return Windows.of(genome, contig, start, length, np.zeros(len(line), dtype=np.bool_))
