"""Which records of an input are asked for, by place, and what labels they carry."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from dnasm.errors import InputError
from dnasm.genome import Genome
from dnasm.genome.vcf import read_vcf
from dnasm.tasks.contig_names import ContigNames
from dnasm.tasks.region_input import Regions, read_intervals
from dnasm.tasks.variant_checks import Allele
from dnasm.tasks.variant_input import is_vcf, read_alleles, read_cells

Keep = Callable[[str, int, str], bool]
"""Whether a record is asked for: by contig, 1-based position and REF."""


class RegionFilter:
    """Keeps records whose REF overlaps a region, as `bcftools view --regions` does."""

    def __init__(self, regions: Regions, genome: Genome) -> None:
        """Read the regions: a BED file, `contig`, or `contig:first-last`."""
        self._names = ContigNames(genome, "score", quiet=True)
        bounds: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for interval in sorted(read_intervals(regions, genome, "score")):
            last = bounds[interval.contig]
            if last and interval.start <= last[-1][1]:
                last[-1] = last[-1][0], max(last[-1][1], interval.end)
            else:
                last.append((interval.start, interval.end))
        self._bounds = dict(bounds)

    def __call__(self, contig: str, pos: int, ref: str) -> bool:
        """Tell whether a record is asked for."""
        bounds = self._bounds.get(self._names.find(contig) or "", [])
        place = bisect_right(bounds, (pos - 1 + max(1, len(ref)) - 1, float("inf"))) - 1
        return place >= 0 and bounds[place][1] > pos - 1


def keep_everything(contig: str, pos: int, ref: str) -> bool:
    """Ask for every record."""
    return True


def read_kept(name: str, keep: Keep) -> Iterator[Allele]:
    """Go through the alleles of an input that are asked for."""
    return (allele for allele in read_alleles(name) if keep(allele.contig, allele.pos, allele.ref))


def read_labels(name: str, column: str, keep: Keep) -> Iterator[str]:
    """Go through what a file says of each allele that is asked for: a column of a table, or a key of a VCF's INFO.

    Raises:
        InputError: If there is none of that name.
    """
    labels = _vcf_labels(name, column) if is_vcf(name) else _table_labels(Path(name), column)
    return (
        label
        for allele, label in zip(read_alleles(name), labels, strict=True)
        if keep(allele.contig, allele.pos, allele.ref)
    )


def _vcf_labels(name: str, key: str) -> Iterator[str]:
    found = False
    with read_vcf(name) as reader:
        found = any(line.startswith(f"##INFO=<ID={key},") for line in reader.header)
        for record in reader:
            info = dict(part.partition("=")[::2] for part in record.text.split("\t")[7].split(";"))
            found |= key in info
            values = info.get(key, "").split(",")
            count = max(1, len(record.alts))
            yield from values if len(values) == count else [",".join(values)] * count
    if not found:
        raise InputError(f"{name}: no record has the INFO key {key!r} that --labels names")


def _table_labels(path: Path, column: str) -> Iterator[str]:
    rows = read_cells(path)
    number, header = next(rows)
    if column not in header:
        raise InputError(f"{path}:{number}: no column {column!r}, which --labels names ({', '.join(header[:12])})")
    place = header.index(column)
    alts = next(i for i, name in enumerate(header) if name.strip().lower() == "alt")
    for _, cells in rows:
        yield from [cells[place]] * len(cells[alts].split(","))
