from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from dnasm.datasets.regions import Layout, merge, num_bases, subtract
from dnasm.datasets.windows import (
    GenomeRegions,
    Windows,
    WindowSampler,
    below,
    mix,
    sample_states,
    tile_windows,
    uniform,
)
from dnasm.errors import ConfigError, InputError
from dnasm.genome.contigs import Contigs


def source(
    lengths: list[int],
    *,
    n_runs: list[tuple[int, int]] | None = None,
    regions: list[tuple[int, int]] | None = None,
    weight: float | None = None,
    path: str = "a.fa",
) -> GenomeRegions:
    layout = Layout(Contigs("\n".join(f"c{i}" for i in range(len(lengths))), lengths))
    spans = layout.everything() if regions is None else merge(regions)
    return GenomeRegions(path, layout, spans, merge(n_runs or []), weight)


def test_mix_is_splitmix64() -> None:
    """The first outputs for seed 1234567 that the published generator gives."""
    counters = np.uint64(1234567) + np.uint64(0x9E3779B97F4A7C15) * np.arange(1, 4, dtype=np.uint64)
    assert mix(counters).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.integers(1, 2**61))
def test_below_is_the_high_half_of_the_product(words: list[int], bound: int) -> None:
    found = below(np.array(words, dtype=np.uint64), bound)
    assert found.tolist() == [word * bound >> 64 for word in words]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_uniform_stays_below_one(words: list[int]) -> None:
    assert uniform(np.array([*words, 2**64 - 1], dtype=np.uint64)).max() < 1


def test_states_of_an_epoch_never_collide() -> None:
    indices = np.arange(100_000)
    states = np.concatenate([sample_states(0, epoch, indices) for epoch in range(3)])
    assert len(np.unique(states)) == len(states)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    sampler = WindowSampler([source([5000, 300], n_runs=[(1000, 1200)]), source([900])], 100)
    whole = sampler.sample(7, 3, np.arange(500)).table
    order = np.random.default_rng(0).permutation(500)
    np.testing.assert_array_equal(sampler.sample(7, 3, order).table, whole[order])
    np.testing.assert_array_equal(sampler.sample(7, 3, [123]).table, whole[[123]])


def test_samples_are_pinned() -> None:
    """A change of the hash changes every run that anyone would resume: it has to be meant."""
    windows = WindowSampler([source([1_000_000, 500_000])], 1000).sample(0, 0, np.arange(6))
    assert windows.contig.tolist() == [0, 0, 0, 1, 0, 1]
    assert windows.start.tolist() == [465273, 154562, 551978, 332148, 739441, 242456]
    assert windows.reverse.tolist() == [True, True, False, False, True, True]


@pytest.mark.parametrize("other", [(1, 0), (0, 1), (-1, 0), (2**64 - 1, 5)])
def test_seeds_and_epochs_differ(other: tuple[int, int]) -> None:
    sampler = WindowSampler([source([1_000_000])], 100)
    one, two = sampler.sample(0, 0, np.arange(1000)), sampler.sample(*other, np.arange(1000))
    assert (one.start == two.start).mean() < 0.01
    assert 0.4 < (one.reverse == two.reverse).mean() < 0.6


def p_value(counts: np.ndarray, expected: np.ndarray) -> float:
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), len(counts) - 1))


def test_every_start_is_as_likely_as_any_other() -> None:
    sampler = WindowSampler([source([150, 90, 30])], 50)
    windows = sampler.sample(11, 0, np.arange(142 * 200))
    counts = np.concatenate(
        [np.bincount(windows.start[windows.contig == c], minlength=n) for c, n in ((0, 101), (1, 41))]
    )
    assert len(counts) == 142  # both ends of each contig included, nothing beyond
    assert counts.min() > 0
    assert p_value(counts, np.full(142, 200.0)) > 0.01


def test_starts_are_uniform_between_distant_regions() -> None:
    sampler = WindowSampler([source([10**9], regions=[(5, 1000), (10**8, 10**9)])], 100)
    start = sampler.sample(1, 0, np.arange(20_000)).start
    bins = np.bincount((start - 10**8) // (9 * 10**7), minlength=10)
    assert p_value(bins, np.full(10, 2000.0)) > 0.01


def test_strands_follow_their_probability() -> None:
    for probability in (0.0, 0.3, 1.0):
        reverse = (
            WindowSampler([source([1000])], 10, reverse_complement=probability).sample(0, 0, np.arange(10_000)).reverse
        )
        assert reverse.mean() == pytest.approx(probability, abs=0.02 if 0 < probability < 1 else 0)


def test_shares_follow_bases_or_weights() -> None:
    by_bases = WindowSampler([source([3000]), source([1000])], 100)
    np.testing.assert_allclose(by_bases.shares, [0.75, 0.25])
    by_weight = WindowSampler([source([3000], weight=1.0), source([1000], weight=4.0)], 100)
    genome = by_weight.sample(0, 0, np.arange(20_000)).genome
    assert (genome == 1).mean() == pytest.approx(0.8, abs=0.01)


def test_weights_are_for_all_genomes_or_none() -> None:
    with pytest.raises(ConfigError, match="1 of 2 have a weight"):
        WindowSampler([source([300], weight=1.0), source([300])], 100)
    with pytest.raises(ConfigError, match="each must be above 0"):
        WindowSampler([source([300], weight=0.0), source([300], weight=1.0)], 100)


pieces = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 60)).map(lambda p: (p[0], sum(p))), max_size=6)


@settings(max_examples=60)
@given(pieces, pieces, st.integers(1, 40), st.sampled_from(["skip", "pad"]), st.integers(0, 2**32))
def test_no_window_leaves_its_regions(
    left_out: list[tuple[int, int]], n_runs: list[tuple[int, int]], window: int, short: str, seed: int
) -> None:
    base = source([250, 0, 149, 99], n_runs=n_runs)
    allowed = subtract(base.layout.everything(), merge(left_out))
    given_regions = GenomeRegions("a.fa", base.layout, allowed, base.n_runs)
    usable = short == "pad" or (allowed[:, 1] - allowed[:, 0]).max(initial=0) >= window
    if not len(allowed) or not usable:
        with pytest.raises(InputError if len(allowed) else ConfigError):
            WindowSampler([given_regions], window, short=short)  # type: ignore[arg-type]
        return
    sampler = WindowSampler([given_regions], window, max_n_fraction=1.0, short=short)  # type: ignore[arg-type]
    windows = sampler.sample(seed, 0, np.arange(200))
    line = base.layout.begins[windows.contig] + windows.start
    inside = (line[:, None] >= allowed[:, 0]) & ((line + windows.length)[:, None] <= allowed[:, 1])
    assert inside.any(1).all()
    assert (windows.length == window).all() or short == "pad"


@pytest.mark.parametrize("most", [0.0, 0.3, 1.0])
def test_no_window_has_too_much_n(most: float) -> None:
    is_n = np.zeros(2100, dtype=bool)
    is_n[300:900] = is_n[1990:2005] = True  # the second run lies in both contigs
    sampler = WindowSampler([source([2000, 100], n_runs=[(300, 900), (1990, 2005)])], 50, max_n_fraction=most)
    windows = sampler.sample(0, 0, np.arange(5000))
    offset = np.where(windows.contig == 1, 2000, 0) + windows.start
    share = np.array([is_n[o : o + 50].mean() for o in offset])
    assert share.max() <= most
    assert share.max() > most - 0.05  # what is allowed does occur
    assert {0, 1} == set(windows.contig.tolist())


def test_drawing_again_keeps_the_genome_and_stays_uniform() -> None:
    full, half = source([1000]), source([1000], n_runs=[(0, 500)])
    plain, drawn = (
        WindowSampler([full, genome], 10, max_n_fraction=0.0).sample(5, 0, np.arange(20_000)) for genome in (full, half)
    )
    np.testing.assert_array_equal(plain.genome, drawn.genome)
    np.testing.assert_array_equal(plain.reverse, drawn.reverse)
    counts = np.bincount(drawn.start[drawn.genome == 1] - 500, minlength=491)
    assert p_value(counts, np.full(491, counts.sum() / 491)) > 0.01


def test_a_genome_of_n_is_named_instead_of_an_endless_search() -> None:
    sampler = WindowSampler([source([1000]), source([1000], n_runs=[(0, 1000)], path="gaps.fa")], 10)
    with pytest.raises(InputError, match=r"gaps\.fa: 256 windows of 10 bases"):
        sampler.sample(0, 0, np.arange(100))


def test_a_window_longer_than_every_region_names_the_longest() -> None:
    with pytest.raises(InputError, match=r"window of 501 bases: the longest is c1:0-500 of a\.fa, 500 bases"):
        WindowSampler([source([300, 500])], 501)
    with pytest.raises(InputError, match=r"longest is c0:0-30 of a\.fa, 30 bases"):
        tile_windows([source([30])], 31, 5)
    with pytest.raises(ConfigError, match=r"nothing is left to train on"):
        WindowSampler([source([300], regions=[])], 10)


def test_short_regions_are_skipped_with_a_count_or_padded() -> None:
    contigs = source([1000, 40, 60])
    skipping = WindowSampler([contigs], 100)
    assert skipping.skipped == {"a.fa": (2, 100)}
    assert set(skipping.sample(0, 0, np.arange(2000)).contig.tolist()) == {0}
    padding = WindowSampler([contigs], 100, short="pad")
    windows = padding.sample(0, 0, np.arange(20_000))
    assert padding.skipped == {}
    for contig, length in ((1, 40), (2, 60)):
        rows = windows.contig == contig
        assert rows.mean() == pytest.approx(length / (901 + 100), rel=0.1)  # as its bases deserve
        assert (windows.start[rows] == 0).all()
        assert (windows.length[rows] == length).all()
    assert (windows.length[windows.contig == 0] == 100).all()


def tiles(windows: Windows) -> list[tuple[int, int, int]]:
    return list(zip(windows.contig.tolist(), windows.start.tolist(), windows.length.tolist(), strict=True))


def test_validation_tiles_side_by_side() -> None:
    windows = tile_windows([source([35, 9, 20])], 10, 100)
    assert tiles(windows) == [(0, 0, 10), (0, 10, 10), (0, 20, 10), (2, 0, 10), (2, 10, 10)]
    assert not windows.reverse.any()
    padded = tile_windows([source([35, 9, 20])], 10, 100, short="pad")
    assert (1, 0, 9) in tiles(padded)


def test_validation_leaves_out_n_and_spreads_evenly() -> None:
    genome = source([1000], n_runs=[(0, 500)])
    kept = tile_windows([genome], 10, 100)
    assert kept.start.tolist() == list(range(500, 1000, 10))
    few = tile_windows([genome], 10, 5)
    assert few.start.tolist() == [550, 650, 750, 850, 950]


def test_validation_reads_every_genome() -> None:
    windows = tile_windows([source([1000]), source([500])], 10, 30)
    assert np.bincount(windows.genome).tolist() == [20, 10]


@given(st.lists(st.integers(0, 200), min_size=1, max_size=4), st.integers(1, 30), st.integers(1, 40))
def test_validation_windows_never_overlap(lengths: list[int], window: int, most: int) -> None:
    genome = source(lengths)
    if max(lengths) < window:
        with pytest.raises(InputError if max(lengths) else ConfigError):
            tile_windows([genome], window, most)
        return
    windows = tile_windows([genome], window, most)
    assert len(windows) == min(most, sum(n // window for n in lengths))
    line = genome.layout.begins[windows.contig] + windows.start
    spans = np.stack([line, line + window], axis=1)
    assert num_bases(merge(spans)) == len(windows) * window
    assert num_bases(subtract(merge(spans), genome.regions)) == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tile_windows([source([30], regions=[])], 5, 5), "no regions are held out"),
        (lambda: tile_windows([source([30])], 5, 0), "data.validation_windows is 0"),
        (lambda: WindowSampler([source([30])], 0), "data.window is 0"),
        (lambda: WindowSampler([source([30])], 5, max_n_fraction=1.5), "data.max_n_fraction is 1.5"),
        (lambda: WindowSampler([source([30])], 5, reverse_complement=-1.0), "data.reverse_complement is -1.0"),
    ],
)
def test_settings_out_of_range_are_named(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        make()
