"""One step after the other: on a GPU each is the replay of one CUDA graph, so that no time goes into launches.

A graph repeats the same kernels on the same memory. So a state that is replayed keeps its tensors, takes its position
from the device (`MixerState.place`), and works on shapes that do not follow the position one by one. What they do
follow is the state's `schedule`, and there is one graph for each that occurs:

- H3, modal, short and dilated filters: one in all.
- Attention: it looks at the first 64, 128, 256 ... places of its cache and masks what is not there yet; one for each.
- Hyena: one for each size of tile, log2 of the capacity.
"""

from collections.abc import Callable
from dataclasses import fields

import torch
from torch import Tensor

from dnasm.models.state import DecodingState, MixerState


class Replay:
    """Runs `body` again and again; it extends `state` by one position, and works on tensors that stay in place.

    A schedule's first step runs as it is, which also warms libraries up; its second records the graph.
    """

    def __init__(self, state: DecodingState, body: Callable[[], None], *, graphs: bool, compiled: bool = True) -> None:
        """Take what is to be repeated.

        Args:
            state: Will be held in place.
            body: What a step does: calls `model.extend` with one position, and no other state.
            graphs: Whether to record; on a GPU alone.
            compiled: Whether parts of the body are compiled, on a GPU: it takes seconds, once for a process.
        """
        self.state, self.body, self.graphs = state, body, graphs
        state.again = compiled
        self._recorded: dict[tuple[int, ...], torch.cuda.CUDAGraph | None] = {}
        device = next(t for layer in state.layers for t in _tensors(layer).values()).device
        self._place = torch.full((1,), state.position, device=device)
        for layer in state.layers:
            layer.place, layer.again = self._place, compiled
        self._pool = torch.cuda.graph_pool_handle() if graphs else None

    def step(self) -> None:
        """Run the body once."""
        schedule = tuple(part for layer in self.state.layers for part in layer.schedule())
        if not self.graphs or schedule not in self._recorded:
            self._in_place()
            self._recorded[schedule] = None
            return
        graph = self._recorded[schedule]
        if graph is None:
            graph = self._recorded[schedule] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):  # runs nothing, but counts the position
                self._in_place()
        else:
            self.state.advance(1)
            for layer in self.state.layers:
                layer.position += 1
        graph.replay()

    @property
    def schedules(self) -> list[tuple[int, ...]]:
        """Those met so far."""
        return list(self._recorded)

    @property
    def num_graphs(self) -> int:
        """Graphs recorded so far: of schedules that came at least twice."""
        return sum(graph is not None for graph in self._recorded.values())

    def restart(self, state: DecodingState) -> None:
        """Go on from another state of this model and these shapes, whose numbers are copied; what is recorded stays."""
        for layer, other in zip(self.state.layers, state.layers, strict=True):
            for name, tensor in _tensors(layer).items():
                tensor.copy_(getattr(other, name))
            counts = {f.name: getattr(other, f.name) for f in fields(other) if type(getattr(other, f.name)) is int}
            for name, count in counts.items():
                setattr(layer, name, count)
        self.state.position = state.position
        self._place.fill_(state.position)

    def _in_place(self) -> None:
        """Run the body, then put what it made anew where it was before."""
        before = [_tensors(layer) for layer in self.state.layers]
        self.body()
        for layer, held in zip(self.state.layers, before, strict=True):
            for name, tensor in _tensors(layer).items():
                if tensor is not held[name]:
                    held[name].copy_(tensor)
                    setattr(layer, name, held[name])
        self._place += 1


def _tensors(layer: MixerState) -> dict[str, Tensor]:
    values = {f.name: getattr(layer, f.name) for f in fields(layer) if f.name != "place"}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
