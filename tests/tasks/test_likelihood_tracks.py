"""Log-likelihood and entropy along a genome: windows, strands, N, and the files that browsers read."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor

import dnasm
from dnasm import cli, vocabulary
from dnasm.errors import ConfigError, InputError
from dnasm.genome import Genome, Interval
from dnasm.models.backbone import LanguageModel
from dnasm.models.checkpoint import save_model
from dnasm.tasks.likelihood_tracks import likelihood
from dnasm.tasks.track_scorer import Tiling

from .scoring import PROBABILITIES, Composition, Doublets, random_sequence, reverse_complement, small_model, write_fasta

LETTERS = random_sequence(700, 5)
SECOND = f"{random_sequence(30, 6)}NNN{random_sequence(40, 7)}"


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return small_model(max_length=64)


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    return Genome(write_fasta(tmp_path_factory.mktemp("genome") / "g.fa", one=LETTERS, two=SECOND))


def whole(tracks: object, contig: str, length: int, column: str = "log_likelihood") -> np.ndarray:
    """Values of a contig; nan where there is none. Fails if a base comes twice."""
    values, seen = np.full(length, np.nan), np.zeros(length, int)
    for track in tracks:  # type: ignore[attr-defined]
        if track.contig == contig:
            values[track.start : track.end] = getattr(track, column)
            seen[track.start : track.end] += 1
    assert seen.max(initial=0) <= 1
    return values


def naive(model: LanguageModel, letters: str, window: int, context: int) -> np.ndarray:
    """Score base i in the first window that has `context` bases before it."""
    values = np.full(len(letters), np.nan)
    known: dict[int, Tensor] = {}
    for i in range(1, len(letters)):
        start = 0
        while i >= start + window:
            start += window - context
        if start not in known:
            with torch.inference_mode():
                logits = model(torch.from_numpy(vocabulary.encode(letters[start : start + window]))[None])
            known[start] = logits[0, :, vocabulary.A : vocabulary.T + 1].log_softmax(-1)
        if letters[i] != "N":
            values[i] = known[start][i - start - 1, "ACGT".index(letters[i])]
    return values


@given(window=st.integers(2, 40), context=st.integers(1, 39), length=st.integers(1, 200), data=st.data())
def test_windows_score_each_base_once_with_its_context(window: int, context: int, length: int, data: object) -> None:
    context = min(context, window - 1)
    tiling = Tiling(window, context, length)
    numbers = tiling.windows(0, length)
    spans, scored = [tiling.span(n) for n in numbers], [tiling.scored(n) for n in numbers]
    assert [place for start, end in scored for place in range(start, end)] == list(range(length))
    assert all(
        0 <= first <= start < end == last <= length for (first, last), (start, end) in zip(spans, scored, strict=True)
    )
    assert all(start - first >= context or first == 0 for (first, _), (start, _) in zip(spans, scored, strict=True))
    assert all(last - first <= window for first, last in spans)


@pytest.mark.parametrize("context", [1, 17, 32, 63])
def test_values_are_those_of_one_window_at_a_time(model: LanguageModel, genome: Genome, context: int) -> None:
    tracks = list(likelihood(model, genome, window=64, context=context, strands="forward"))
    assert_allclose(whole(tracks, "one", 700), naive(model, LETTERS, 64, context), atol=2e-5)
    assert_allclose(whole(tracks, "two", 73), naive(model, SECOND, 64, context), atol=2e-5)


def test_known_models_give_known_values(genome: Genome) -> None:
    tracks = list(likelihood(Composition(), genome, window=50))
    own = np.array([math.log(PROBABILITIES[letter]) for letter in LETTERS])
    other = np.array([math.log(PROBABILITIES[letter]) for letter in LETTERS.translate(str.maketrans("ACGT", "TGCA"))])
    expected = np.where(np.isin(np.arange(700), [0, 699]), np.nan, (own + other) / 2)
    assert_allclose(whole(tracks, "one", 700), expected, rtol=1e-6)
    entropy = -sum(p * math.log(p) for p in PROBABILITIES.values())
    assert_allclose(whole(tracks, "one", 700, "entropy")[1:-1], entropy, rtol=1e-6)
    forward, reverse = (list(likelihood(Doublets(), genome, window=50, strands=s)) for s in ("forward", "reverse"))  # type: ignore[arg-type]
    again = np.array([0.7 if a == b else 0.1 for a, b in pairwise(LETTERS)])
    assert_allclose(whole(forward, "one", 700), [np.nan, *np.log(again)], rtol=1e-6)
    assert_allclose(whole(reverse, "one", 700), [*np.log(again), np.nan], rtol=1e-6)


def test_n_has_no_value(model: LanguageModel, genome: Genome) -> None:
    for column in ("log_likelihood", "entropy"):
        values = whole(likelihood(model, genome, "two"), "two", 73, column)
        assert np.flatnonzero(np.isnan(values)).tolist() == [0, 30, 31, 32, 72]


def test_a_value_depends_on_its_place_alone(model: LanguageModel, genome: Genome) -> None:
    everything = whole(likelihood(model, genome, window=64, context=40), "one", 700)
    regions = [
        Interval("one", 333, 340),
        Interval("one", 100, 130),
        Interval("one", 120, 200),
        Interval("one", 650, 700),
    ]
    tracks = list(likelihood(model, genome, regions, window=64, context=40, batch_size=3))
    assert [(track.start, track.end) for track in tracks] == [(100, 200), (333, 340), (650, 700)]
    some = whole(tracks, "one", 700)
    assert_array_equal(some[100:200], everything[100:200])
    assert_array_equal(some[333:340], everything[333:340])
    assert_allclose(some[650:], everything[650:], atol=1e-6)


def test_the_reverse_complement_swaps_the_strands(model: LanguageModel, genome: Genome, tmp_path: Path) -> None:
    turned = Genome(write_fasta(tmp_path / "turned.fa", one=reverse_complement(LETTERS)))
    for column in ("log_likelihood", "entropy"):
        reverse = whole(likelihood(model, turned, strands="reverse"), "one", 700, column)
        assert_array_equal(
            reverse[::-1], whole(likelihood(model, genome, "one", strands="forward"), "one", 700, column)
        )
        both = whole(likelihood(model, turned), "one", 700, column)
        assert_array_equal(both[::-1], whole(likelihood(model, genome, "one"), "one", 700, column))


def test_a_model_of_masked_bases_says_what_it_expects_at_each(genome: Genome) -> None:
    model = small_model(max_length=64, bidirectional=True)
    for contig, letters in (("one", LETTERS), ("two", SECOND)):
        tracks = list(likelihood(model, genome, contig, window=31, strands="forward"))
        values, entropies = (whole(tracks, contig, len(letters), c) for c in ("log_likelihood", "entropy"))
        assert np.flatnonzero(np.isnan(values)).tolist() == [i for i, letter in enumerate(letters) if letter == "N"]
        for base in (0, 3, 16, 29, 33, 50, len(letters) - 1):
            start = max(0, min(base - 15, len(letters) - 31))
            window = torch.from_numpy(vocabulary.encode(letters[start : start + 31]))[None]
            window[0, base - start] = vocabulary.MASK
            with torch.inference_mode():
                expected = model(window)[0, base - start, vocabulary.A : vocabulary.T + 1].double().log_softmax(-1)
            assert_allclose(values[base], expected["ACGT".index(letters[base])], atol=2e-5)
            assert_allclose(entropies[base], -(expected.exp() * expected).sum(), atol=2e-5)


def test_masked_values_depend_on_their_place_and_swap_with_the_strands(genome: Genome, tmp_path: Path) -> None:
    model = small_model(max_length=64, bidirectional=True)
    everything = {
        strands: whole(likelihood(model, genome, "one", window=32, strands=strands), "one", 700)  # type: ignore[arg-type]
        for strands in ("forward", "reverse", "mean")
    }
    assert_allclose(everything["mean"], (everything["forward"] + everything["reverse"]) / 2, atol=1e-6)
    assert np.abs(everything["forward"] - everything["reverse"]).max() > 0.01
    some = whole(likelihood(model, genome, "one:301-340", window=32, batch_size=3), "one", 700)
    assert_array_equal(some[300:340], everything["mean"][300:340])
    assert np.isnan(some).sum() == 660
    turned = Genome(write_fasta(tmp_path / "turned.fa", one=reverse_complement(LETTERS)))
    reverse = whole(likelihood(model, turned, window=32, strands="reverse"), "one", 700)
    assert_array_equal(reverse[::-1], everything["forward"])


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("one", (0, 700)),
        ("one:1-10", (0, 10)),
        ("one:1,0-1,2", (9, 12)),
        ("one:700", (699, 700)),
        ("chrone:3-4", (2, 4)),
    ],
)
def test_places_are_read_as_browsers_write_them(genome: Genome, text: str, interval: tuple[int, int]) -> None:
    (track,) = likelihood(Composition(), genome, text, window=900)
    assert (track.contig, track.start, track.end) == ("one", *interval)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("three", "neither a file nor a place"),
        ("one:0-5", "count from 1"),
        ("one:9-5", "count from 1"),
        ("one:690-701", "leaves the contig, which has 700"),
        ("four:1-2", "no contig 'four'"),
    ],
)
def test_bad_places_are_named(genome: Genome, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        likelihood(Composition(), genome, text)


def test_settings_that_do_not_fit_are_refused(model: LanguageModel, genome: Genome) -> None:
    for settings, words in (
        ({"window": 65}, "at most 64"),
        ({"window": 64, "context": 64}, "context is 64; it must be from 1 to 63"),
        ({"context": 0}, "context is 0"),
    ):
        with pytest.raises(ConfigError, match=words):
            likelihood(model, genome, **settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="context is 8: it is for models that read from left to right"):
        likelihood(small_model(bidirectional=True), genome, context=8)


@pytest.fixture(scope="module")
def command(model: LanguageModel, genome: Genome, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = save_model(model, tmp_path_factory.mktemp("model") / "m", {})
    return ["likelihood", "--model", str(folder), "--genome", str(genome.path), "--quiet", "--device", "cpu"]


def test_pybigwig_reads_back_what_the_function_returns(
    model: LanguageModel, genome: Genome, command: list[str], tmp_path: Path
) -> None:
    import pyBigWig

    bed = tmp_path / "r.bed"
    bed.write_text("two\t20\t73\none\t300\t400\none\t350\t500\none\t0\t5\n")  # neither sorted nor apart
    outs = {"log_likelihood": tmp_path / "ll.bw", "entropy": tmp_path / "entropy.bigWig"}
    words = ["--regions", str(bed), "--out", str(outs["log_likelihood"]), "--entropy", str(outs["entropy"])]
    assert cli.main([*command, *words]) == 0
    tracks = list(dnasm.likelihood(model, genome, bed))
    for column, out in outs.items():
        with pyBigWig.open(str(out)) as file:
            assert file.chroms() == {"one": 700, "two": 73}
            for contig, length in file.chroms().items():
                assert_array_equal(file.values(contig, 0, length), whole(tracks, contig, length, column))
            intervals = file.intervals("one")
            assert all(a[1] <= b[0] for a, b in pairwise(intervals))
    assert (tmp_path / "ll.bw.run.json").is_file()
    assert not list(tmp_path.glob(".*"))


def test_bedgraph_is_sorted_and_on_standard_output(
    model: LanguageModel, genome: Genome, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command, "--out", "-"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith('track type=bedGraph name="dnasm_log_likelihood_mean"')
    rows = [line.split("\t") for line in lines]
    places = [(["one", "two"].index(row[0]), int(row[1]), int(row[2])) for row in rows]
    assert places == sorted(places)
    assert all(end == start + 1 for _, start, end in places)
    assert len(places) == 700 - 2 + 73 - 5
    values = np.concatenate([whole(likelihood(model, genome), name, length) for name, length in genome.contigs.items()])
    assert_allclose([float(row[3]) for row in rows], values[np.isfinite(values)], rtol=1e-5)
    out = tmp_path / "a.bedgraph"
    assert cli.main([*command, "--out", str(out)]) == 0
    assert out.read_text().splitlines() == [header, *lines]


def test_no_regions_make_an_empty_track_and_a_warning(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyBigWig

    (tmp_path / "none.bed").write_text("# none\n")
    assert cli.main([*command, "--regions", str(tmp_path / "none.bed"), "--out", str(tmp_path / "o.bw")]) == 0
    assert "likelihood: warning: " in (said := capsys.readouterr().err)
    assert "none.bed holds no region: the output is empty" in said
    with pyBigWig.open(str(tmp_path / "o.bw")) as file:
        assert file.intervals("one") is None


def test_the_command_takes_a_model_of_masked_bases(
    genome: Genome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small_model(max_length=64, bidirectional=True)
    folder = save_model(model, tmp_path / "m", {})
    command = ["likelihood", "--model", str(folder), "--genome", str(genome.path), "--device", "cpu"]
    assert cli.main([*command, "--regions", "two:21-40", "--out", "-"]) == 0
    out, err = capsys.readouterr()
    assert "each base masked in the middle of 64" in err
    assert "17 of 20 bases with a value; N has none" in err
    values = whole(likelihood(model, genome, "two:21-40"), "two", 73)
    assert_allclose(
        [float(line.split("\t")[3]) for line in out.splitlines()[1:]], values[np.isfinite(values)], rtol=1e-5
    )


def test_errors_and_dry_runs_leave_nothing(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "o.bw"
    assert cli.main([*command, "--out", str(out), "--dry-run"]) == 0
    assert "773 bases in 2 regions, windows of 64 with 32 of context on cpu" in capsys.readouterr().out
    assert cli.main([*command, "--out", str(out), "--entropy", str(out)]) == 2
    assert cli.main([*command, "--out", str(tmp_path / "o.wig")]) == 2

    def fail(self: object, tokens: Tensor) -> Tensor:
        raise InputError("in the middle")

    monkeypatch.setattr(LanguageModel, "forward", fail)
    assert cli.main([*command, "--out", str(out)]) == 65
    assert not list(tmp_path.iterdir())


def test_a_narrow_dtype_is_tried_first(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [word for word in command if word != "--quiet"]
    words = ["--regions", "one:1-100", "--out", str(tmp_path / "o.bedgraph"), "--dtype", "bfloat16"]
    assert cli.main([*command, *words]) == 0
    assert "in bfloat16 on 99 bases the scores drift by up to" in capsys.readouterr().err
    assert cli.main([*command, *words, "--strict", "--force"]) == 2
    assert "leave --strict out" in capsys.readouterr().err
