"""Steps that are replayed give what steps give; tensors stay where they are, and schedules are few."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dnasm.config import ModelConfig
from dnasm.models import LanguageModel
from dnasm.models.replay import Replay
from dnasm.models.state import DecodingState

Maker = Callable[[ModelConfig], LanguageModel]


def _replay(model: LanguageModel, state: DecodingState, tokens: Tensor, *, graphs: bool) -> tuple[Tensor, Replay]:
    """Logits of each token in turn, the token lying in one place as a graph needs it."""
    token, logits = tokens[:, :1].clone(), torch.empty(len(tokens), 1, 16, device=tokens.device)

    def body() -> None:
        logits.copy_(model.extend(token, state))

    steps, pieces = Replay(state, body, graphs=graphs), []
    for i in range(tokens.shape[1]):
        token.copy_(tokens[:, i : i + 1])
        steps.step()
        pieces.append(logits.clone())
    return torch.cat(pieces, 1), steps


@pytest.mark.parametrize("before", [0, 37])
@torch.no_grad()
def test_replayed_steps_are_steps(model: LanguageModel, tokens: Tensor, before: int) -> None:
    state = model.start(3, 130)  # the last tiles of Hyena reach beyond it
    if before:
        model.extend(tokens[:, :before], state)
    kept = state.snapshot()
    replayed, _ = _replay(model, state, tokens[:, before:], graphs=False)
    torch.testing.assert_close(replayed, model(tokens)[:, before:], atol=2e-5, rtol=1e-4)
    assert state.position == 130
    assert all(layer.position == 130 for layer in state.layers)
    assert all(layer.place is None for layer in kept.layers), "copies are not bound to the replay"
    first = model.extend(tokens[:, before : before + 1], kept)
    torch.testing.assert_close(first, replayed[:, :1], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_tensors_stay_where_they_are(model: LanguageModel, tokens: Tensor) -> None:
    state = model.start(3, 130)
    held = [{k: v for k, v in vars(layer).items() if isinstance(v, Tensor)} for layer in state.layers]
    _replay(model, state, tokens, graphs=False)
    for layer, before in zip(state.layers, held, strict=True):
        for name, tensor in before.items():
            assert getattr(layer, name) is tensor, name


@pytest.mark.parametrize(
    ("name", "count"), [("h3", 1), ("modal", 1), ("multihybrid", 1), ("cnn", 1), ("hyena", 8), ("rotary", 3)]
)
@torch.no_grad()
def test_how_many_graphs_there_are(
    configs: dict[str, ModelConfig], make_model: Maker, tokens: Tensor, name: str, count: int
) -> None:
    model = make_model(replace(configs[name], attention_layers=[], num_layers=1))
    _, steps = _replay(model, model.start(3, 130), tokens, graphs=False)
    assert len(steps.schedules) == count


@torch.no_grad()
def test_what_is_recorded_serves_another_state(model: LanguageModel, tokens: Tensor) -> None:
    state, other = model.start(3, 130), model.start(3, 130)
    _, steps = _replay(model, state, tokens[:, :20], graphs=False)
    model.extend(tokens[:, :37].flip(0), other)
    expected = model.extend(tokens[:, 37:38].flip(0), other.snapshot())
    steps.restart(other)
    found = torch.empty_like(expected)

    def body() -> None:
        found.copy_(model.extend(tokens[:, 37:38].flip(0), state))

    steps.body = body
    steps.step()
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert state.position == 38
