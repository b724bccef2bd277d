"""Run a model over many sequences in batches, so that each result is independent of the batch it came in."""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dnasm import vocabulary
from dnasm.config import ModelConfig
from dnasm.errors import ConfigError, InputError
from dnasm.vocabulary import Tokens

BatchSize = int | Literal["auto"]
Item = TypeVar("Item")
Result = TypeVar("Result")
Compute = Callable[[Tensor], Tensor]
"""Token ids (b, l) on the model's device to one row of results for each sequence."""

# Bases in a forward call under `auto`. A CPU gains nothing beyond what its caches hold; a GPU wants to be full,
# and halves the batch when its memory does not suffice.
_AUTO_BASES = {"cpu": 8_192, "cuda": 524_288}


class BatchRunner:
    """Runs one model in evaluation mode without gradients.

    Sequences of one length share a batch. Where `pad` is set, a causal model's sequences are filled up on the right
    to a length that follows from their own alone, which leaves what comes before as it is and makes batches fuller.
    """

    def __init__(self, model: nn.Module, batch_size: BatchSize = "auto", *, pad: bool = False) -> None:
        require_model(model)
        if batch_size != "auto" and batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1 or 'auto', got {batch_size}")
        parameter = next(model.parameters(), None)
        self.model = model
        self.device = torch.device("cpu") if parameter is None else parameter.device
        self.max_length = longest_input(model)
        self.calls = 0
        """Forward calls so far."""
        self._fixed = None if batch_size == "auto" else int(batch_size)
        self._told = False
        self._auto_bases = _AUTO_BASES.get(self.device.type, _AUTO_BASES["cpu"])
        config = getattr(model, "config", None)
        self._pad = pad and (not isinstance(config, ModelConfig) or config.causal)  # others see the padding

    def run(self, sequences: Sequence[Tokens], compute: Compute) -> list[npt.NDArray[Any]]:
        """Apply `compute` to all sequences; results stand in their order."""
        results: list[npt.NDArray[Any] | None] = [None] * len(sequences)
        with evaluating(self.model):
            for length, members in self._groups(sequences):
                for chosen, rows in self._batches(sequences, length, members, compute):
                    for index, row in zip(chosen, rows, strict=True):
                        results[index] = row
        return [row for row in results if row is not None]

    def size(self, length: int) -> int:
        """Sequences of this length in a forward call."""
        return max(1, self._auto_bases // length) if self._fixed is None else self._fixed

    def _groups(self, sequences: Sequence[Tokens]) -> list[tuple[int, list[int]]]:
        groups: dict[int, list[int]] = defaultdict(list)
        for index, sequence in enumerate(sequences):
            groups[self._padded(len(sequence))].append(index)
        return list(groups.items())

    def _padded(self, length: int) -> int:
        if not self._pad:
            return length
        # An eighth more at most, so that a few dozen lengths cover all inputs.
        step = max(8, 1 << max(0, length.bit_length() - 4))
        rounded = -(-length // step) * step
        return rounded if self.max_length is None else max(length, min(rounded, self.max_length))

    def _batches(
        self, sequences: Sequence[Tokens], length: int, members: list[int], compute: Compute
    ) -> Iterator[tuple[Sequence[int], npt.NDArray[Any]]]:
        def run(chosen: Sequence[int]) -> npt.NDArray[Any]:
            batch = np.full((len(chosen), length), vocabulary.PAD, dtype=np.uint8)
            for row, index in enumerate(chosen):
                batch[row, : len(sequences[index])] = sequences[index]
            return compute(torch.from_numpy(batch).to(self.device)).cpu().numpy()

        return self.in_batches(members, length, run)

    def in_batches(
        self, members: Sequence[Item], length: int, work: Callable[[Sequence[Item]], Result]
    ) -> Iterator[tuple[Sequence[Item], Result]]:
        """Do work on as many members at once as fit, and on half as many after each lack of memory.

        Args:
            members: What there is to do.
            length: Bases that the work on one member reads.
            work: One forward call.

        Yields:
            The members of each call, and what it returned.

        Raises:
            ConfigError: If there is no room for a single one.
        """
        done = 0
        while done < len(members):
            chosen = members[done : done + self.size(length)]
            try:
                self.calls += 1
                result = work(chosen)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(len(chosen), length)
                continue
            yield chosen, result
            done += len(chosen)

    def _halve(self, size: int, length: int) -> None:
        if size == 1:
            raise ConfigError(
                f"{self.device} has no room for a single sequence of {length} bases{predicted(self.model, length, 1)}; "
                "take shorter ones (--window), --dtype bfloat16 or --device cpu"
            )
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if not self._told:
            self._told = True
            print(
                f"dnasm: {self.device} is full at {size} x {length:,} bases; halving the batch until it fits",
                file=sys.stderr,
            )
        self._auto_bases = size // 2 * length
        self._fixed = None if self._fixed is None else size // 2


def require_model(model: object) -> None:
    """Refuse what is no model, most often the name of one.

    Raises:
        ConfigError: Says how a name becomes a model.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model is {model!r:.60}; it must be a model, such as dnasm.load(DIRECTORY) returns")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell a lack of memory from other errors; on a CPU torch raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def predicted(model: nn.Module, length: int, batch: int, *, training: bool = False) -> str:
    """Say what `ModelConfig.memory` predicts, for a message; nothing where a model has no such config."""
    config = getattr(model, "config", None)
    if not isinstance(config, ModelConfig):
        return ""
    verb = "need" if batch > 1 else "needs"
    return f", which {verb} about {config.memory(length, batch, training=training) / 1e9:.2g} GB in float32"


@contextmanager
def memory_told(model: nn.Module, length: int, batch: int, advice: str, *, training: bool = False) -> Iterator[None]:
    """Turn a lack of memory into an error that says how much the work needs.

    Args:
        model: What reads.
        length: Tokens of a sequence.
        batch: Sequences at once.
        advice: What would need less.
        training: Whether a gradient is computed.

    Raises:
        ConfigError: In place of the error that tells of too little memory; others pass.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        what = f"{batch:,} sequences of {length:,} tokens" if batch > 1 else f"a sequence of {length:,} tokens"
        raise ConfigError(
            f"no room for {what}{predicted(model, length, batch, training=training)}; {advice}"
        ) from error


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout and gradients off, and the model's mode back afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def longest_input(model: nn.Module) -> int | None:
    """Read a model's longest input off its config; None: no limit is known."""
    return getattr(getattr(model, "config", None), "max_length", None)


def encode_all(sequences: Sequence[str | Tokens], max_length: int | None, shortest: int = 1) -> list[Tokens]:
    """Turn letters into tokens and check every length.

    Raises:
        InputError: If there is a single string where a list is wanted, a letter that is no base, or a sequence
            that is too short or longer than the model's `max_length`; with its index.
    """
    if isinstance(sequences, str | bytes):
        raise InputError("expected a list of sequences, got one string; put it in brackets")
    encoded = []
    for index, sequence in enumerate(sequences):
        try:
            tokens = vocabulary.encode(sequence) if isinstance(sequence, str) else np.asarray(sequence, dtype=np.uint8)
        except ValueError as error:
            raise InputError(f"sequence {index}: {error}") from None
        check_length(f"sequence {index}", len(tokens), max_length, shortest)
        encoded.append(tokens)
    return encoded


def check_length(what: str, length: int, max_length: int | None, shortest: int = 1) -> None:
    """Refuse a sequence that a model cannot take.

    Raises:
        InputError: If it is shorter than `shortest` or longer than `max_length`.
    """
    if length < shortest:
        raise InputError(f"{what} has {length} bases; at least {shortest} are needed")
    if max_length is not None and length > max_length:
        raise InputError(
            f"{what} has {length} bases, the model takes at most {max_length}; "
            "cut it into pieces or take a model with a longer context"
        )


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a setting that is none of its values.

    Raises:
        ConfigError: Lists what it may be.
    """
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
