"""What is to be embedded: sequences at hand, the records of a FASTA, or the regions of a BED."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path

from dnasm import vocabulary
from dnasm.errors import ConfigError, InputError
from dnasm.genome import BedRecord, Genome, read_bed
from dnasm.tasks.contig_names import ContigNames
from dnasm.tasks.forward_batches import encode_all
from dnasm.tasks.region_input import check_interval, parse_place, warn_if_empty
from dnasm.vocabulary import Tokens

EmbedInput = str | PathLike[str] | Sequence[str | Tokens]


@dataclass(frozen=True, slots=True)
class Region:
    """One sequence, read when its turn comes."""

    name: str
    contig: str
    start: int
    end: int
    strand: str
    fetch: Callable[[int, int], Tokens]
    """Tokens from a start to an end, forward strand."""

    @property
    def length(self) -> int:
        """Bases."""
        return self.end - self.start

    def read(self) -> Tokens:
        """Read its tokens, in the strand's reading direction."""
        tokens = self.fetch(self.start, self.end)
        return vocabulary.reverse_complement(tokens) if self.strand == "-" else tokens

    def part(self, start: int, end: int) -> "Region":
        """Cut a region out of it, with its place in the name."""
        return replace(self, name=f"{self.name}:{start}-{end}", start=start, end=end)


def read_regions(source: EmbedInput, genome: Genome | None) -> list[Region]:
    """List what a caller wants embedded.

    Raises:
        InputError: If a file cannot be read, or a region is empty, leaves its contig or is on an unknown one.
        ConfigError: If a BED comes without a genome, or a genome with anything else.
    """
    if not isinstance(source, str | PathLike):
        _refuse_genome(genome, "sequences")
        return [_of_tokens(f"sequence {i}", tokens) for i, tokens in enumerate(encode_all(source, None))]
    plain = str(source).lower().removesuffix(".gz").removesuffix(".bgz")
    if plain.endswith(".bed"):
        if genome is None:
            raise ConfigError(f"{source}: a BED file needs the genome that its coordinates speak of (--genome)")
        names = ContigNames(genome, "embed")
        found = [_of_record(record, f"{source}:{record.line}", genome, names) for record in read_bed(source)]
        warn_if_empty(source, len(found))
        return found
    if genome is not None and not Path(source).exists():
        place = parse_place(str(source), genome, ContigNames(genome, "embed"))
        fetch = partial(genome.tokens, place.contig)
        return [Region(str(source), place.contig, place.start, place.end, "+", fetch)]
    if not Path(source).exists() and not plain.endswith((".fa", ".fasta", ".fna")):
        raise InputError(
            f"{str(source)[:60]!r} is no file; give a BED, a FASTA or a list of sequences, or for a place as "
            "chr8:1-20,000 the genome that it is on (--genome)"
        )
    _refuse_genome(genome, str(source))
    records = Genome(source)
    return [_whole(records, name, length) for name, length in records.contigs.items()]


def _refuse_genome(genome: Genome | None, what: str) -> None:
    if genome is not None:
        raise ConfigError(f"{what}: a genome is for the coordinates of a BED file; leave it out")


def _of_tokens(name: str, tokens: Tokens) -> Region:
    return Region(name, "", 0, len(tokens), "+", lambda start, end: tokens[start:end])


def _whole(records: Genome, name: str, length: int) -> Region:
    return Region(name, name, 0, length, "+", partial(records.tokens, name))


def cut_windows(regions: Sequence[Region], window: int, stride: int) -> list[Region]:
    """Cut every region into windows that begin `stride` apart; the last one is shorter if the region ends before it.

    Raises:
        ConfigError: If a length is below 1.
    """
    if window < 1 or stride < 1:
        raise ConfigError(f"window is {window}, stride {stride}; both must be at least 1")
    return [
        region.part(start, min(start + window, region.end))
        for region in regions
        for start in range(region.start, max(region.end - window + stride, region.start + 1), stride)
    ]


def _of_record(record: BedRecord, where: str, genome: Genome, names: ContigNames) -> Region:
    interval, strand = record.interval, record.strand or "+"
    contig = check_interval(interval, genome, names, where).contig
    name = record.name or f"{interval.contig}:{interval.start}-{interval.end}({strand})"
    return Region(name, interval.contig, interval.start, interval.end, strand, partial(genome.tokens, contig))
