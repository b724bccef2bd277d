"""Log-probabilities of bases against plain NumPy, and their independence of padding, batches and order."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from dnasm.config import ModelConfig
from dnasm.errors import ConfigError
from dnasm.models import LanguageModel
from dnasm.models.likelihood import (
    base_log_probs,
    log_likelihood,
    require_dna,
    target_log_probs,
)
from dnasm.presets import preset
from dnasm.tasks import likelihood
from dnasm.vocabulary import encode


def test_mass_on_other_tokens_is_left_out() -> None:
    logits = torch.randn(2, 5, 16)
    logits[..., :7] += 5
    values = base_log_probs(logits)
    chosen = logits[..., 7:11].double().numpy()
    expected = chosen - np.log(np.exp(chosen).sum(-1, keepdims=True))
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-6)
    assert base_log_probs(logits.bfloat16()).dtype == torch.float32
    assert base_log_probs(logits.double()).dtype == torch.float64


def test_a_sequence_is_the_sum_of_its_bases_after_the_first() -> None:
    tokens = torch.from_numpy(encode("ACNGT"))[None]
    logits = torch.randn(1, 5, 16)
    p = base_log_probs(logits)[0]
    each = [p[0, 1], 0.0, p[2, 2], p[3, 3]]  # C, N (not scored), G, T
    np.testing.assert_allclose(target_log_probs(logits, tokens)[0].numpy(), np.array(each), atol=1e-6)
    assert log_likelihood(logits, tokens).dtype == torch.float64
    assert log_likelihood(logits, tokens).item() == pytest.approx(sum(each).item(), abs=1e-6)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="at least 2 tokens"):
        log_likelihood(logits[:, :1], tokens[:, :1])


def test_long_sums_do_not_drift() -> None:
    """A float32 sum of a million terms keeps 7 digits, and a variant moves the ninth."""
    tokens = torch.full((1, 1_000_001), 7, dtype=torch.uint8)
    value = log_likelihood(torch.zeros(1, 1, 16).expand(1, 1_000_001, 16), tokens).item()
    assert value == pytest.approx(-1_000_000 * float(np.float32(np.log(4))), rel=1e-12)


def test_values_do_not_depend_on_the_batch(model: LanguageModel) -> None:
    rng = np.random.default_rng(0)
    sequences = [rng.integers(7, 11, size=n).astype(np.uint8) for n in (2, 40, 7, 130, 41, 64, 3, 99)]
    alone = np.array([likelihood.log_likelihood(model, [s])[0] for s in sequences])
    assert (alone < 0).all()
    for batch_size in (1, 3, 8):
        values = likelihood.log_likelihood(model, sequences, batch_size=batch_size)
        np.testing.assert_allclose(values, alone, rtol=1e-5)
    backwards = likelihood.log_likelihood(model, sequences[::-1], batch_size=3)[::-1]
    np.testing.assert_allclose(backwards, alone, rtol=1e-5)


def test_text_models_are_refused_by_name(
    configs: dict[str, ModelConfig], make_model: Callable[[ModelConfig], LanguageModel]
) -> None:
    require_dna(configs["hyena"])
    with pytest.raises(ConfigError, match="'gpt2'"):
        require_dna(preset("h3-125m"))
    with pytest.raises(ConfigError, match="over 50264 tokens"):
        base_log_probs(torch.zeros(1, 50_264))
