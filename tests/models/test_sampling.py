"""What is drawn: by the stated rule, from the state alone, whatever the batch."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dnasm.config import ModelConfig
from dnasm.errors import ConfigError
from dnasm.models import LanguageModel, sampling
from dnasm.models.backbone import Backbone, Block
from dnasm.models.mixers import H3, Attention, DilatedCNN, Hyena, Multihybrid
from dnasm.models.replay import Replay
from dnasm.models.sampling import Sample, Sampling, choose, drawable, sample
from dnasm.models.state import DecodingState

Maker = Callable[[ModelConfig], LanguageModel]


def _draw(model: LanguageModel, prompt: Tensor, n: int, how: Sampling, batch_size: int = 32) -> list[Sample]:
    return list(sample(model, prompt, n, how, batch_size=batch_size))


def test_steps_draw_what_forward_over_everything_draws(
    model: LanguageModel, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference computes the whole sequence again for every token, with the same random numbers."""
    how, prompt = Sampling(length=10, temperature=0.7, top_k=3, top_p=0.95, seed=5), tokens[0, :20]
    expected, log_likelihood = [], 0.0
    for number in range(3):
        uniform = np.random.Generator(np.random.Philox(key=np.array([5, number], dtype=np.uint64))).random(10)
        held, total = prompt.long().tolist(), 0.0
        for u in uniform:
            values = model(torch.tensor([held]))[:, -1, 7:11].detach().double()
            picked = int(choose(values, torch.tensor([u], dtype=torch.float64), how))
            total += values.log_softmax(-1)[0, picked].item()
            held.append(7 + picked)
        expected.append(held[20:])
        log_likelihood = total

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("forward was called while sampling")

    for kind in (LanguageModel, Backbone, Block, Hyena, H3, Attention, Multihybrid, DilatedCNN):
        monkeypatch.setattr(kind, "forward", fail)
    drawn = _draw(model, prompt, 3, how, batch_size=2)
    assert [found.tokens.tolist() for found in drawn] == expected
    assert len({tuple(found.tokens) for found in drawn}) == 3
    assert drawn[-1].log_likelihood == pytest.approx(log_likelihood, abs=1e-3)


def test_a_sample_does_not_depend_on_the_others(model: LanguageModel, tokens: Tensor) -> None:
    how, prompt = Sampling(length=15, seed=3), tokens[0, :9]
    together = [found.tokens.tolist() for found in _draw(model, prompt, 7, how)]
    assert [found.tokens.tolist() for found in _draw(model, prompt, 5, how, batch_size=2)] == together[:5]
    (last,) = sample(model, prompt, 1, how, first=6)
    assert last.tokens.tolist() == together[6]
    other = [found.tokens.tolist() for found in _draw(model, prompt, 7, replace(how, seed=4))]
    assert all(a != b for a, b in zip(together, other, strict=True))


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Sampling(), [0.5, 0.25, 0.15, 0.1]),
        (Sampling(temperature=0.0), [1, 0, 0, 0]),
        (Sampling(top_k=1), [1, 0, 0, 0]),
        (Sampling(top_k=2), [2 / 3, 1 / 3, 0, 0]),
        (Sampling(top_p=0.7), [2 / 3, 1 / 3, 0, 0]),
        (Sampling(top_p=0.76), [5 / 9, 2.5 / 9, 1.5 / 9, 0]),
        (Sampling(top_p=1e-9), [1, 0, 0, 0]),
        (Sampling(top_k=3, top_p=0.7), [2 / 3, 1 / 3, 0, 0]),
        (Sampling(temperature=0.5), [0.25, 0.0625, 0.0225, 0.01]),
    ],
)
def test_shares_are_the_stated_ones(how: Sampling, expected: list[float]) -> None:
    places = [2, 0, 3, 1]  # the likeliest need not come first
    logits = torch.empty(4, dtype=torch.float64)
    logits[places] = torch.tensor([0.5, 0.25, 0.15, 0.1], dtype=torch.float64).log() + 3
    count = 20_000
    uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    chosen = choose(logits.expand(count, -1), uniform, how)
    shares = torch.bincount(chosen, minlength=4)[places].double() / count
    wanted = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(shares, wanted / wanted.sum(), atol=1e-4, rtol=0)


def test_the_edges_of_the_unit_interval_draw_what_is_kept() -> None:
    logits = torch.zeros(2, 4, dtype=torch.float64)
    edges = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    assert choose(logits, edges, Sampling(top_k=3)).tolist() == [0, 2]


def test_only_bases_are_drawn(configs: dict[str, ModelConfig], make_model: Maker, tokens: Tensor) -> None:
    model = make_model(configs["hybrid"])
    assert model.lm_head.weight is not None
    with torch.no_grad():
        model.lm_head.weight[:7] *= 50  # special tokens are by far the likeliest
    drawn = np.concatenate([found.tokens for found in _draw(model, tokens[0, :5], 20, Sampling(length=20))])
    assert set(drawn.tolist()) == {7, 8, 9, 10}


def test_a_stop_pattern_ends_its_sample_alone(model: LanguageModel, tokens: Tensor) -> None:
    prompt, free = tokens[0, :12], Sampling(length=40, seed=1)
    whole = [found.tokens.tolist() for found in _draw(model, prompt, 12, free)]
    patterns = ((8, 9), (10, 10, 10))
    stopped = _draw(model, prompt, 12, replace(free, stop=patterns), batch_size=12)
    ends = set()
    for full, found in zip(whole, stopped, strict=True):
        at = [i for i in range(1, 41) if any(full[max(0, i - len(p)) : i] == list(p) for p in patterns)]
        assert found.tokens.tolist() == full[: at[0] if at else 40]
        assert found.stopped is bool(at)
        ends.add(len(found.tokens))
    assert len(ends) > 2
    # A pattern that the prompt begins does not count.
    first = whole[0][0]
    (again,) = _draw(model, prompt, 1, replace(free, stop=((int(prompt[-1]), first),)))
    assert len(again.tokens) > 1


@pytest.mark.parametrize("stop", [(), ((7,), (8,), (9,), (10,))])
def test_who_asks_hears_of_every_token_once(
    configs: dict[str, ModelConfig], make_model: Maker, stop: tuple[tuple[int, ...], ...]
) -> None:
    heard: list[int] = []
    how = Sampling(length=6, stop=stop)
    drawn = sample(make_model(configs["h3"]), torch.tensor([7, 8]), 5, how, batch_size=2, told=heard.append)
    assert all(found.stopped == bool(stop) for found in drawn)
    assert sum(heard) == 5 * 6
    assert len(heard) == (3 if stop else 3 * 6)


@pytest.mark.parametrize(("name", "calls", "worth"), [("h3", 1, False), ("h3", 1000, True), ("hyena", 1000, False)])
def test_steps_are_compiled_where_that_pays(
    monkeypatch: pytest.MonkeyPatch,
    configs: dict[str, ModelConfig],
    make_model: Maker,
    name: str,
    calls: int,
    worth: bool,
) -> None:
    asked: list[bool] = []

    class Heard(Replay):
        def __init__(self, state: DecodingState, body: Callable[[], None], *, graphs: bool, compiled: bool) -> None:
            super().__init__(state, body, graphs=False, compiled=compiled)
            asked.extend([compiled, state.again, *(layer.again for layer in state.layers)])

    monkeypatch.setattr(sampling, "Replay", Heard)
    list(
        sample(
            make_model(configs[name]),
            torch.tensor([7, 8]),
            5,
            Sampling(length=25),
            batch_size=2,
            graphs=True,
            calls=calls,
        )
    )
    assert set(asked) == {worth}


def test_text_models_draw_any_of_their_tokens(configs: dict[str, ModelConfig], make_model: Maker) -> None:
    model = make_model(replace(configs["hybrid"], vocabulary="gpt2"))
    assert drawable(model.config) == range(50_257)
    drawn = np.concatenate([found.tokens for found in _draw(model, torch.tensor([50_256]), 10, Sampling(length=10))])
    assert drawn.max() > 10_000


def test_samples_fill_the_longest_input_and_one_more(configs: dict[str, ModelConfig], make_model: Maker) -> None:
    model = make_model(replace(configs["hyena"], max_length=16))
    prompt = torch.full((10,), 7)
    assert len(_draw(model, prompt, 1, Sampling(length=7))[0].tokens) == 7
    with pytest.raises(ConfigError, match="max_length is 16"):
        _draw(model, prompt, 1, Sampling(length=8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 0}, "length is 0"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0"),
        ({"stop": ((),)}, "empty pattern"),
    ],
)
def test_settings_out_of_range_are_named(
    configs: dict[str, ModelConfig], make_model: Maker, changes: dict[str, Any], message: str
) -> None:
    model = make_model(configs["h3"])
    with pytest.raises(ConfigError, match=message):
        _draw(model, torch.tensor([7]), 1, Sampling(**changes))
    with pytest.raises(ConfigError, match="empty"):
        _draw(model, torch.tensor([], dtype=torch.int64), 1, Sampling())
