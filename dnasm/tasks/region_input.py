"""Where on a genome a command is to work: a BED, a place as genome browsers write it, or everything."""

import logging
import re
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

from dnasm.errors import InputError
from dnasm.genome import Genome, Interval, read_bed
from dnasm.tasks.contig_names import ContigNames

Regions = str | PathLike[str] | Sequence[Interval] | None
"""A BED file, `contig`, `contig:first-last` (1-based, both ends in), intervals, or None for all contigs."""

_log = logging.getLogger(__name__)
_PLACE = re.compile(r"(?P<contig>.+):(?P<first>[\d,]+)-(?P<last>[\d,]+)")


def read_intervals(regions: Regions, genome: Genome, verb: str) -> list[Interval]:
    """List the intervals that a caller means, in the order given, with the genome's own contig names.

    Raises:
        InputError: If a file cannot be read, or a region is empty, leaves its contig or is on an unknown one.
    """
    if regions is None:
        return [Interval(name, 0, length) for name, length in genome.contigs.items()]
    names = ContigNames(genome, verb)
    if not isinstance(regions, str | PathLike):
        given: Iterable[tuple[Interval, str]] = ((interval, "regions") for interval in regions)
    elif Path(regions).is_file() or str(regions).lower().endswith((".bed", ".bed.gz")):
        given = [(record.interval, f"{regions}:{record.line}") for record in read_bed(regions)]
        warn_if_empty(regions, len(given))
    else:
        return [parse_place(str(regions), genome, names)]
    return [check_interval(interval, genome, names, where) for interval, where in given]


def warn_if_empty(name: str | PathLike[str], regions: int) -> None:
    """Say that a file is empty, which is no error: so is the output."""
    if not regions:
        _log.warning("%s holds no region: the output is empty", name)


def parse_place(text: str, genome: Genome, names: ContigNames) -> Interval:
    """Understand `chr20:1,001-2,000`, which is 0-based 1000 to 2000, `chr20:1001` or a whole contig's name.

    Raises:
        InputError: If it is no place on the genome.
    """
    whole = names.find(text)
    if whole is not None:
        return Interval(whole, 0, genome.contigs[whole])
    found = _PLACE.fullmatch(re.sub(r":([\d,]+)$", r":\1-\1", text))
    if found is None:
        raise InputError(
            f"{text!r} is neither a file nor a place: give a BED, a contig of {genome.path}, or contig:first-last "
            "(counted from 1, both ends in)"
        )
    first, last = (int(found[name].replace(",", "") or 0) for name in ("first", "last"))
    if not 1 <= first <= last:
        raise InputError(f"{text}: places count from 1, and the first lies before the last; this one does not")
    contig = names.find(found["contig"])
    if contig is not None and last > genome.contigs[contig]:
        raise InputError(f"{text} leaves the contig, which has {genome.contigs[contig]:,} bases")
    return check_interval(Interval(found["contig"], first - 1, last), genome, names, text)


def check_interval(interval: Interval, genome: Genome, names: ContigNames, where: str) -> Interval:
    """Return a region under the genome's own name of its contig; `where` opens the error if it is not all there."""
    contig = names.find(interval.contig)
    if contig is None:
        raise InputError(f"{where}: {genome.path} has no contig {interval.contig!r}; is it the right genome?")
    if not interval.start < interval.end <= genome.contigs[contig]:
        raise InputError(
            f"{where}: {interval.contig}:{interval.start}-{interval.end} is empty or leaves the contig, which has "
            f"{genome.contigs[contig]:,} bases"
        )
    return Interval(contig, interval.start, interval.end)


def merge_intervals(intervals: Iterable[Interval], genome: Genome) -> list[Interval]:
    """Sort intervals in the order of the genome's contigs and join those that touch or overlap."""
    order = {name: number for number, name in enumerate(genome.contigs)}
    merged: list[Interval] = []
    for interval in sorted(intervals, key=lambda i: (order[i.contig], i.start)):
        last = merged[-1] if merged else None
        if last is not None and last.contig == interval.contig and interval.start <= last.end:
            merged[-1] = Interval(last.contig, last.start, max(last.end, interval.end))
        else:
            merged.append(interval)
    return merged
