import logging
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dnasm.baselines.markov import MarkovModel, score_orders
from dnasm.config import DataConfig, GenomeConfig
from dnasm.datasets import corpus as corpus_module
from dnasm.datasets.corpus import Corpus
from dnasm.datasets.windows import Windows
from dnasm.errors import ConfigError
from dnasm.genome import Interval
from dnasm.vocabulary import PAD, decode, encode

COMPLEMENT = str.maketrans("ACGTacgt", "TGCAtgca")


def expected(sequences: dict[str, str], windows: Windows, row: int, window: int) -> str:
    """Letters of a window, read the slow way: padded with dots on the right, then turned round."""
    letters = list(sequences.values())[windows.contig[row]]
    start, length = int(windows.start[row]), int(windows.length[row])
    text = letters[start : start + length].ljust(window, ".")
    return text[::-1].translate(COMPLEMENT) if windows.reverse[row] else text


def check(corpus: Corpus, sequences: dict[str, str], count: int = 300) -> Windows:
    """Compare tokens and weights of many windows with the slow way."""
    windows = corpus.sampler.sample(corpus.seed, 0, np.arange(count))
    tokens, weights = corpus.read(windows)
    masked = {"score": 1, "ignore": 0, "down-weight": corpus.config.soft_mask_weight}[corpus.config.soft_mask]
    for row in range(count):
        text = expected(sequences, windows, row, corpus.config.window)
        assert decode(tokens[row]) == text.upper().replace(".", "?")
        assert [t == PAD for t in tokens[row]] == [letter == "." for letter in text]
        wanted = [0 if letter in "N." else masked if letter.islower() else 1 for letter in text]
        np.testing.assert_allclose(weights[row], wanted, atol=1e-4)
    return windows


@pytest.mark.parametrize("soft_mask", ["score", "ignore", "down-weight"])
def test_windows_are_the_bases_they_name(config: DataConfig, sequences: dict[str, str], soft_mask: str) -> None:
    corpus = Corpus(replace(config, soft_mask=soft_mask, soft_mask_weight=0.3), quiet=True)  # type: ignore[arg-type]
    windows = check(corpus, sequences)
    assert windows.reverse.any()
    assert not windows.reverse.all()
    assert set(windows.contig.tolist()) == {0, 1}
    assert corpus.read(windows)[1].dtype == (np.float16 if soft_mask == "down-weight" else np.uint8)


@pytest.mark.parametrize("soft_mask", ["score", "ignore"])
def test_padding_turns_round_with_the_sequence(config: DataConfig, sequences: dict[str, str], soft_mask: str) -> None:
    corpus = Corpus(replace(config, short_regions="pad", soft_mask=soft_mask), quiet=True)  # type: ignore[arg-type]
    windows = check(corpus, sequences, 2000)
    short = windows.length < config.window
    tokens, weights = corpus.read(windows)
    assert short.any()
    assert set(windows.contig[short].tolist()) == {2}
    assert (tokens[short & windows.reverse, :24] == PAD).all()
    assert (tokens[short & ~windows.reverse, 40:] == PAD).all()
    assert (weights[tokens == PAD] == 0).all()


def test_short_regions_are_skipped_aloud(config: DataConfig, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="dnasm"):
        Corpus(config, quiet=True)
    (message,) = [record.getMessage() for record in caplog.records if "not used" in record.getMessage()]
    assert "1 training regions (40 bases) are shorter than the window of 64" in message


def test_training_never_reads_what_is_held_out(config: DataConfig, fasta: Path, tmp_path: Path) -> None:
    (tmp_path / "x.bed").write_text("chrA\t100\t700\n")
    (tmp_path / "t.bed").write_text("chrB\t1000\t1100\n")
    genome = GenomeConfig(
        path=str(fasta), exclude=str(tmp_path / "x.bed"), test_bed=str(tmp_path / "t.bed"), validation=["chrV"]
    )
    corpus = Corpus(replace(config, genomes=[genome]), quiet=True)
    windows = corpus.sampler.sample(0, 0, np.arange(5000))
    for contig, start, end in ((0, 100, 700), (1, 1000, 1100), (3, 0, 900)):
        rows = windows.contig == contig
        assert not ((windows.start[rows] < end) & (windows.start[rows] + windows.length[rows] > start)).any()
    assert (windows.contig == 0).any()


def test_several_genomes_are_read_by_their_own_file(config: DataConfig, tmp_path: Path) -> None:
    paths = []
    for name, letter in (("a", "A"), ("c", "C")):
        paths.append(tmp_path / f"{name}.fa")
        paths[-1].write_text(f">one\n{letter * 500}\n>two\n{letter * 300}\n")
    genomes = [
        GenomeConfig(path=str(paths[0]), validation=["two"], weight=1.0),
        GenomeConfig(path=str(paths[1]), weight=3.0),
    ]
    corpus = Corpus(replace(config, genomes=genomes, reverse_complement=0.0), quiet=True)
    windows = corpus.sampler.sample(0, 0, np.arange(2000))
    tokens, _ = corpus.read(windows)
    np.testing.assert_array_equal(tokens, np.where(windows.genome == 0, *encode("AC"))[:, None].repeat(64, 1))
    counts = corpus.counts()
    assert (windows.genome == 1).mean() == pytest.approx(0.75, abs=0.03)
    assert counts[str(paths[1])] == {
        "training_bases": 800,
        "validation_bases": 0,
        "test_bases": 0,
        "share": 0.75,
        "validation_windows": 0,
    }
    assert counts[str(paths[0])]["validation_windows"] == 300 // 64


def test_a_genome_named_twice_would_leak(config: DataConfig, fasta: Path) -> None:
    twice = GenomeConfig(path=str(fasta.parent / "." / fasta.name), validation=["chrA"])
    with pytest.raises(ConfigError, match="twice"):
        Corpus(replace(config, genomes=[*config.genomes, twice]))
    with pytest.raises(ConfigError, match=r"data\.genomes is empty"):
        Corpus(replace(config, genomes=[]))
    with pytest.raises(ConfigError, match=r"data\.soft_mask_weight is 2"):
        Corpus(replace(config, soft_mask="down-weight", soft_mask_weight=2.0))


def test_training_pieces_hold_every_training_base_once(
    config: DataConfig, sequences: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Corpus(config, quiet=True)
    whole = MarkovModel.fit([encode(s) for name, s in sequences.items() if name != "chrV"], 3)
    monkeypatch.setattr(corpus_module, "PIECE", 101)
    pieces = MarkovModel.fit(corpus.training_pieces(3), 3)
    assert pieces.num_counted == whole.num_counted
    probe = encode(sequences["chrV"])
    np.testing.assert_array_equal(pieces.log_probs(probe), whole.log_probs(probe))


@pytest.mark.parametrize("soft_mask", ["score", "ignore", "down-weight"])
def test_targets_of_model_and_baseline_are_the_same(
    config: DataConfig, sequences: dict[str, str], soft_mask: str
) -> None:
    """A model that knows the base frequencies and the order-0 baseline come to the same bits, target by target."""
    corpus = Corpus(replace(config, soft_mask=soft_mask), quiet=True)  # type: ignore[arg-type]
    baseline = MarkovModel.fit(corpus.training_pieces(2), 2)
    scores = score_orders(baseline, corpus.target_pieces(2))
    tokens, weights = corpus.read(corpus.validation)
    by_base = dict(zip(encode("ACGT").tolist(), baseline.log_probs(encode("ACGT"))[0], strict=True))
    losses = np.array([[by_base.get(token, 0.0) for token in row] for row in tokens.tolist()])[:, 1:]
    counted = weights[:, 1:].astype(np.float64)
    assert scores.total_weight == pytest.approx(counted.sum())
    assert scores.num_targets == (counted > 0).sum()
    assert scores.bits_per_base[0] == pytest.approx(-(losses * counted).sum() / counted.sum() / math.log(2))


def test_targets_have_their_whole_left_context(config: DataConfig, sequences: dict[str, str]) -> None:
    corpus = Corpus(replace(config, validation_windows=3), quiet=True)
    targets = corpus.targets()
    starts = [0, 64, 128]
    assert len(targets) == 3
    assert all(interval.end - interval.start == 63 for _, interval in targets)
    assert {interval.contig for _, interval in targets} == {"chrV"}
    for (_, interval), (tokens, context, weights) in zip(targets, corpus.target_pieces(100), strict=True):
        first = max(0, interval.start - 100)
        assert decode(tokens) == sequences["chrV"][first : interval.end].upper()
        assert (context, len(weights)) == (interval.start - first, 63)
    assert starts[0] not in [interval.start for _, interval in targets]  # nothing stands before a window's first base
    assert targets == sorted(targets, key=lambda target: target[1])


def test_validation_is_the_forward_strand_of_the_held_out_contig(config: DataConfig, sequences: dict[str, str]) -> None:
    corpus = Corpus(config, quiet=True)
    tokens, _ = corpus.read(corpus.validation)
    for start, row in zip(corpus.validation.start.tolist(), tokens, strict=True):
        assert decode(row) == sequences["chrV"][start : start + 64].upper()
    kept = Counter(corpus.validation.contig.tolist())
    assert set(kept) == {3}
    assert all(sequences["chrV"][s : s + 64].count("N") <= 32 for s in corpus.validation.start.tolist())


def test_targets_name_the_genome(config: DataConfig) -> None:
    assert Corpus(config, quiet=True).targets()[0] == (0, Interval("chrV", 1, 64))
