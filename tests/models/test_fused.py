"""The fewer and larger kernels give what torch's own layers give, and are taken where these alone would run."""

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from dnasm.config import ModelConfig
from dnasm.models import LanguageModel, fused
from dnasm.models.replay import Replay

Maker = Callable[[ModelConfig], LanguageModel]


def _linear(rows: int = 6, device: str = "cpu", dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, rows).to(device, dtype).requires_grad_(False)


@pytest.mark.parametrize(("rows", "length"), [(6, 5), (8, 8), (4, 1), (1, 4)])
@pytest.mark.parametrize("batch", [1, 2])
def test_products_that_turn_are_products(rows: int, length: int, batch: int) -> None:
    layer, x = _linear(rows), torch.randn(batch, length, 4)
    bias = layer.bias.clone()
    for _ in range(2):
        torch.testing.assert_close(fused.turned_linear(layer, x), layer(x).mT)
        torch.testing.assert_close(fused.linear_of_turned(layer, x.mT.contiguous()), layer(x))
    assert torch.equal(layer.bias, bias)


def test_joined_products_are_the_products_side_by_side() -> None:
    layers, x = [_linear(), _linear(3)], torch.randn(2, 4)
    both = fused.joined(*layers)
    assert both is not None
    torch.testing.assert_close(linear(x, *both), torch.cat([layer(x) for layer in layers], -1))


class _Adapted(nn.Linear):
    pass


def test_only_plain_layers_are_taken_apart() -> None:
    heard, adapted = _linear(), _Adapted(4, 6)
    assert fused.plain(heard)
    heard.register_forward_hook(lambda *_: None)
    for layer in (heard, adapted):
        assert not fused.plain(layer)
        assert fused.joined(_linear(), layer) is None
    assert not fused.reads_only(torch.zeros(1, 4, dtype=torch.bfloat16), _linear(dtype=torch.bfloat16)), "on a CPU"


@pytest.mark.parametrize("norm", [nn.LayerNorm(4), nn.RMSNorm(4, eps=1e-5)])
def test_a_compiled_sum_and_norm_is_the_plain_one(norm: fused.Norm) -> None:
    torch.manual_seed(0)
    nn.init.normal_(norm.weight)
    x, y = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    expected = fused.add_norm(x, y, norm, again=False)
    torch.testing.assert_close(expected, (x + y, norm(x + y)))
    compiled = torch.compile(unwrap(fused._add_norm), backend="aot_eager", fullgraph=True)
    found = compiled(x, y, norm.weight, getattr(norm, "bias", None), norm.eps)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, expected)


def test_steps_hear_who_listens_to_a_projection(configs: dict[str, ModelConfig], make_model: Maker) -> None:
    """A layer that is more than its weights is called, where plain ones are joined to one product."""
    model = make_model(configs["h3"])
    mixer: Any = model.backbone.layers[0].get_submodule("mixer")
    mixer.k_proj.register_forward_hook(lambda _layer, _inputs, out: 2 * out)
    token, found = torch.full((2, 1), 8), []
    with torch.no_grad():
        expected = model(token.expand(2, 3))
        state = model.start(2, 3)
        steps = Replay(state, lambda: found.append(model.extend(token, state)), graphs=False)
        for _ in range(3):
            steps.step()
    torch.testing.assert_close(torch.cat(found, 1), expected, atol=2e-5, rtol=1e-4)
    states: list[Any] = list(state.layers)
    assert [held.projections is None for held in states] == [True, False]


@pytest.mark.gpu
@torch.no_grad()
def test_forms_of_a_gpu_are_as_exact_as_torchs_own() -> None:
    layer, x = _linear(64, "cuda", torch.bfloat16), torch.randn(3, 40, 4, device="cuda").bfloat16()
    assert fused.reads_only(x, layer)
    with torch.enable_grad():
        assert not fused.reads_only(x, layer)
    exact = nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double())
    pairs: list[tuple[Tensor, Tensor]] = [
        (fused.linear_gelu(layer, x), gelu(exact, approximate="tanh")),
        (fused.turned_linear(layer, x), exact.mT),
        (fused.linear_of_turned(layer, x.mT.contiguous()), exact),
    ]
    for found, expected in pairs:
        assert found.shape == expected.shape
        assert (found - expected).norm() / expected.norm() < 2.5e-3
