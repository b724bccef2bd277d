import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from dnasm.metrics import (
    PositionLoss,
    WeightedMean,
    auroc,
    auroc_interval,
    average_precision,
    average_precision_interval,
    bits_to_nats,
    nats_to_bits,
)


def test_a_uniform_choice_of_four_is_two_bits() -> None:
    assert nats_to_bits(math.log(4)) == pytest.approx(2)
    assert bits_to_nats(nats_to_bits(1.234)) == pytest.approx(1.234)


def test_weighted_mean_over_batches_equals_the_mean_of_all() -> None:
    rng = np.random.default_rng(0)
    losses, weights = rng.normal(size=(7, 5)), rng.integers(0, 2, (7, 5))
    mean = WeightedMean()
    for rows in (slice(0, 2), slice(2, 7)):
        mean.update(losses[rows], weights[rows])
    assert mean.mean == pytest.approx((losses * weights).sum() / weights.sum())
    assert mean.weight == weights.sum()


def test_weighted_mean_sums_in_float64() -> None:
    mean = WeightedMean()
    mean.update([2.0**25])
    for _ in range(100):
        mean.update(np.ones(1, dtype=np.float32))  # float32 would stay at 2**25
    assert mean.total == 2**25 + 100


def test_a_loss_without_weight_is_not_looked_at() -> None:
    mean = WeightedMean()
    mean.update([1.0, math.nan, math.inf], np.array([1, 0, 0], dtype=np.uint8))
    assert mean.mean == 1
    assert math.isnan(WeightedMean().mean)


def test_weighted_mean_takes_tensors_and_half_weights() -> None:
    mean = WeightedMean()
    mean.update(torch.tensor([[1.0, 3.0]]), torch.tensor([[1, 0.5]], dtype=torch.float16))
    assert mean.mean == pytest.approx(2.5 / 1.5)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,\).*\(1,\)"):
        WeightedMean().update([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match=r"expected \(batch, 3\)"):
        PositionLoss(3).update(np.ones((2, 4)))


def test_position_loss_keeps_positions_apart() -> None:
    loss = PositionLoss(3)
    loss.update([[1.0, 2.0, 9.0], [3.0, 4.0, 9.0]], [[1, 1, 0], [1, 0, 0]])
    loss.update([[5.0, 6.0, 9.0]], [[0, 1, 0]])
    np.testing.assert_allclose(loss.mean, [2.0, 4.0, math.nan])


def test_position_bins_cover_every_position_once() -> None:
    loss = PositionLoss(10)
    loss.update(np.arange(10.0)[None])
    bins = loss.binned(3)
    assert [first for first, _, _ in bins] == [0, *[end for _, end, _ in bins[:-1]]]
    assert bins[-1][1] == 10
    assert sum(mean * (end - first) for first, end, mean in bins) == pytest.approx(45)
    assert len(loss.binned(100)) == 10


scored = st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=60).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


@given(scored)
def test_agrees_with_scikit_learn_also_with_ties(rows: list[tuple[bool, int]]) -> None:
    labels, scores = ([row[i] for row in rows] for i in (0, 1))
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores))


def test_known_ends() -> None:
    assert auroc([0, 1], [0, 1]) == 1
    assert auroc([0, 1], [1, 0]) == 0
    assert auroc([0, 1, 1], [5, 5, 5]) == 0.5
    assert average_precision([1, 0, 0, 0], [0, 0, 0, 0]) == 0.25


@pytest.mark.parametrize("labels", [[1, 1], [0, 0], []])
def test_one_class_alone_has_no_auroc(labels: list[int]) -> None:
    scores = [0.5] * len(labels)
    assert math.isnan(auroc(labels, scores))
    assert math.isnan(average_precision(labels, scores))
    assert math.isnan(auroc_interval(labels, scores).low)


def test_bad_labels_and_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        auroc([0, 1], [0.0, math.nan])
    with pytest.raises(ValueError, match="labels are 0 or 1"):
        auroc([0, 2], [0.0, 1.0])
    with pytest.raises(ValueError, match="one length"):
        auroc([0, 1], [0.0])


def test_interval_is_seeded_and_holds_the_value() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 300)
    scores = labels + rng.normal(size=300)
    one, same = auroc_interval(labels, scores, seed=3), auroc_interval(labels, scores, seed=3)
    assert one == same != auroc_interval(labels, scores, seed=4)
    assert one.low < one.value < one.high
    assert (one.num_positive, one.num_negative) == (labels.sum(), 300 - labels.sum())
    precision = average_precision_interval(labels, scores, resamples=200)
    assert precision.low < precision.value < precision.high


def test_interval_has_the_width_that_theory_gives() -> None:
    """Hanley and McNeil 1982: at AUROC 1/2 the variance is (n0 + n1 + 1) / (12 n0 n1)."""
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], 200)
    found = auroc_interval(labels, rng.normal(size=400), resamples=2000)
    width = 2 * 1.96 * math.sqrt(401 / (12 * 200 * 200))
    assert (found.high - found.low) == pytest.approx(width, rel=0.12)
