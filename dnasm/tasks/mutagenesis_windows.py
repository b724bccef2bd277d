"""Compute a `Mutagenesis`: of a sequence by itself, or of a region within windows of its contig."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from dnasm import vocabulary
from dnasm.errors import InputError
from dnasm.genome import Genome, Interval
from dnasm.tasks.allele_windows import Change, place_window
from dnasm.tasks.forward_batches import BatchRunner, BatchSize, check_choice, check_length
from dnasm.tasks.likelihood import check_vocabulary, sees_both_sides
from dnasm.tasks.masked_bases import expected_in_region, expected_in_sequence
from dnasm.tasks.mutagenesis_table import Mutagenesis
from dnasm.tasks.mutation_scan import StrandScan, masked_scan, scan_strand
from dnasm.tasks.variant_scorer import Strands, pick_window
from dnasm.vocabulary import Tokens

_SHORTEST = 2


class Mutagenizer:
    """A model and how it is to be asked."""

    def __init__(
        self,
        model: nn.Module,
        *,
        strands: Strands = "mean",
        deletions: bool = True,
        gradient: bool = True,
        batch_size: BatchSize = "auto",
    ) -> None:
        check_vocabulary(model)
        check_choice("strands", strands, ("forward", "reverse", "mean"))
        self.model = model
        self.masked = sees_both_sides(model)
        """Whether each base is masked in turn; then there are neither deletions nor a gradient."""
        self.runner = BatchRunner(model, batch_size, pad=True)
        self._strands = ("forward", "reverse") if strands == "mean" else (strands,)
        self._deletions, self._gradient = deletions and not self.masked, gradient
        self.done: Callable[[int], None] = lambda changes: None
        """Told how many more changes of a strand are scored."""

    def changes(self, tokens: Tokens) -> int:
        """Count the changes that bases take, those of both strands if both are asked for."""
        bases = int(np.isin(tokens, vocabulary.BASES).sum())
        return bases * (4 if self._deletions else 3) * len(self._strands)

    def sequence(self, tokens: Tokens) -> Mutagenesis:
        """Change each base of a sequence that stands by itself."""
        check_length("the sequence", len(tokens), self.runner.max_length, _SHORTEST)
        if self.masked:
            expected = {strand: expected_in_sequence(self.runner, tokens, strand) for strand in self._strands}
            return _joined(tokens, {strand: masked_scan(tokens, found) for strand, found in expected.items()})
        none = np.empty(0, np.uint8)
        scans = {strand: self._scan(tokens, none, strand, 0, len(tokens)) for strand in self._strands}
        return _joined(tokens, scans)

    def region(self, genome: Genome, region: Interval, window: int | None) -> Mutagenesis:
        """Change each base of a region within its contig: at most half a window at a time, in the window's middle."""
        size = pick_window(self.model, window)
        step = max(1, size // 2)
        ends = range(region.start, region.end, step)
        parts = [
            self._part(genome, Interval(region.contig, start, min(start + step, region.end)), size) for start in ends
        ]
        whole = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("changes", "forward", "reverse", "gradient")
        }
        letters = "".join(part.sequence for part in parts)
        return Mutagenesis(letters, **whole, contig=region.contig, start=region.start)

    def _part(self, genome: Genome, part: Interval, size: int) -> Mutagenesis:
        if self.masked:
            return self._masked_part(genome, part, size)
        length = genome.contigs[part.contig]
        middle = (part.start + part.end) // 2
        scans = {}
        for strand in self._strands:
            # The same windows as a variant at the middle base has when it is scored.
            change = Change(middle, middle + 1, np.empty(1, np.uint8))
            placed = change if strand == "forward" else change.mirrored(length)
            start, width = place_window(placed, length, size)
            if strand == "reverse":
                start = length - start - width
            tokens = genome.tokens(part.contig, start, start + width)
            check_length(f"{part.contig}, the contig,", len(tokens), None, _SHORTEST)
            far = (start + width, start + width + 1) if strand == "forward" else (start - 1, start)
            beyond = genome.tokens(part.contig, max(0, far[0]), min(far[1], length))
            scans[strand] = self._scan(tokens, beyond, strand, part.start - start, part.end - start)
        return replace(_joined(genome.tokens(part.contig, part.start, part.end), scans), contig=part.contig)

    def _masked_part(self, genome: Genome, part: Interval, size: int) -> Mutagenesis:
        tokens = genome.tokens(part.contig, part.start, part.end)
        expected = {}
        for strand in self._strands:
            expected[strand] = expected_in_region(self.runner, genome, part, size, strand)
            self.done(self.changes(tokens) // len(self._strands))
        scans = {strand: masked_scan(tokens, found) for strand, found in expected.items()}
        return replace(_joined(tokens, scans), contig=part.contig)

    def _scan(self, tokens: Tokens, beyond: Tokens, strand: str, first: int, last: int) -> StrandScan:
        wanted: dict[str, Any] = {"deletions": self._deletions, "gradient": self._gradient, "done": self.done}
        if strand == "forward":
            return scan_strand(self.runner, tokens, beyond, first, last, **wanted)
        other, further, size = (*map(vocabulary.reverse_complement, (tokens, beyond)), len(tokens))
        return scan_strand(self.runner, other, further, size - last, size - first, **wanted).turned()


def _joined(tokens: Tokens, scans: dict[str, StrandScan]) -> Mutagenesis:
    letters = vocabulary.decode(tokens)
    if not set(letters) & set("ACGT"):
        raise InputError(f"these {len(letters):,} bases are N: there is nothing to change")
    none = np.full((len(tokens), 5), np.nan)
    return Mutagenesis(
        sequence=letters,
        changes=np.mean([scan.changes for scan in scans.values()], axis=0),
        forward=scans["forward"].changes if "forward" in scans else none,
        reverse=scans["reverse"].changes if "reverse" in scans else none,
        gradient=np.mean([scan.gradient for scan in scans.values()], axis=0),
    )
