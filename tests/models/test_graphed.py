"""A recorded step gives the loss and the gradients of a plain one; a stand-in records where there is no GPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dnasm.errors import ConfigError
from dnasm.models import graphed
from dnasm.models.graphed import GraphedLoss


class Model(nn.Module):
    """A product whose loss is counted each time that it runs, and a weight that no loss uses."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.unused = nn.Parameter(torch.randn(3, 3)), nn.Parameter(torch.randn(3))
        self.runs = 0

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.runs += 1
        return (x @ self.weight - y).square().mean()


class StandIn:
    """A graph that is replayed by computing again, into the tensors that the recording made."""

    def __init__(self) -> None:
        self.recording: Any = None

    def replay(self) -> None:
        again = self.recording
        value = again.loss(*again._inputs)
        found = torch.autograd.grad(value, again.parameters, allow_unused=True)
        again.value.copy_(value.detach())
        for held, gradient in zip(again.gradients, (g for g in found if g is not None), strict=True):
            held.copy_(gradient)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def record(graph: StandIn, **options: str) -> Iterator[None]:
        assert options == {"capture_error_mode": "thread_local"}
        yield

    class Recording(graphed._Recording):
        def __init__(self, loss: Callable[..., Tensor], parameters: list[nn.Parameter], inputs: Any) -> None:
            self.loss, self.parameters = loss, parameters
            super().__init__(loss, parameters, inputs)
            self._graph.recording = self  # type: ignore[attr-defined]

    monkeypatch.setattr("torch.cuda.CUDAGraph", StandIn)
    monkeypatch.setattr("torch.cuda.graph", record)
    monkeypatch.setattr(graphed, "_Recording", Recording)


def batches(count: int, rows: int = 4) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(rows, 3), torch.randn(rows, 3)) for _ in range(count)]


@pytest.mark.usefixtures("recorded")
def test_losses_and_gradients_are_the_plain_ones() -> None:
    model, given = Model(), [*batches(5), *batches(4, rows=2)]
    step = GraphedLoss(model, model.parameters())
    for x, y in given:
        loss = step(x, y)
        (3 * loss).backward()  # type: ignore[no-untyped-call]
        held, model.weight.grad = model.weight.grad, None
        assert held is not None
        expected = model(x, y)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(held, torch.autograd.grad(3 * expected, model.weight)[0])
        assert model.unused.grad is None


@pytest.mark.usefixtures("recorded")
def test_gradients_add_up_over_batches_and_outlive_the_next_replay() -> None:
    model, given = Model(), batches(6)
    step = GraphedLoss(model, model.parameters())
    for x, y in given[:4]:
        step(x, y)
    for x, y in given[4:]:
        (step(x, y) / 2).backward()  # type: ignore[no-untyped-call]
    expected = torch.autograd.grad(sum((model(x, y) for x, y in given[4:]), torch.zeros(())) / 2, model.weight)[0]
    torch.testing.assert_close(model.weight.grad, expected)


@pytest.mark.usefixtures("recorded")
def test_casts_of_weights_are_neither_taken_into_a_recording_nor_left_by_it() -> None:
    casts: list[bool] = []

    class Watched(Model):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            casts.append(_is_cast(self.weight))
            return super().forward(x, y)

    model = Watched()
    step = GraphedLoss(model, model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        for x, y in batches(3):
            step(x, y)
            left = _is_cast(model.weight)
    assert casts[:3] == [False, True, False]
    assert not left


def _is_cast(weight: nn.Parameter) -> bool:
    """Whether autocast holds a copy: it keeps the weight's node alive, and what was noted there."""
    node: Any = weight.view_as(weight).grad_fn
    noted: bool = node.next_functions[0][0].metadata.setdefault("noted", False)
    node.next_functions[0][0].metadata["noted"] = True
    return noted


@pytest.mark.usefixtures("recorded")
def test_a_loss_whose_gradients_are_gone_says_so() -> None:
    model = Model()
    step = GraphedLoss(model, model.parameters())
    losses = [step(x, y) for x, y in batches(4)]
    with pytest.raises(RuntimeError, match="another was computed since"):
        losses[2].backward()  # type: ignore[no-untyped-call]


@pytest.mark.usefixtures("recorded")
def test_what_cannot_be_recorded_names_the_way_out() -> None:
    def waits(x: Tensor) -> Tensor:
        if calls.append(x) or len(calls) > 2:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return x.sum()

    calls: list[Tensor] = []
    step = GraphedLoss(waits, [])
    for _ in range(2):
        step(torch.ones(2))
    with pytest.raises(ConfigError, match=r"\(operation not permitted .*\): set trainer.cuda_graph false"):
        step(torch.ones(2))
