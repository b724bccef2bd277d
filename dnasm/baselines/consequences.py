"""What a variant does to annotated genes: the gravest consequence, from the CDS of a GFF in their frame."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from dnasm import vocabulary
from dnasm.genome.gff import GffRecord

CONSEQUENCES = (
    "intergenic", "intron", "exon, not coding", "synonymous", "splice region", "in-frame change", "missense",
    "splice site", "start lost", "stop lost", "stop gained", "frameshift",
)  # fmt: skip
"""Mildest first; the place in the list is the predictor."""

ReadLetters = Callable[[str, int, int], str]
"""Letters of bases `start` to `end` of a contig, upper case, forward strand."""

_REGION, _SITE = 8, 2  # bases of an intron next to an exon: the splice region, and the two that are nearly always fixed
_JOINS = ("transcript_id", "Parent", "ID", "locus_tag")  # what the CDS parts of one transcript have in common
_AMINO = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
_CODONS = dict(zip((a + b + c for a in "TCAG" for b in "TCAG" for c in "TCAG"), _AMINO, strict=True))
Item = TypeVar("Item")


class _Spans(Generic[Item]):
    """Intervals with what they stand for, asked by place."""

    def __init__(self) -> None:
        self._bins: dict[int, list[tuple[int, int, Item]]] = defaultdict(list)

    def add(self, start: int, end: int, item: Item) -> None:
        for number in range(start >> 14, ((end - 1) >> 14) + 1):
            self._bins[number].append((start, end, item))

    def over(self, start: int, end: int) -> list[Item]:
        """List what overlaps bases `start` to `end`; what spans several bins may be named twice."""
        bins = range(start >> 14, ((max(end, start + 1) - 1) >> 14) + 1)
        return [item for n in bins for first, last, item in self._bins.get(n, ()) if first < end and start < last]


class _Transcript:
    """The coding parts of one transcript."""

    def __init__(self, parts: list[GffRecord]) -> None:
        ordered = sorted(parts, key=lambda part: part.interval.start)
        self.parts = [(part.interval.start, part.interval.end) for part in ordered]
        self.start, self.end = self.parts[0][0], self.parts[-1][1]
        self._reverse = ordered[0].strand == "-"
        first = ordered[-1 if self._reverse else 0]
        bases = [i for start, end in self.parts for i in range(start, end)]
        if self._reverse:
            bases.reverse()
        self._bases = bases[first.phase or 0 :]
        self._place = {base: number for number, base in enumerate(self._bases)}

    def effect(self, contig: str, start: int, ref: str, alt: str, read: ReadLetters) -> str:
        """Name the consequence of a change that overlaps the transcript."""
        end = start + len(ref)
        if any(first < end and start < last for first, last in self.parts):
            if len(ref) != len(alt):
                return "frameshift" if (len(alt) - len(ref)) % 3 else "in-frame change"
            return max((self._codon(contig, start + i, alt[i], read) for i in range(len(ref))), key=CONSEQUENCES.index)
        ends = [edge for part in self.parts for edge in part][1:-1]  # the outer two are no splice sites
        gap = min((start - edge + 1 if edge <= start else edge - end + 1 for edge in ends), default=_REGION + 1)
        return "splice site" if gap <= _SITE else "splice region" if gap <= _REGION else "intron"

    def _codon(self, contig: str, base: int, letter: str, read: ReadLetters) -> str:
        place = self._place.get(base)
        if place is None:
            return "exon, not coding"
        members = self._bases[place // 3 * 3 : place // 3 * 3 + 3]
        before = [read(contig, member, member + 1) for member in members]
        after = [letter if member == base else held for member, held in zip(members, before, strict=True)]
        old, new = (_CODONS.get(self._oriented(letters), "?") for letters in (before, after))
        if old == new:
            return "synonymous"
        if place < 3 and old == "M":
            return "start lost"
        return "stop gained" if new == "*" else "stop lost" if old == "*" else "missense"

    def _oriented(self, letters: list[str]) -> str:
        """Join the letters of a codon, which stand in reading order, as the transcript has them."""
        joined = "".join(letters)
        if not self._reverse:
            return joined
        return vocabulary.decode(vocabulary.COMPLEMENT[vocabulary.encode(joined)])


class Consequences:
    """Finds the gravest consequence of a variant; codons are read with the standard code."""

    def __init__(self, records: Iterable[GffRecord], read: ReadLetters) -> None:
        """Take annotation.

        Args:
            records: Features of a GFF3 or GTF; `CDS`, `exon`, `gene` and transcripts are looked at.
            read: How to look up letters of the genome.
        """
        self._read = read
        self._plain: dict[str, _Spans[str]] = defaultdict(_Spans)
        self._coding: dict[str, _Spans[_Transcript]] = defaultdict(_Spans)
        parts: dict[tuple[str, str], list[GffRecord]] = defaultdict(list)
        for record in records:
            place, names = record.interval, record.attributes
            if record.type == "CDS":
                name = next((names[key] for key in _JOINS if key in names), f"line {record.line}")
                parts[place.contig, name].append(record)
            elif record.type in ("exon", "gene", "mRNA", "transcript"):
                kind = "exon, not coding" if record.type == "exon" else "intron"
                self._plain[place.contig].add(place.start, place.end, kind)
        for (contig, _), members in parts.items():
            transcript = _Transcript(members)
            self._coding[contig].add(transcript.start, transcript.end, transcript)

    def worst(self, contig: str, start: int, ref: str, alt: str) -> str:
        """Name what replacing `ref` at `start` (0-based) by `alt` does; the gravest where transcripts differ."""
        end = start + len(ref)
        found = self._plain[contig].over(start, end)
        found += [t.effect(contig, start, ref, alt, self._read) for t in self._coding[contig].over(start, end)]
        return max(found, key=CONSEQUENCES.index, default="intergenic")
