"""Masks: shares, and what they are a function of; a model that sees both sides learns from them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dnasm import cli
from dnasm.training.masking import mask_bases, mask_batch
from dnasm.vocabulary import MASK, PAD, N
from tests.tasks.runs import patchy_letters, write_config, write_fasta

TOKENS = np.random.default_rng(0).integers(7, 11, (200, 1000)).astype(np.uint8)


def test_shares_are_those_of_bert() -> None:
    shown, targets = mask_bases(TOKENS, 0, 0, np.arange(200))
    assert (shown[~targets] == TOKENS[~targets]).all()
    count = targets.sum()
    assert count == pytest.approx(0.15 * TOKENS.size, rel=0.02)
    assert (shown[targets] == MASK).sum() == pytest.approx(0.8 * count, rel=0.02)
    kept = (shown[targets] == TOKENS[targets]).sum()
    assert kept == pytest.approx((0.1 + 0.1 / 4) * count, rel=0.05)  # a random base may be the one that was there
    drawn = shown[targets & (shown != MASK) & (shown != TOKENS)]
    assert set(np.unique(drawn)) == {7, 8, 9, 10}
    assert np.bincount(drawn)[7:].min() > 0.9 * len(drawn) / 4


def test_a_mask_is_a_function_of_seed_epoch_and_index() -> None:
    index = np.arange(200)
    shown, targets = mask_bases(TOKENS, 3, 5, index)
    again, _ = mask_bases(TOKENS[50:60, :100], 3, 5, index[50:60])
    assert (again == shown[50:60, :100]).all(), "whatever the batch and its length"
    for seed, epoch, first in ((4, 5, 0), (3, 6, 0), (3, 5, 1), (3, -1, 0)):
        _, other = mask_bases(TOKENS, seed, epoch, index + first)
        assert (targets & other).sum() == pytest.approx(0.15**2 * TOKENS.size, rel=0.1), "independent of it"
    assert 0.1 < targets[:, 0].mean() < 0.2, "every position alike"


def test_what_is_no_base_is_no_target() -> None:
    tokens = np.full((50, 100), N, dtype=np.uint8)
    tokens[:, ::2] = PAD
    shown, targets = mask_bases(tokens, 0, 0, np.arange(50))
    assert not targets.any()
    assert (shown == tokens).all()


def test_weights_of_a_batch_are_those_of_its_targets() -> None:
    tokens = torch.from_numpy(TOKENS[:4, :64])
    weights = torch.ones_like(tokens)
    weights[:, ::2] = 0
    samples = torch.tensor([[2, i] for i in range(9, 13)])
    shown, scaled = mask_batch({"tokens": tokens, "weights": weights, "samples": samples}, 7)
    expected, targets = mask_bases(TOKENS[:4, :64], 7, 2, np.arange(9, 13))
    assert (shown.numpy() == expected).all()
    assert (scaled.numpy() == targets * weights.numpy()).all()


@pytest.mark.parametrize("kind", ["bidirectional", "equivariant"])
def test_a_model_of_both_sides_learns_from_masks(kind: str, tmp_path: Path) -> None:
    letters = patchy_letters(60_000, 0, patch=200)
    fasta = write_fasta(tmp_path / "g.fa", {"train": letters[:50_000], "held": letters[50_000:]})
    config = write_config(tmp_path / "run.yaml", fasta, max_steps=100, validate_every=100)
    run = tmp_path / "run"
    assert cli.main(["pretrain", "--config", str(config), f"--model.{kind}", "--out", str(run), "--quiet"]) == 0
    counts = json.loads((run / "run.json").read_text())["counts"]
    # Each base comes from one of two pairs, 7 times in 10 from its patch's own: the patch known gives 1.88
    # bits, and 1,500 targets tell that to 0.02.
    assert 1.83 < counts["best_validation_bits_per_base"] < 1.96
    assert counts["validation_targets"] < 0.2 * 156 * 64
    assert cli.main(["pretrain", "--config", str(config), f"--model.{kind}", "--out", str(tmp_path / "b"),
                     "--trainer.require-below-markov", "--quiet"]) == 2  # fmt: skip
