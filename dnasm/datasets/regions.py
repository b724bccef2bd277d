"""Which bases of a genome may be trained on, and which are held out.

Regions are spans on one line: the contigs laid end to end with a free base between neighbours, so that set algebra is
one-dimensional and a span never runs from one contig into the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dnasm.config import GenomeConfig
from dnasm.errors import ConfigError, InputError
from dnasm.genome import Interval, read_bed
from dnasm.genome.contigs import Contigs
from dnasm.resources import locate

Spans = npt.NDArray[np.int64]
"""(n, 2): starts and ends on the line, sorted, disjoint and none empty."""
Integers = npt.NDArray[np.int64]

NO_SPANS: Spans = np.empty((0, 2), dtype=np.int64)


class Layout:
    """Where the contigs of one genome lie on the line."""

    def __init__(self, contigs: Contigs) -> None:
        self.contigs = contigs
        self.begins: Integers = contigs.offsets + np.arange(len(contigs))

    def span(self, interval: Interval) -> tuple[int, int]:
        """Place an interval of a known contig on the line."""
        begin = int(self.begins[self.contigs.index(interval.contig)])
        return begin + interval.start, begin + interval.end

    def everything(self) -> Spans:
        """One span for each contig that is not empty."""
        return merge(np.stack([self.begins, self.begins + self.contigs.lengths], axis=1))

    def locate(self, points: Integers) -> tuple[Integers, Integers]:
        """Turn points of the line into contig numbers (file order) and positions in the contig (0-based)."""
        contig = np.searchsorted(self.begins, points, side="right") - 1
        return contig, points - self.begins[contig]

    def intervals(self, spans: Spans) -> list[Interval]:
        """Name the contigs of spans again."""
        contig, start = self.locate(spans[:, 0])
        length = spans[:, 1] - spans[:, 0]
        triples = zip(contig.tolist(), start.tolist(), length.tolist(), strict=True)
        return [Interval(self.contigs.name(c), s, s + n) for c, s, n in triples]


def num_bases(spans: Spans) -> int:
    """Count the bases that spans cover."""
    return int((spans[:, 1] - spans[:, 0]).sum())


def merge(spans: npt.ArrayLike) -> Spans:
    """Sort spans, drop empty ones, join those that overlap or touch."""
    array = np.asarray(spans, dtype=np.int64).reshape(-1, 2)
    array = array[array[:, 0] < array[:, 1]]
    if not len(array):
        return NO_SPANS
    array = array[np.argsort(array[:, 0], kind="stable")]
    reach = np.maximum.accumulate(array[:, 1])
    first = np.concatenate([[True], array[1:, 0] > reach[:-1]])
    last = np.concatenate([first[1:], [True]])
    return np.stack([array[first, 0], reach[last]], axis=1)


def intersect(a: Spans, b: Spans) -> Spans:
    """Spans that lie in both."""
    points = np.concatenate([a[:, 0], b[:, 0], a[:, 1], b[:, 1]])
    steps = np.repeat([1, -1], len(a) + len(b))
    order = np.lexsort((steps, points))  # at one point ends come before starts, so that touching is no overlap
    both = np.flatnonzero(np.cumsum(steps[order]) == 2)
    return np.stack([points[order][both], points[order][both + 1]], axis=1) if len(both) else NO_SPANS


def subtract(a: Spans, b: Spans) -> Spans:
    """Spans of `a` without what lies in `b`."""
    if not len(a) or not len(b):
        return a
    lowest, highest = min(a[0, 0], b[0, 0]), max(a[-1, 1], b[-1, 1])
    gaps = np.stack([np.append(lowest, b[:, 1]), np.append(b[:, 0], highest)], axis=1)
    return intersect(a, merge(gaps))


@dataclass(frozen=True)
class Splits:
    """What one genome gives to training, to validation and to the final test."""

    layout: Layout
    train: Spans
    validation: Spans
    test: Spans


@dataclass(frozen=True)
class _Source:
    """Spans that a user named, each with the words that named it."""

    role: str
    spans: list[tuple[int, int]]
    labels: list[str]
    from_file: bool

    @property
    def merged(self) -> Spans:
        return merge(self.spans)

    def label_at(self, point: int) -> str:
        hits = (label for (start, end), label in zip(self.spans, self.labels, strict=True) if start <= point < end)
        return f"{self.role} ({next(hits)})"


def split_genome(config: GenomeConfig, contigs: Contigs) -> Splits:
    """Read a genome's settings and BED files into the regions for training, validation and test.

    Training is `include` (or everything) without `exclude` and without what is held out, so no training window can
    touch a held-out or an excluded base. What the user names himself must not contradict: an `include` region that
    overlaps a held-out one is refused rather than cut.

    Args:
        config: The genome's settings.
        contigs: The genome's contigs.

    Raises:
        ConfigError: If a held-out contig is unknown, or two settings claim the same bases.
        InputError: If a BED file names an unknown contig, runs past a contig's end, is empty, or claims bases that
            another split has.
    """
    layout = Layout(contigs)
    validation = _named(layout, "validation", config.path, config.validation)
    validation_bed = _from_bed(layout, "validation", config.path, config.validation_bed)
    test = _named(layout, "test", config.path, config.test)
    test_bed = _from_bed(layout, "test", config.path, config.test_bed)
    include = _from_bed(layout, "training", config.path, config.include)
    exclude = _from_bed(layout, "excluded", config.path, config.exclude)
    for held_out in (validation, validation_bed):
        for other in (test, test_bed):
            _refuse_overlap(layout, held_out, other)
    for held_out in (validation, validation_bed, test, test_bed):
        _refuse_overlap(layout, include, held_out)
    to_choose = merge([*validation.spans, *validation_bed.spans])
    to_test = merge([*test.spans, *test_bed.spans])
    train = include.merged if config.include else layout.everything()
    for left_out in (exclude.merged, to_choose, to_test):
        train = subtract(train, left_out)
    return Splits(layout, train, to_choose, to_test)


def _named(layout: Layout, role: str, genome: str, names: Sequence[str]) -> _Source:
    for name in names:
        if name not in layout.contigs:
            raise ConfigError(f"{role}: {layout.contigs.unknown(name, genome)}")
    spans = [layout.span(Interval(name, 0, layout.contigs[name])) for name in names]
    return _Source(role, spans, [f"contig {name}" for name in names], False)


def _from_bed(layout: Layout, role: str, genome: str, path: str | None) -> _Source:
    if path is None:
        return _Source(role, [], [], True)
    records = read_bed(locate(path))
    if not records:
        raise InputError(f"{path}: the BED file of the {role} regions names none; add regions or leave the setting out")
    spans, labels = [], []
    for record in records:
        interval = record.interval
        where = f"{path}, line {record.line}: {interval.contig}:{interval.start}-{interval.end}"
        if interval.contig not in layout.contigs:
            raise InputError(f"{path}, line {record.line}: {layout.contigs.unknown(interval.contig, genome)}")
        length = layout.contigs[interval.contig]
        if interval.end > length:
            raise InputError(f"{where} runs past the end of {interval.contig} ({length:,} bases) in {genome}")
        spans.append(layout.span(interval))
        labels.append(where)
    return _Source(role, spans, labels, True)


def _refuse_overlap(layout: Layout, one: _Source, other: _Source) -> None:
    common = intersect(one.merged, other.merged)
    if not len(common):
        return
    place = layout.intervals(common[:1])[0]
    point = int(common[0, 0])
    error = InputError if one.from_file or other.from_file else ConfigError
    raise error(
        f"{one.label_at(point)} and {other.label_at(point)} overlap at {place.contig}:{place.start}-{place.end}"
        f"{f' and {len(common) - 1} other places' if len(common) > 1 else ''}; "
        "a base belongs to one of training, validation and test: take it out of one of them"
    )
