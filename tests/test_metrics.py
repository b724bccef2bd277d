import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from dnasm.metrics import auroc, auroc_interval, average_precision, average_precision_interval, nats_to_bits


def test_a_uniform_choice_of_four_is_two_bits() -> None:
    assert nats_to_bits(math.log(4)) == pytest.approx(2)


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
