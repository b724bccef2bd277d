"""Sampling: what follows a prompt, one token after the other, from a state and never from the start again.

The random numbers of sample i are a function of (seed, i): the same alone, in any batch and in any order.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Float64, Int64, Integer
from torch import Tensor

from dnasm.config import ModelConfig
from dnasm.errors import ConfigError
from dnasm.memory import mixers
from dnasm.models.backbone import LanguageModel
from dnasm.models.replay import Replay
from dnasm.models.state import DecodingState
from dnasm.vocabulary import A, T

_WORTH_COMPILING = 100_000  # steps of one H3 layer: nine seconds to compile, about 0.1 ms less for each on an H200
_TEXT_TOKENS = 50_257  # of GPT-2; the rows after them are padding


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn, and when a sample ends."""

    length: int = 100
    """Tokens in a sample, at most."""
    temperature: float = 1.0
    """Logits are divided by it; 0 takes the likeliest token every time."""
    top_k: int | None = None
    """Only this many of the likeliest tokens can be drawn; None: all."""
    top_p: float = 1.0
    """Only the likeliest tokens that together reach this probability can be drawn."""
    stop: tuple[tuple[int, ...], ...] = ()
    """A sample ends with the first of these token strings that it completes by itself, the prompt aside."""
    seed: int = 0
    """With the number of a sample it gives all its random numbers."""

    def check(self) -> None:
        """Raise ConfigError for a setting that is out of its range."""
        for wrong, message in (
            (self.length < 1, f"length is {self.length}; it must be at least 1"),
            (not 0 <= self.temperature < float("inf"), f"temperature is {self.temperature}; it must be 0 or above"),
            (self.top_k is not None and self.top_k < 1, f"top_k is {self.top_k}; it must be at least 1, or null"),
            (not 0 < self.top_p <= 1, f"top_p is {self.top_p}; it must be above 0 and at most 1"),
            (any(not pattern for pattern in self.stop), "stop holds an empty pattern, which would end every sample"),
        ):
            if wrong:
                raise ConfigError(message)


@dataclass(frozen=True)
class Sample:
    """What was drawn after a prompt."""

    tokens: npt.NDArray[np.int64]
    log_likelihood: float
    """Of the tokens, given the prompt, in nats: as the model has it, whatever temperature they were drawn at."""
    stopped: bool
    """Whether a stop pattern ended it."""


def drawable(config: ModelConfig) -> range:
    """Tokens that can be drawn: A, C, G, T alone, or every token of a text vocabulary."""
    return range(A, T + 1) if config.vocabulary == "dna" else range(_TEXT_TOKENS)


@torch.inference_mode()
def sample(
    model: LanguageModel,
    prompt: Integer[Tensor, " l"],
    n: int,
    how: Sampling,
    *,
    batch_size: int = 32,
    first: int = 0,
    graphs: bool | None = None,
    told: Callable[[int], None] | None = None,
    calls: int = 1,
) -> Iterator[Sample]:
    """Draw `n` continuations of a prompt. The prompt is read once; each token then costs one step of the state.

    Args:
        model: In eval mode.
        prompt: At least one token, on the model's device.
        n: Samples.
        how: How they are drawn.
        batch_size: Samples that go on side by side. More of them cost memory, and make no difference but rounding.
        first: Number of the first sample, for its random numbers.
        graphs: Whether a step, from the draw to the next logits, replays a CUDA graph; None: on a GPU. A model that
            cannot be recorded (hooks that talk to the host) takes False.
        told: Hears how many more tokens have been drawn, step by step; in all `n` times the length, whatever stopped
            early.
        calls: Calls like this one that the caller makes in all. A GPU's steps are compiled where there are enough of
            H3's layers, which takes about nine seconds, once for a process.

    Yields:
        The samples in order.

    Raises:
        ConfigError: If a setting is out of range, or prompt and sample together are longer than the model takes.
    """
    how.check()
    if not len(prompt):
        raise ConfigError("the prompt is empty; a model needs at least one token to go on from")
    state = model.start(1, len(prompt) + how.length - 1)  # the last token that is drawn need not be read
    logits = model.extend(prompt[None], state, only_last=True)[:, 0]
    steps = calls * how.length * math.ceil(n / batch_size)
    compiled = steps * mixers(model.config).count("h3") >= _WORTH_COMPILING
    for start in range(0, n, batch_size):
        numbers = range(first + start, first + min(n, start + batch_size))
        run = _Run(how, drawable(model.config), numbers, logits)
        recorded = logits.is_cuda if graphs is None else graphs
        for count in _draw(model, state.fork(len(numbers)), run, graphs=recorded, compiled=compiled):
            if told is not None:
                told(count * len(numbers))
        yield from run.samples()


def _draw(model: LanguageModel, state: DecodingState, run: "_Run", *, graphs: bool, compiled: bool) -> Iterator[int]:
    """Draw all tokens of a run, of which the last is not read; yield how many each step leaves less to do."""

    def step() -> None:
        run.logits.copy_(model.extend(run.take(), state)[:, 0])

    steps = Replay(state, step, graphs=graphs, compiled=compiled) if graphs else None
    for left in range(run.how.length - 1, 0, -1):
        if steps is None:
            step()
        else:
            steps.step()
        if run.all_stopped():
            yield left + 1
            return
        yield 1
    run.take()
    yield 1


class _Run:
    """Samples that are drawn side by side. Its tensors stay in place, so that drawing can be replayed."""

    def __init__(self, how: Sampling, allowed: range, numbers: range, logits: Float[Tensor, "1 v"]) -> None:
        count, device = len(numbers), logits.device
        self.how, self.allowed = how, allowed
        self.logits = logits.repeat(count, 1)
        """What the next tokens are drawn from."""
        uniform = [_stream(how.seed, i).random(how.length) for i in numbers]
        self.uniform = torch.from_numpy(np.stack(uniform)).to(device)
        self.tokens = torch.zeros(count, how.length, dtype=torch.int64, device=device)
        self.log_probs = torch.zeros(count, how.length, dtype=torch.float64, device=device)
        self.ends = torch.full((count,), how.length, device=device)
        self.stopped = torch.zeros(count, dtype=torch.bool, device=device)
        self.at = torch.zeros(1, dtype=torch.int64, device=device)
        self._stop = [torch.tensor(pattern, device=device) for pattern in how.stop]

    def take(self) -> Int64[Tensor, "b 1"]:
        """Draw a token for each sample and note it."""
        values = self.logits[:, self.allowed.start : self.allowed.stop].double()
        chosen = choose(values, self.uniform.index_select(1, self.at)[:, 0], self.how)[:, None]
        drawn = chosen + self.allowed.start
        self.log_probs.index_copy_(1, self.at, values.log_softmax(-1).gather(1, chosen))
        self.tokens.index_copy_(1, self.at, drawn)
        self.at += 1
        for pattern in self._stop:
            places = self.at - torch.arange(len(pattern), 0, -1, device=self.at.device)
            recent = self.tokens.index_select(1, places.clamp(min=0))
            now = (recent == pattern).all(1) & (self.at >= len(pattern)) & ~self.stopped
            self.ends.copy_(torch.where(now, self.at, self.ends))
            self.stopped |= now
        return drawn

    def all_stopped(self) -> bool:
        """Tell whether every sample has met its stop pattern."""
        return bool(self.how.stop) and bool(self.stopped.all())

    def samples(self) -> Iterator[Sample]:
        """Cut each sample at its end."""
        tokens, log_probs = self.tokens.cpu().numpy(), self.log_probs.cpu().numpy()
        for row, (end, stopped) in enumerate(zip(self.ends.tolist(), self.stopped.tolist(), strict=True)):
            yield Sample(tokens[row, :end].copy(), float(log_probs[row, :end].sum()), stopped)


def _stream(seed: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, number], dtype=np.uint64)))


def choose(logits: Float64[Tensor, "b n"], uniform: Float64[Tensor, " b"], how: Sampling) -> Int64[Tensor, " b"]:
    """Pick one entry of each row: a uniform number in [0, 1) is looked up among the summed probabilities.

    The likeliest entry comes first, so that top-k and top-p are the beginning of the row; equal ones keep their order.
    """
    if how.temperature == 0:
        return logits.argmax(-1)
    probabilities, order = (logits / how.temperature).softmax(-1).sort(stable=True, dim=-1, descending=True)
    before = probabilities.cumsum(-1) - probabilities
    kept = before < how.top_p
    if how.top_k is not None:
        kept[:, how.top_k :] = False
    bounds = probabilities.where(kept, 0.0).cumsum(-1)
    place = torch.searchsorted(bounds, (uniform * bounds[:, -1])[:, None], right=True)
    return order.gather(1, place.minimum(kept.sum(-1, keepdim=True) - 1))[:, 0]
