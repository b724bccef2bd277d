"""Sampling: what follows a prompt, one token after the other, from a state and never from the start again.

The random numbers of sample i are a function of (seed, i): the same alone, in any batch and in any order.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Float64, Int64, Integer
from torch import Tensor

from dnasm.config import ModelConfig
from dnasm.errors import ConfigError
from dnasm.models.backbone import LanguageModel
from dnasm.vocabulary import A, T

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
) -> Iterator[Sample]:
    """Draw `n` continuations of a prompt. The prompt is read once; each token then costs one step of the state.

    Args:
        model: In eval mode.
        prompt: At least one token, on the model's device.
        n: Samples.
        how: How they are drawn.
        batch_size: Samples that go on side by side. More of them cost memory, and make no difference but rounding.
        first: Number of the first sample, for its random numbers.

    Yields:
        The samples in order.

    Raises:
        ConfigError: If a setting is out of range, or prompt and sample together are longer than the model takes.
    """
    how.check()
    if not len(prompt):
        raise ConfigError("the prompt is empty; a model needs at least one token to go on from")
    state = model.start(1, len(prompt) + how.length - 1)  # the last token that is drawn need not be read
    logits = model.extend(prompt[None], state)[:, -1]
    for start in range(0, n, batch_size):
        numbers = range(first + start, first + min(n, start + batch_size))
        branches = state.fork(len(numbers))
        run = _Run(how, drawable(model.config), numbers, logits.device)
        following = logits.expand(len(numbers), -1)
        while run.take(following):
            following = model.extend(run.tokens[:, run.count - 1 : run.count], branches)[:, 0]
        yield from run.samples()


class _Run:
    """Samples that are drawn side by side."""

    def __init__(self, how: Sampling, allowed: range, numbers: range, device: torch.device) -> None:
        self.how, self.allowed = how, allowed
        uniform = [_stream(how.seed, i).random(how.length) for i in numbers]
        self.uniform = torch.from_numpy(np.stack(uniform)).to(device)
        self.tokens = torch.zeros(len(numbers), how.length, dtype=torch.int64, device=device)
        self.log_probs = torch.zeros(len(numbers), how.length, dtype=torch.float64, device=device)
        self.ends = torch.full((len(numbers),), how.length, device=device)
        self.stopped = torch.zeros(len(numbers), dtype=torch.bool, device=device)
        self.count = 0

    def take(self, logits: Float[Tensor, "b v"]) -> bool:
        """Draw a token for each sample; return whether any of them goes on."""
        at = self.count
        values = logits[:, self.allowed.start : self.allowed.stop].double()
        chosen = choose(values, self.uniform[:, at], self.how)
        self.log_probs[:, at] = values.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
        self.tokens[:, at] = chosen + self.allowed.start
        self.count += 1
        if self.how.stop:
            now = self._completed() & ~self.stopped
            self.ends = torch.where(now, self.count, self.ends)
            self.stopped |= now
            if self.stopped.all():
                return False
        return self.count < self.how.length

    def _completed(self) -> Bool[Tensor, " b"]:
        found = torch.zeros_like(self.stopped)
        for pattern in self.how.stop:
            if len(pattern) <= self.count:
                recent = self.tokens[:, self.count - len(pattern) : self.count]
                found |= (recent == torch.tensor(pattern, device=recent.device)).all(1)
        return found

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
