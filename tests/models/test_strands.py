"""Models of both sides and both strands: who sees whom, and what the other strand changes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dnasm.config import ModelConfig
from dnasm.errors import ConfigError
from dnasm.models import LanguageModel
from dnasm.models.strands import StrandMean, complement_logits, reverse_complement
from dnasm.tasks.likelihood import log_likelihood
from dnasm.training.loss import next_base_loss
from dnasm.vocabulary import PAD, encode

Maker = Callable[[ModelConfig], LanguageModel]


def _tokens(length: int, padded: int = 0) -> Tensor:
    tokens = torch.randint(7, 12, (3, length), generator=torch.Generator().manual_seed(length)).to(torch.uint8)
    tokens[:, length - padded :] = PAD
    return tokens


def test_tokens_and_logits_of_the_other_strand() -> None:
    there = torch.from_numpy(encode("AACGN"))[None]
    assert reverse_complement(there)[0].tolist() == [11, 8, 9, 10, 10]
    assert reverse_complement(there).dtype == torch.uint8
    rows = torch.arange(16.0)[None, None]
    assert complement_logits(rows)[0, 0].tolist() == [*range(7), 10, 9, 8, 7, *range(11, 16)]


@pytest.mark.parametrize("kind", ["bidirectional", "equivariant"])
def test_every_position_sees_every_other(config: ModelConfig, make_model: Maker, tokens: Tensor, kind: str) -> None:
    model = make_model(replace(config, **{kind: True}, cnn_taps=65))  # a CNN sees as far as its taps reach
    changed = tokens.clone()
    changed[:, 64] = 17 - changed[:, 64]
    moved = (model(tokens) - model(changed)).abs().amax((0, 2))
    assert (moved > 1e-6).all()


def test_a_bidirectional_model_has_its_own_filters_for_the_future(config: ModelConfig, make_model: Maker) -> None:
    """Read backwards, the same weights give something else; attention alone does not know a direction."""
    model, tokens = make_model(replace(config, bidirectional=True)), _tokens(50)
    turned = (model(tokens) - model(tokens.flip(1)).flip(1)).abs().max()
    if config.family == "attention" and not config.rotary_dim:
        assert turned < 1e-4
    else:
        assert turned > 1e-2


def test_every_parameter_of_a_bidirectional_model_learns(config: ModelConfig, make_model: Maker) -> None:
    model = make_model(replace(config, bidirectional=True))
    model(_tokens(60)).logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("length", "padded"), [(64, 0), (65, 0), (64, 9), (65, 10)])
def test_equivariance_of_four_layers(
    config: ModelConfig, make_model: Maker, length: int, padded: int, bidirectional: bool
) -> None:
    model = make_model(replace(config, num_layers=4, equivariant=True, bidirectional=bidirectional))
    tokens = _tokens(length, padded)
    other = reverse_complement(tokens)
    with torch.no_grad():
        here, there = model(tokens), model(other)
        assert here.std() > 0.1
        torch.testing.assert_close(complement_logits(there.flip(1)), here, atol=1e-5, rtol=0)
        own, turned = model.hidden(tokens), model.hidden(other).flip(1)
        assert own.shape == (3, length, 64)
        torch.testing.assert_close(torch.cat(turned.chunk(2, -1)[::-1], -1), own, atol=1e-5, rtol=0)
        # Logits at i are of token i; rolled, they are those of the next, which the loss takes. Ends count nothing.
        weights = ((tokens >= 7) & (tokens <= 10)).to(torch.uint8)
        weights[:, [0, -1]] = 0
        losses = [
            next_base_loss(logits.roll(-1, 1), strand, scale)
            for logits, strand, scale in ((here, tokens, weights), (there, other, weights.flip(1)))
        ]
        torch.testing.assert_close(*losses, atol=1e-5, rtol=0)


def test_the_check_of_equivariance_sees_a_plain_model(config: ModelConfig, make_model: Maker) -> None:
    model, tokens = make_model(replace(config, bidirectional=True)), _tokens(64)
    assert (complement_logits(model(reverse_complement(tokens)).flip(1)) - model(tokens)).abs().max() > 0.1


def test_the_mean_over_strands_cannot_tell_them_apart(config: ModelConfig, make_model: Maker) -> None:
    model, tokens = make_model(replace(config, bidirectional=True)), _tokens(65)
    mean, other = StrandMean(model), reverse_complement(tokens)
    with torch.no_grad():
        torch.testing.assert_close(complement_logits(mean(other).flip(1)), mean(tokens), atol=1e-5, rtol=0)
        torch.testing.assert_close(mean.hidden(other).flip(1), mean.hidden(tokens), atol=1e-5, rtol=0)
        expected = (model(tokens) + complement_logits(model(other).flip(1))) / 2
        torch.testing.assert_close(mean(tokens), expected, atol=1e-5, rtol=0)


def test_what_needs_the_past_alone_is_refused(configs: dict[str, ModelConfig], make_model: Maker) -> None:
    model = make_model(replace(configs["hyena"], bidirectional=True))
    with pytest.raises(ConfigError, match="sees both sides"):
        model.start(1, 10)
    with pytest.raises(ConfigError, match="no likelihood"):
        log_likelihood(model, ["ACGT"])
    with pytest.raises(ConfigError, match="causal model's strands"):
        StrandMean(make_model(configs["hyena"]))
    with pytest.raises(ConfigError, match="equivariant is for DNA"):
        make_model(replace(configs["h3"], equivariant=True, vocabulary="gpt2"))
