"""Log-likelihoods of sequences."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from dnasm import vocabulary
from dnasm.errors import ConfigError, InputError
from dnasm.tasks.likelihood import log_likelihood

from .scoring import PROBABILITIES, Composition, random_sequence, small_model


def test_a_known_composition_gives_exactly_its_sum() -> None:
    values = log_likelihood(Composition(), ["ACGT", "TTTT", "aA"])
    expected = [sum(math.log(PROBABILITIES[base]) for base in text[1:].upper()) for text in ("ACGT", "TTTT", "aA")]
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert values.dtype == np.float64


def test_n_counts_nothing() -> None:
    assert_array_equal(log_likelihood(Composition(), ["ACNNNGT"]), log_likelihood(Composition(), ["ACGT"]))


@pytest.mark.parametrize("family", ["hyena", "h3", "attention"])
def test_a_value_depends_on_its_own_sequence_alone(family: str) -> None:
    model = small_model(family)
    sequences = [random_sequence(length, seed=length) for length in (2, 3, 50, 63, 64, 65, 200, 255, 256)]
    together = log_likelihood(model, sequences)
    alone = np.concatenate([log_likelihood(model, [sequence], batch_size=1) for sequence in sequences])
    assert_array_equal(together, alone)
    assert_array_equal(log_likelihood(model, sequences[::-1], batch_size=3)[::-1], together)


def test_padding_on_the_right_changes_nothing_but_rounding() -> None:
    model = small_model()
    text = random_sequence(57)
    tokens = torch.from_numpy(vocabulary.encode(text))[None]
    with torch.inference_mode():
        log_probs = model(tokens)[..., vocabulary.A : vocabulary.T + 1].double().log_softmax(-1)
    expected = log_probs[0, :-1].gather(-1, tokens[0, 1:, None].long() - vocabulary.A).sum().item()
    np.testing.assert_allclose(log_likelihood(model, [text]), expected, rtol=1e-5)


def test_token_arrays_are_taken_as_they_are() -> None:
    assert_array_equal(
        log_likelihood(Composition(), [vocabulary.encode("ACGT")]), log_likelihood(Composition(), ["ACGT"])
    )


@pytest.mark.parametrize(
    ("sequences", "words"),
    [
        ("ACGT", "in brackets"),
        (["ACGT", "AC-T"], "sequence 1: letter '-' at position 2"),
        (["A"], "at least 2"),
        (["A" * 257], "at most 256"),
    ],
)
def test_bad_sequences_are_named(sequences: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        log_likelihood(small_model(), sequences)


def test_a_model_of_text_is_refused() -> None:
    from dnasm.config import ModelConfig
    from dnasm.models.backbone import build_model

    model = build_model(ModelConfig(family="h3", d_model=8, d_inner=8, num_layers=1, vocabulary="gpt2"))
    with pytest.raises(ConfigError, match="gpt2"):
        log_likelihood(model, ["ACGT"])


def test_nothing_gives_nothing() -> None:
    assert log_likelihood(Composition(), []).shape == (0,)
