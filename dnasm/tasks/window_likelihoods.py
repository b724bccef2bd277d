"""Log-likelihoods of windows of which many begin alike: a beginning is read once where the model can go on from it."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from dnasm.models.suffixes import PrefixReader, prefix_reader
from dnasm.tasks.forward_batches import BatchRunner, evaluating
from dnasm.tasks.likelihood import sum_log_probs
from dnasm.vocabulary import Tokens

_LEAST_PREFIX = 256  # bases; below, to go on from a beginning saves less than it costs


class Window(NamedTuple):
    """Tokens of one allele, how many of them may be shared with other windows, and the tokens of its reference."""

    tokens: bytes
    cut: int
    reference: bytes


class WindowReader:
    """Sums log-probabilities of windows. A value depends on its window, cut and reference alone."""

    def __init__(self, runner: BatchRunner) -> None:
        self._runner = runner
        self._prefixes = prefix_reader(runner.model)

    def sums(self, windows: Sequence[Window]) -> npt.NDArray[np.float64]:
        """Sum the log-probabilities of each window's bases, in nats.

        Where the model goes on from a shared beginning, what stands before the cut is left out of the sum: windows
        are compared with others of the same beginning and cut.
        """
        values = np.zeros(len(windows))
        whole: list[int] = []
        shapes: dict[tuple[int, int], dict[bytes, list[int]]] = defaultdict(lambda: defaultdict(list))
        for index, (tokens, cut, reference) in enumerate(windows):
            if self._prefixes is None or cut < _LEAST_PREFIX or len(tokens) <= cut:
                whole.append(index)
            else:
                shapes[cut, len(tokens) - cut][reference].append(index)
        values[whole] = sum_log_probs(self._runner, [_tokens(windows[index].tokens) for index in whole])
        if self._prefixes is not None:
            for (cut, room), members in shapes.items():
                self._read(self._prefixes, cut, room, windows, members, values)
        return values

    def _read(
        self,
        reader: PrefixReader,
        cut: int,
        room: int,
        windows: Sequence[Window],
        members: dict[bytes, list[int]],
        values: npt.NDArray[np.float64],
    ) -> None:
        """Read all windows of one length and cut: some beginnings at a time, then all that follows these."""
        device = self._runner.device
        at_once = 1 if device.type == "cuda" else torch.get_num_threads()  # a thread reads rows of its own
        in_turn = 1 if device.type == "cuda" else reader.in_turn

        def begin(references: Sequence[bytes]) -> Any:
            whole = _stack(references).to(device)
            return reader.read(whole[:, :cut], whole[:, cut:])

        with evaluating(self._runner.model):
            for references, held in self._runner.in_batches(list(members), -(-(cut + room) // at_once), begin):
                jobs = [(row, index) for row, reference in enumerate(references) for index in members[reference]]

                def go_on(jobs: Sequence[tuple[int, int]], held: Any = held) -> npt.NDArray[np.float64]:
                    suffixes = _stack([windows[index].tokens[cut:] for _, index in jobs]).to(device)
                    rows = reader.log_probs(held, [row for row, _ in jobs], suffixes).cpu().numpy()
                    return np.array([row.sum(dtype=np.float64) for row in rows])

                for chosen, sums in self._runner.in_batches(jobs, -(-room // (at_once * in_turn)), go_on):
                    values[[index for _, index in chosen]] = sums


def _tokens(window: bytes) -> Tokens:
    return np.frombuffer(window, np.uint8)


def _stack(rows: Sequence[bytes]) -> torch.Tensor:
    return torch.from_numpy(np.stack([_tokens(row) for row in rows]))
