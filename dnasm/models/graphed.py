"""A training step's loss and gradients as one CUDA graph.

A step of a small model is hundreds of short kernels, which a GPU finishes sooner than a host can launch them one by
one. Recorded once, they are launched together.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dnasm.errors import ConfigError

WORTH_TOKENS = 1 << 27
"""Tokens times channels times layers of a step, up to which it is recorded. Above, on an H200, kernels take longer than
their launches, and a recording holds more than 5 GiB that nothing else can use."""
_PLAIN_CALLS = 2  # before a recording: they compile, load kernels and warm libraries up


class GraphedLoss:
    """Stands for a loss function whose inputs keep their shapes; gradients reach the parameters as they would.

    The first two calls of a shape run as they are, the third is recorded, and replayed from then on. A replay runs
    forward and backward together: a loss has its gradients until the next call.
    """

    def __init__(self, loss: Callable[..., Tensor], parameters: Iterable[nn.Parameter]) -> None:
        """Take what is to be repeated: tensors on a GPU in, a scalar out, and no word from the host in between."""
        self._loss = loss
        self._parameters = [p for p in parameters if p.requires_grad]
        self._shapes: list[torch.Size] = []
        self._calls = 0
        self._recording: _Recording | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return the loss.

        Raises:
            ConfigError: If the step cannot be recorded.
        """
        shapes = [x.shape for x in inputs]
        if shapes != self._shapes:  # another length: the memory of the last recording goes back
            self._shapes, self._calls, self._recording = shapes, 0, None
        self._calls += 1
        if self._calls <= _PLAIN_CALLS:
            return self._loss(*inputs)
        if self._recording is None:
            self._recording = _Recording(self._loss, self._parameters, inputs)
        self._recording.replay(inputs)
        value: Tensor = _Replayed.apply(self._recording, *self._parameters)  # type: ignore[no-untyped-call]
        return value


class _Recording:
    """One CUDA graph, with the tensors that it reads and writes."""

    def __init__(
        self, loss: Callable[..., Tensor], parameters: Sequence[nn.Parameter], inputs: Sequence[Tensor]
    ) -> None:
        self._inputs = [x.clone() for x in inputs]
        self._graph = torch.cuda.CUDAGraph()
        self.replays = 0
        torch.clear_autocast_cache()  # weights cast before would stay as they were
        try:
            # Other threads go on meanwhile: a loader's may pin memory, which the default would refuse.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                value = loss(*self._inputs)
                found = torch.autograd.grad(value, parameters, allow_unused=True)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"the step could not be recorded as a CUDA graph ({first}): set trainer.cuda_graph false"
            ) from error
        # The casts of the recording lie in its memory, and would keep its stream for the weights' gradients.
        torch.clear_autocast_cache()
        self.value = value.detach()
        self.used = [i for i, gradient in enumerate(found) if gradient is not None]
        self.gradients = [gradient for gradient in found if gradient is not None]

    def replay(self, inputs: Sequence[Tensor]) -> None:
        """Compute value and gradients for these."""
        for held, x in zip(self._inputs, inputs, strict=True):
            held.copy_(x, non_blocking=True)
        self._graph.replay()
        self.replays += 1


class _Replayed(torch.autograd.Function):
    """The loss of a recording just replayed, whose gradients are there already."""

    @staticmethod
    def forward(ctx: Any, recording: _Recording, *parameters: nn.Parameter) -> Tensor:
        ctx.recording, ctx.replay, ctx.count = recording, recording.replays, len(parameters)
        return recording.value.clone()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.replay != ctx.recording.replays:
            raise RuntimeError("the gradients of this loss are gone: another was computed since")
        given: list[Tensor | None] = [None] * (1 + ctx.count)
        # New tensors, since the next replay writes over the recording's own.
        for i, gradient in zip(ctx.recording.used, torch._foreach_mul(ctx.recording.gradients, outer[0]), strict=True):
            given[1 + i] = gradient
        return tuple(given)
