from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnasm.config import GenomeConfig
from dnasm.datasets.regions import Layout, Spans, intersect, merge, num_bases, split_genome, subtract
from dnasm.errors import ConfigError, InputError
from dnasm.genome import Interval
from dnasm.genome.contigs import Contigs

CONTIGS = Contigs("chrI\nempty\nchrII\nchrVIII", [40, 0, 30, 20])

spans = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 12)).map(lambda pair: (pair[0], sum(pair))), max_size=8)


def points(array: Spans) -> set[int]:
    return {point for start, end in array.tolist() for point in range(start, end)}


def assert_canonical(array: Spans) -> None:
    assert array.dtype == np.int64
    assert (array[:, 0] < array[:, 1]).all()
    assert (array[1:, 0] > array[:-1, 1]).all()


@given(spans, spans)
def test_set_algebra_equals_sets(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    a, b = merge(one), merge(other)
    expected = {point for start, end in one for point in range(start, end)}
    assert points(a) == expected
    assert num_bases(a) == len(expected)
    assert points(intersect(a, b)) == points(a) & points(b)
    assert points(subtract(a, b)) == points(a) - points(b)
    for result in (a, intersect(a, b), subtract(a, b)):
        assert_canonical(result)


def test_neighbouring_contigs_never_join() -> None:
    layout = Layout(CONTIGS)
    everything = layout.everything()
    assert len(everything) == 3
    assert layout.intervals(everything) == [
        Interval("chrI", 0, 40),
        Interval("chrII", 0, 30),
        Interval("chrVIII", 0, 20),
    ]


def test_line_and_contigs_convert_both_ways() -> None:
    layout = Layout(CONTIGS)
    interval = Interval("chrII", 5, 30)
    assert layout.intervals(np.array([layout.span(interval)])) == [interval]


def bed(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_training_is_what_is_left(tmp_path: Path) -> None:
    config = GenomeConfig(
        path="a.fa",
        exclude=bed(tmp_path, "exclude.bed", "chrI\t10\t20\n"),
        validation=["chrVIII"],
        test_bed=bed(tmp_path, "test.bed", "chrII\t0\t10\nchrII\t25\t30\n"),
    )
    splits = split_genome(config, CONTIGS)
    named = splits.layout.intervals
    assert named(splits.train) == [Interval("chrI", 0, 10), Interval("chrI", 20, 40), Interval("chrII", 10, 25)]
    assert named(splits.validation) == [Interval("chrVIII", 0, 20)]
    assert named(splits.test) == [Interval("chrII", 0, 10), Interval("chrII", 25, 30)]


def test_include_limits_training_and_exclude_cuts_it(tmp_path: Path) -> None:
    config = GenomeConfig(
        path="a.fa",
        include=bed(tmp_path, "in.bed", "chrII\t0\t20\nchrI\t0\t5\nchrI\t5\t9\n"),
        exclude=bed(tmp_path, "out.bed", "chrII\t4\t6\n"),
        validation=["chrVIII"],
    )
    splits = split_genome(config, CONTIGS)
    assert splits.layout.intervals(splits.train) == [
        Interval("chrI", 0, 9),
        Interval("chrII", 0, 4),
        Interval("chrII", 6, 20),
    ]


def test_a_contig_held_out_twice_is_refused() -> None:
    config = GenomeConfig(path="a.fa", validation=["chrI", "chrII"], test=["chrII"])
    with pytest.raises(
        ConfigError, match=r"validation \(contig chrII\) and test \(contig chrII\) overlap at chrII:0-30"
    ):
        split_genome(config, CONTIGS)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"validation": ["chrI"], "test_bed": "x.bed"}, ["validation (contig chrI)", "test (", "x.bed, line 2"]),
        ({"include": "x.bed", "validation": ["chrI"]}, ["training (", "x.bed, line 2", "validation (contig chrI)"]),
        ({"include": "x.bed", "test_bed": "y.bed"}, ["x.bed, line 2", "y.bed, line 1"]),
        ({"validation_bed": "x.bed", "test_bed": "y.bed"}, ["x.bed, line 2", "y.bed, line 1"]),
    ],
)
def test_splits_that_overlap_are_refused_and_both_named(
    tmp_path: Path, fields: dict[str, str | list[str]], names: list[str]
) -> None:
    bed(tmp_path, "x.bed", "chrII\t0\t5\nchrI\t10\t20\n")
    bed(tmp_path, "y.bed", "chrI\t19\t25\n")
    placed = {key: str(tmp_path / value) if isinstance(value, str) else value for key, value in fields.items()}
    with pytest.raises(InputError) as caught:
        split_genome(GenomeConfig(path="a.fa", **placed), CONTIGS)  # type: ignore[arg-type]
    for name in [*names, "chrI:1"]:
        assert name in str(caught.value)


def test_regions_that_touch_do_not_overlap(tmp_path: Path) -> None:
    config = GenomeConfig(
        path="a.fa",
        validation_bed=bed(tmp_path, "v.bed", "chrI\t0\t10\n"),
        test_bed=bed(tmp_path, "t.bed", "chrI\t10\t20\n"),
    )
    splits = split_genome(config, CONTIGS)
    assert splits.layout.intervals(splits.train)[0] == Interval("chrI", 20, 40)


def test_unknown_contigs_are_named_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"validation: a\.fa has no contig 'VIII'; it has 'chrVIII'"):
        split_genome(GenomeConfig(path="a.fa", validation=["VIII"]), CONTIGS)
    path = bed(tmp_path, "x.bed", "chrI\t0\t5\nchr2\t0\t5\n")
    with pytest.raises(InputError, match=r"x\.bed, line 2: a\.fa has no contig 'chr2'"):
        split_genome(GenomeConfig(path="a.fa", exclude=path), CONTIGS)


def test_a_region_past_the_end_is_refused(tmp_path: Path) -> None:
    path = bed(tmp_path, "x.bed", "chrI\t0\t41\n")
    with pytest.raises(InputError, match=r"x\.bed, line 1: chrI:0-41 runs past the end of chrI \(40 bases\)"):
        split_genome(GenomeConfig(path="a.fa", include=path), CONTIGS)


def test_an_empty_bed_is_refused(tmp_path: Path) -> None:
    path = bed(tmp_path, "x.bed", "# nothing\n")
    with pytest.raises(InputError, match="names none"):
        split_genome(GenomeConfig(path="a.fa", include=path), CONTIGS)
