"""Going on from a state gives what `forward` over everything gives, at the cost that each family promises."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dnasm.config import ModelConfig
from dnasm.errors import ConfigError
from dnasm.models import LanguageModel
from dnasm.models.backbone import Backbone, Block, cast_model
from dnasm.models.mixers import H3, Attention, DilatedCNN, Hyena, Multihybrid
from dnasm.models.state import DecodingState

Maker = Callable[[ModelConfig], LanguageModel]


@pytest.fixture
def no_forward(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, computing a sequence as a whole raises."""

    def forbid() -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise AssertionError("forward was called while stepping")

        for kind in (LanguageModel, Backbone, Block, Hyena, H3, Attention, Multihybrid, DilatedCNN):
            monkeypatch.setattr(kind, "forward", fail)

    return forbid


def _step_all(model: LanguageModel, tokens: Tensor, state: DecodingState) -> Tensor:
    return torch.cat([model.extend(tokens[:, i : i + 1], state) for i in range(tokens.shape[1])], 1)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("hyena", {"num_layers": 1}),
        ("h3", {"attention_layers": [1], "rotary_dim": 4}),
        ("h3-heads", {"num_layers": 1}),
        ("multihybrid", {"pattern": ["se", "mr", "li"], "num_layers": 3}),
        ("cnn", {"num_layers": 1}),
    ],
)
def test_4096_steps_equal_one_forward(
    configs: dict[str, ModelConfig],
    make_model: Maker,
    no_forward: Callable[[], None],
    name: str,
    more: dict[str, object],
) -> None:
    """Every mixer is in one of these models."""
    length = 4096
    model = make_model(replace(configs[name], **{"max_length": length, **more}))  # type: ignore[arg-type]
    tokens = torch.randint(7, 11, (1, length), generator=torch.Generator().manual_seed(0))
    parallel = model(tokens).detach()
    no_forward()
    stepped = _step_all(model, tokens, model.start(1, length))
    assert parallel.std() > 0.1
    torch.testing.assert_close(stepped, parallel, atol=1e-4, rtol=0)


# Pieces of one position and of several, in every order, across the sizes of the tiles.
@pytest.mark.parametrize(
    "sizes", [[130], [1] * 130, [64, *[1] * 66], [1, 1, 1, 40, *[1] * 20, 2, 3, *[1] * 62], [65, 65]]
)
def test_any_pieces_equal_one_forward(
    model: LanguageModel, tokens: Tensor, no_forward: Callable[[], None], sizes: list[int]
) -> None:
    assert sum(sizes) == 130
    parallel = model(tokens).detach()
    no_forward()
    state = model.start(3, 150)
    pieces = [model.extend(piece, state) for piece in tokens.split(sizes, 1)]
    torch.testing.assert_close(torch.cat(pieces, 1), parallel, atol=2e-5, rtol=1e-4)
    assert state.position == 130


def test_long_pieces_are_cut_inside(configs: dict[str, ModelConfig], make_model: Maker) -> None:
    """H3 takes 256 positions at a time; 700 and 68 leave rests of its pieces."""
    model = make_model(configs["h3-heads"])
    tokens = torch.randint(7, 11, (2, 768), generator=torch.Generator().manual_seed(0))
    state = model.start(2, 768)
    pieces = [model.extend(piece, state) for piece in tokens.split([700, 68], 1)]
    torch.testing.assert_close(torch.cat(pieces, 1), model(tokens).detach(), atol=2e-5, rtol=1e-4)


def test_a_fork_goes_its_own_way(model: LanguageModel, tokens: Tensor) -> None:
    state = model.start(3, 130)
    model.extend(tokens[:, :60], state)
    _step_all(model, tokens[:, 60:70], state)
    forked, kept = state.fork(2), state.snapshot()
    other = 17 - tokens[:, 70:100]
    branches = torch.stack([tokens[:, 70:100], other], 1).flatten(0, 1)  # copies of a sequence stand side by side
    both = _step_all(model, branches, forked)
    _step_all(model, other, state)
    for start, rest, got in (
        (kept, tokens[:, 70:100], both[0::2]),
        (kept.snapshot(), other, both[1::2]),
    ):
        whole = model(torch.cat([tokens[:, :70], rest], 1))[:, 70:].detach()
        torch.testing.assert_close(got, whole, atol=2e-5, rtol=1e-4)
        if start is kept:
            torch.testing.assert_close(_step_all(model, rest, start), whole, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(model: LanguageModel, tokens: Tensor, dtype: torch.dtype) -> None:
    cast_model(model, dtype)
    parallel = model(tokens[:, :40]).detach()
    state = model.start(3, 40)
    stepped = torch.cat([model.extend(tokens[:, :20], state), _step_all(model, tokens[:, 20:40], state)], 1)
    assert stepped.dtype == dtype
    error = (stepped - parallel).double().norm() / parallel.double().norm()
    assert error < (0.02 if dtype == torch.bfloat16 else 1e-12)


def test_what_does_not_fit_is_an_error(configs: dict[str, ModelConfig], make_model: Maker, tokens: Tensor) -> None:
    for name in ("hyena", "h3", "attention"):
        model = make_model(configs[name])
        state = model.start(3, 10)
        model.extend(tokens[:, :9], state)
        with pytest.raises(ConfigError, match="made for 10 positions and holds 9: 2 more"):
            model.extend(tokens[:, 9:11], state)
        assert state.position == 9
    with pytest.raises(ConfigError, match="max_length is 300"):
        make_model(configs["hyena"]).start(1, 301)


class _Work(TorchDispatchMode):
    """Counts multiply-adds: of matrix products, attention and transforms by their formula, of the rest one a number."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if func.is_view or name in ("empty", "new_zeros", "arange"):
            return result
        out = result[0] if isinstance(result, tuple) else result
        if name in ("mm", "bmm"):
            self.count += out.numel() * args[0].shape[-1]
        elif name == "addmm":
            self.count += out.numel() * args[1].shape[-1]
        elif "attention" in name:
            self.count += 2 * args[0].numel() * args[1].shape[2]
        elif name.startswith("_fft"):
            size = max(out.shape[-1], args[0].shape[-1])
            self.count += 2.5 * out.numel() * math.log2(max(size, 2))
        elif isinstance(out, Tensor):
            self.count += out.numel()
        return result


def _work_at(model: LanguageModel, position: int) -> float:
    state = model.start(1, 1 << 17)
    state.position = position
    for layer in state.layers:
        layer.position = position
    with _Work() as work:
        model.extend(torch.full((1, 1), 7), state)
    return work.count


@pytest.mark.parametrize("name", ["h3-heads", "multihybrid", "modal", "cnn"])
def test_a_step_costs_the_same_anywhere(configs: dict[str, ModelConfig], make_model: Maker, name: str) -> None:
    model = make_model(replace(configs[name], attention_layers=[]))
    assert _work_at(model, 1 << 10) == _work_at(model, 1 << 16) > 1e4


def test_a_step_of_attention_grows_with_the_position(configs: dict[str, ModelConfig], make_model: Maker) -> None:
    model = make_model(configs["rotary"])
    near, middle, far = (_work_at(model, position) for position in (1 << 10, 1 << 15, (1 << 16) - (1 << 10)))
    assert far - middle == pytest.approx(middle - near, rel=1e-3)
    assert far > 10 * near


def test_twice_as_many_steps_of_hyena_cost_little_more_than_twice(
    configs: dict[str, ModelConfig], make_model: Maker
) -> None:
    model = make_model(replace(configs["hyena"], num_layers=1, max_length=1024))
    mixer = model.backbone.layers[0].get_submodule("mixer")
    assert isinstance(mixer, Hyena)
    work = {}
    with torch.no_grad():
        for count in (512, 1024):
            state = mixer.start(1, count)
            with _Work() as counted:
                for _ in range(count):
                    mixer.extend(torch.zeros(1, 1, 32), state)
            projections = count * 4 * 32 * 32
            work[count] = counted.count - projections
    assert 2 < work[1024] / work[512] <= 2.6
