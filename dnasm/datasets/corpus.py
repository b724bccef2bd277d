"""The genomes of one training run, with what may be learned from, what is held out, and what each base counts."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from dnasm.config import DataConfig
from dnasm.datasets.regions import Integers, num_bases, split_genome
from dnasm.datasets.windows import GenomeRegions, Mask, Windows, WindowSampler, tile_windows
from dnasm.errors import ConfigError
from dnasm.genome import Genome, Interval
from dnasm.resources import locate
from dnasm.vocabulary import BASES, PAD, Tokens, reverse_complement

Weights = npt.NDArray[np.uint8] | npt.NDArray[np.float16]
Array = TypeVar("Array", Tokens, Mask)

PIECE = 1 << 22
"""Bases in a piece of a long region: a few tens of megabytes for whoever counts them."""

CACHED = 1 << 16
"""Bases that are turned round together: temporary arrays much larger than the cache cost more than the work."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SoftMaskPolicy:
    """What each base counts in the loss: N, padding and special tokens nothing, soft-masked bases as the user says."""

    weight: float
    """What a soft-masked base counts, 0 to 1."""

    @classmethod
    def of(cls, config: DataConfig) -> "SoftMaskPolicy":
        """Read the policy from the settings.

        Raises:
            ConfigError: If the weight is no share.
        """
        if not 0 <= config.soft_mask_weight <= 1:
            raise ConfigError(f"data.soft_mask_weight is {config.soft_mask_weight}; it is a share from 0 to 1")
        return cls({"score": 1.0, "ignore": 0.0, "down-weight": config.soft_mask_weight}[config.soft_mask])

    def weigh(self, tokens: Tokens, masked: Mask | None) -> Weights:
        """Give each token its weight as a target: uint8 where weights are 0 or 1, float16 otherwise."""
        scored = (tokens - np.uint8(BASES[0])) < len(BASES)  # below A wraps round to large numbers
        if masked is None or self.weight == 1:
            return scored.view(np.uint8)
        if self.weight == 0:
            return (scored & ~masked).view(np.uint8)
        return np.where(masked, np.float16(self.weight), np.float16(1)) * scored


class Corpus:
    """Genomes opened and cut into splits, and the windows that a model reads from them."""

    def __init__(self, config: DataConfig, *, seed: int = 0, quiet: bool = False) -> None:
        """Open the genomes (their token stores are built if need be) and place the windows.

        Args:
            config: Which genomes, regions and windows.
            seed: Seed of the training windows.
            quiet: Show no progress while a token store is built.

        Raises:
            ConfigError: If the settings contradict one another or the genomes.
            InputError: If a genome or a BED file cannot be used.
        """
        _refuse_twice(config)
        self.config, self.seed = config, seed
        self.policy = SoftMaskPolicy.of(config)
        self.genomes = [Genome(locate(settings.path), quiet=quiet) for settings in config.genomes]
        self.splits = [
            split_genome(settings, genome.contigs)
            for settings, genome in zip(config.genomes, self.genomes, strict=True)
        ]
        self.sampler = WindowSampler(
            self._regions("train"),
            config.window,
            max_n_fraction=config.max_n_fraction,
            reverse_complement=config.reverse_complement,
            short=config.short_regions,
        )
        for path, (count, bases) in self.sampler.skipped.items():
            _log.warning(
                "%s: %s training regions (%s bases) are shorter than the window of %s and not used; "
                "data.short_regions: pad would use them",
                *(path, f"{count:,}", f"{bases:,}", f"{config.window:,}"),
            )
        self.validation: Windows = tile_windows(
            self._regions("validation"),
            config.window,
            config.validation_windows,
            max_n_fraction=config.max_n_fraction,
            short=config.short_regions,
        )

    def _regions(self, split: Literal["train", "validation"]) -> list[GenomeRegions]:
        return [
            GenomeRegions(
                settings.path,
                splits.layout,
                getattr(splits, split),
                genome.store.runs("n", 0, genome.contigs.total),
                settings.weight,
            )
            for settings, splits, genome in zip(self.config.genomes, self.splits, self.genomes, strict=True)
        ]

    def read(self, windows: Windows) -> tuple[Tokens, Weights]:
        """Read windows: tokens, and what each counts as a target of the loss; both (windows, window)."""
        tokens = self._gather(windows, Genome.read, PAD)
        masked = None if self.policy.weight == 1 else self._gather(windows, Genome.read_masked, False)
        # Padding is in place by now, so that it turns round with the sequence.
        reverse, at_once = np.flatnonzero(windows.reverse), max(1, CACHED // self.config.window)
        for rows in (reverse[i : i + at_once] for i in range(0, len(reverse), at_once)):
            tokens[rows] = reverse_complement(tokens[rows])
            if masked is not None:
                masked[rows] = masked[rows, ::-1]
        return tokens, self.policy.weigh(tokens, masked)

    def training_pieces(self, context: int, genome: int | None = None) -> Iterator[tuple[Tokens, int]]:
        """Walk through every training base once, for whoever counts k-mers.

        Args:
            context: Bases before a piece to have along, where its region goes on to the left.
            genome: Number of the one genome to walk through; None: all.

        Yields:
            Tokens, and how many of them at the start are context that an earlier piece held already.
        """
        for number in range(len(self.genomes)) if genome is None else (genome,):
            split = self.splits[number]
            for region in split.layout.intervals(split.train):
                for start in range(region.start, region.end, PIECE):
                    first = max(region.start, start - context)
                    tokens = self.genomes[number].tokens(region.contig, first, min(start + PIECE, region.end))
                    yield tokens, start - first

    def targets(self) -> list[tuple[int, Interval]]:
        """List what a next-base model is scored on in a validation: the genome's number, and the target bases.

        The first base of a window has nothing before it and is not predicted, so targets begin one base later.
        """
        rows = self.validation.table[:, :4].tolist()
        name = [genome.contigs.name for genome in self.genomes]
        return [(g, Interval(name[g](c), start + 1, start + length)) for g, c, start, length in rows]

    def target_pieces(self, context: int, genome: int | None = None) -> Iterator[tuple[Tokens, int, Weights]]:
        """Walk through the validation's targets with the bases before them, as a baseline without windows sees them.

        Args:
            context: Bases to the left of the first target to have along, as far as the contig goes.
            genome: Number of the one genome whose targets are wanted; None: all.

        Yields:
            Tokens, how many of them at the start are context, and the weights of the targets after it.
        """
        for number, target in self.targets():
            if genome not in (None, number):
                continue
            source, first = self.genomes[number], max(0, target.start - context)
            tokens = source.tokens(target.contig, first, target.end)
            here = tokens[target.start - first :]
            masked = None
            if self.policy.weight != 1:
                masked = source.masked(target.contig, target.start, target.end)
            yield tokens, target.start - first, self.policy.weigh(here, masked)

    def counts(self) -> dict[str, dict[str, int | float]]:
        """Summarise each genome: bases of each split, share of the windows, validation windows; by path."""
        read = np.bincount(self.validation.genome, minlength=len(self.genomes)).tolist()
        return {
            settings.path: {
                "training_bases": num_bases(split.train),
                "validation_bases": num_bases(split.validation),
                "test_bases": num_bases(split.test),
                "share": float(share),
                "validation_windows": windows,
            }
            for settings, split, share, windows in zip(
                self.config.genomes, self.splits, self.sampler.shares, read, strict=True
            )
        }

    def _gather(self, windows: Windows, read: Callable[[Genome, Integers, int], Array], padding: int) -> Array:
        """Read each window with one of the genomes' readers, and fill up those that are short."""
        if len(self.genomes) == 1 and self.config.short_regions == "skip":
            return read(*self._source(windows))
        width = self.config.window
        short: Mask = windows.length < width
        whole: list[Integers] = [
            np.flatnonzero(~short & (windows.genome == number)) for number in np.unique(windows.genome)
        ]
        groups = [rows for rows in (*whole, *np.flatnonzero(short)[:, None]) if len(rows)]
        parts = [read(*self._source(windows[rows])) for rows in groups]
        out = np.full((len(windows), width), padding, dtype=parts[0].dtype)
        for rows, bases in zip(groups, parts, strict=True):
            out[rows, : bases.shape[1]] = bases
        return out

    def _source(self, windows: Windows) -> tuple[Genome, Integers, int]:
        """Where windows of one genome and one length lie."""
        genome = self.genomes[int(windows.genome[0])]
        return genome, genome.contigs.offsets[windows.contig] + windows.start, int(windows.length[0])


def _refuse_twice(config: DataConfig) -> None:
    if not config.genomes:
        raise ConfigError("data.genomes is empty; give at least one genome, as data.genomes: [{path: GENOME.fa}]")
    seen: dict[Path, str] = {}
    for genome in config.genomes:
        place = locate(genome.path).resolve()
        if place in seen:
            raise ConfigError(
                f"data.genomes names {genome.path} twice (also as {seen[place]}): what one entry holds out, the other "
                "would train on; name each genome once"
            )
        seen[place] = genome.path
