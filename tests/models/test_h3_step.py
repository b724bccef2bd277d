"""The one-position form of H3 compiles whole, gives the same compiled, and runs where no compiler does."""

import logging
from inspect import unwrap
from typing import Any

import pytest
import torch
from torch import Tensor

from dnasm.config import ModelConfig
from dnasm.models.mixers import H3, h3_step

B, N, H, STATES = 2, 2, 3, 8


def _inputs() -> list[Any]:
    draw = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    d = N * H
    oscillators = [noise(B, N, N, 4, H) for _ in range(2)]
    planes = tuple(noise(4, H) for _ in range(6))
    signals = [noise(B, d) for _ in range(3)]
    return [
        *signals,
        noise(B, STATES, d),
        *oscillators,
        torch.tensor([13]),
        noise(2 * STATES, d),
        noise(d),
        planes,
        noise(H),
    ]


def test_it_compiles_whole_and_writes_the_same_state() -> None:
    plain, compiled = _inputs(), _inputs()
    compiled_step = torch.compile(
        unwrap(h3_step.step), backend="aot_eager", fullgraph=True
    )  # without the checks of shapes
    y = compiled_step(*compiled)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(y, h3_step.step(*plain))
    torch.testing.assert_close(compiled[3:6], plain[3:6])
    for i in (3, 4, 5):
        assert not torch.equal(plain[i], _inputs()[i]), "the keys and the oscillators went on"


@pytest.mark.parametrize("begun", [0, 5, 2 * STATES + 3])
def test_steps_are_the_convolutions_of_all_keys_so_far(begun: int) -> None:
    """From an empty ring, and from one that a piece left at some place; over two rounds and more, then a piece."""
    draw = torch.Generator().manual_seed(1)
    layer = H3(ModelConfig(family="h3", d_model=N * H, head_dim=N, state_size=STATES, max_length=None)).double()
    with torch.no_grad():
        for parameter in layer.parameters():  # no two taps are alike, so that no shift of the ring can hide
            parameter += 0.3 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
        sizes = [begun] * (begun > 0) + [1] * (2 * STATES + 5) + [4, 1, 1]
        x = torch.randn(B, sum(sizes), N * H, generator=draw, dtype=torch.float64)
        whole, state = layer(x), layer.start(B, x.shape[1])
        pieces = [layer.extend(part, state) for part in x.split(sizes, 1)]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-9, rtol=1e-7)


def test_where_no_compiler_works_it_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> Tensor:
        raise RuntimeError("cannot find Triton\nlong story")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    h3_step._compiled.cache_clear()
    expected = h3_step.step(*_inputs())
    with caplog.at_level(logging.WARNING):
        step = h3_step.best_step(torch.device("cuda"), again_and_again=True)
        for _ in range(2):
            torch.testing.assert_close(step(*_inputs()), expected)
    h3_step._compiled.cache_clear()
    assert [record.message for record in caplog.records if "uncompiled" in record.message] == [
        "H3's step runs uncompiled, and slower: cannot find Triton"
    ]
    assert h3_step.best_step(torch.device("cpu"), again_and_again=True) is h3_step.step
