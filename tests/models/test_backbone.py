"""What holds for every mixer: shapes, causality, padding, batches, precision, marks, errors."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dnasm.config import ModelConfig
from dnasm.errors import ConfigError
from dnasm.models import LanguageModel, build_model
from dnasm.models.backbone import cast_model, mark_parameters

Maker = Callable[[ModelConfig], LanguageModel]


def test_logits_and_hidden_states_have_the_stated_shapes(model: LanguageModel, tokens: Tensor) -> None:
    assert model(tokens).shape == (3, 130, 16)
    for layer in (0, 1, -1):
        assert model.hidden(tokens, layer).shape == (3, 130, 32)
    last = model.backbone.ln_f(model.hidden(tokens, 1))
    assert torch.equal(last, model.hidden(tokens))
    assert torch.equal(model(tokens), model(tokens.long()))


def test_nothing_is_seen_of_the_future(model: LanguageModel, tokens: Tensor) -> None:
    embedded = model.backbone.embeddings(tokens).detach().requires_grad_()
    model.backbone.embeddings.forward = lambda _: embedded  # type: ignore[method-assign]
    logits = model(tokens)
    position = 64
    (gradient,) = torch.autograd.grad(logits[:, position].square().sum(), embedded)
    # The transforms of a long convolution leave rounding in the future, nothing more.
    assert gradient[:, position + 1 :].abs().max() <= 1e-5 * gradient.abs().max()
    assert (gradient[:, : position + 1].abs().amax((0, 2)) > 0).all(), "every position of the past reaches the present"


def test_the_check_of_causality_sees_a_look_ahead_of_one(model: LanguageModel, tokens: Tensor) -> None:
    changed = tokens.clone()
    changed[:, 65] = 17 - changed[:, 65]
    now, then = model(tokens), model(changed)
    assert (now - then)[:, 65].abs().max() > 1e-2
    assert (now - then)[:, :65].abs().max() < 1e-4


@pytest.mark.parametrize("length", [1, 2, 63, 64, 129])
def test_right_padding_changes_nothing(model: LanguageModel, tokens: Tensor, length: int) -> None:
    torch.testing.assert_close(model(tokens)[:, :length], model(tokens[:, :length]), atol=2e-5, rtol=1e-4)


def test_batches_change_nothing(model: LanguageModel, tokens: Tensor) -> None:
    singly = torch.cat([model(row[None]) for row in tokens])
    torch.testing.assert_close(model(tokens), singly, atol=2e-5, rtol=1e-4)
    assert torch.equal(model(tokens), model(tokens))


def test_float32_agrees_with_float64(model: LanguageModel, tokens: Tensor) -> None:
    single = model(tokens)
    cast_model(model, torch.float64)
    exact = model(tokens)
    assert exact.dtype == torch.float64
    error = (single - exact).norm() / exact.norm()
    assert 0 < error < 1e-5


def test_bfloat16_keeps_the_filters_precise(model: LanguageModel, tokens: Tensor) -> None:
    exact = model(tokens)
    cast_model(model, torch.bfloat16)
    assert model(tokens).dtype == torch.bfloat16
    assert model.hidden(tokens, 0).dtype == torch.float32, "the residual sum stays in float32"
    assert (model(tokens).float() - exact).norm() / exact.norm() < 0.03
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        filters = any(part in name for part in ("filter_fn", ".kernel.", "ssm_k_kernel"))
        assert tensor.dtype == (torch.float32 if filters else torch.bfloat16), name


def test_autocast_is_near_float32(model: LanguageModel, tokens: Tensor) -> None:
    exact = model(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        near = model(tokens)
    assert 0 < (near.float() - exact).norm() / exact.norm() < 0.03


def test_every_parameter_learns(model: LanguageModel, tokens: Tensor) -> None:
    model(tokens).logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_dropouts_act_in_training_alone(configs: dict[str, ModelConfig], tokens: Tensor, make_model: Maker) -> None:
    for field in ("embedding_dropout", "residual_dropout"):
        model = make_model(replace(configs["hyena"], **{field: 0.5}))
        assert torch.equal(model(tokens), model(tokens))
        model.train()
        assert not torch.equal(model(tokens), model(tokens)), field


def test_a_head_is_tied_or_its_own(configs: dict[str, ModelConfig], tokens: Tensor, make_model: Maker) -> None:
    tied, own = make_model(configs["h3"]), make_model(configs["hybrid"])
    assert "lm_head.weight" not in dict(tied.named_parameters())
    assert "lm_head.weight" in dict(own.named_parameters())
    for model in (tied, own):
        table = model.backbone.embeddings.word_embeddings.weight
        matrix = table if model is tied else model.lm_head.weight
        assert matrix is not None
        assert torch.allclose(model(tokens), model.hidden(tokens) @ matrix.T, atol=1e-5)


def test_longer_than_max_length_is_an_error_that_names_both(configs: dict[str, ModelConfig], make_model: Maker) -> None:
    model = make_model(configs["hyena"])
    assert model(torch.full((1, 300), 7)).shape == (1, 300, 16)
    with pytest.raises(ConfigError, match=r"301 tokens.*max_length is 300"):
        model(torch.full((1, 301), 7))
    with pytest.raises(ConfigError, match="layer 2 is not"):
        model.hidden(torch.full((1, 5), 7), 2)


def test_residual_projections_start_small(configs: dict[str, ModelConfig]) -> None:
    for name, projection in (("hyena", "out_proj"), ("h3", "output_linear"), ("attention", "out_proj")):
        torch.manual_seed(0)
        model = build_model(replace(configs[name], d_model=128, d_inner=256, num_layers=8))
        for block in model.backbone.layers:
            for linear in (block.get_submodule("mixer").get_submodule(projection), block.get_submodule("mlp.fc2")):
                assert isinstance(linear, nn.Linear)
                assert linear.weight.std().item() == pytest.approx(0.02 / math.sqrt(16), rel=0.05)
            first = block.get_submodule("mlp.fc1")
            assert isinstance(first, nn.Linear)
            assert first.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_marks_name_what_must_not_decay(model: LanguageModel) -> None:
    mark_parameters(model)
    for name, parameter in model.named_parameters():
        decays = name.endswith(".weight") and not any(
            part in name for part in ("norm", "ln_f", "embeddings", "filter_fn")
        )
        assert getattr(parameter, "_no_weight_decay", False) is not decays, name
        state_space = any(part in name for part in (".kernel.", "ssm_k_kernel"))
        assert hasattr(parameter, "_max_lr") is state_space, name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_length": None}, "max_length is null"),
        ({"filter_embedding": 4}, "filter_embedding 4 must be odd"),
        ({"attention_layers": [2]}, r"attention_layers \[2\] must lie in 0 to 1"),
        ({"attention_layers": [0], "num_heads": 5}, "d_model 32 is no multiple of num_heads 5"),
        ({"attention_layers": [0], "rotary_dim": 10}, "rotary_dim 10 must be even and at most 8"),
        ({"family": "h3", "head_dim": 5}, "d_model 32 is no multiple of head_dim 5"),
        ({"family": "h3", "state_size": 7}, "state_size 7 must be even"),
        ({"num_heads": 0, "attention_layers": [0]}, "num_heads 0 must be at least 1"),
        ({"embedding_dropout": 1.0}, "embedding_dropout 1.0 must be"),
    ],
)
def test_contradictions_are_named(configs: dict[str, ModelConfig], changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(replace(configs["hyena"], **changes))  # type: ignore[arg-type]
