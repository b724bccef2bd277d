"""`dnasm bench models`: Hyena on a CPU beside the same layer written in the obvious way, in plain PyTorch.

The obvious way is that of HyenaDNA's stand-alone file: a depthwise `Conv1d` that is cut to length, gates as products,
and `irfft(rfft(v, 2 l) * rfft(k, 2 l))` over whole tensors. Both sides hold the same weights and make their filters by
the same MLP inside the time; what differs is what a layer does with them. The mixer is timed between its projections,
then the whole model; memory is the peak of a process of its own.
"""

import ctypes
import itertools
import os
import resource
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import conv1d, cross_entropy

from dnasm.config import BenchConfig
from dnasm.models import LanguageModel, build_model
from dnasm.models.backbone import Block
from dnasm.models.mixers import Hyena
from dnasm.presets import preset
from dnasm.tasks.bench import Row, race, say


@dataclass(frozen=True)
class Case:
    """A model and what it reads at once."""

    preset: str
    length: int
    batch: int

    def build(self) -> LanguageModel:
        """The model with fresh weights, without dropout."""
        torch.manual_seed(0)
        return build_model(replace(preset(self.preset), embedding_dropout=0.0))


CASES = (
    Case("hyenadna-tiny-1k", 1024, 16),
    Case("hyenadna-tiny-1k-d256", 1024, 16),
    Case("hyenadna-tiny-16k", 16_384, 2),
)


class Plain(nn.Module):
    """A Hyena mixer without any of this package's operators, with the weights of one that has them."""

    def __init__(self, mixer: Hyena) -> None:
        super().__init__()
        self.in_proj, self.short_filter, self.out_proj = mixer.in_proj, mixer.short_filter, mixer.out_proj
        self.filter_fn = mixer.filter_fn

    def forward(self, x: Tensor) -> Tensor:
        """Mix (b, l, d)."""
        y = self.mix(rearrange(self.in_proj(x), "b l e -> b e l"))
        return self.out_proj(rearrange(y, "b d l -> b l d"))

    def mix(self, u: Tensor) -> Tensor:
        """What lies between the projections."""
        length, taps = u.shape[-1], self.short_filter.weight.shape[-1]
        weight, bias = self.short_filter.weight, self.short_filter.bias
        x0, x1, v = conv1d(u, weight, bias, padding=taps - 1, groups=len(weight))[..., :length].chunk(3, 1)
        v = v * x1
        spectrum = torch.fft.rfft(self.filter_fn(length), 2 * length) / (2 * length)
        y = torch.fft.irfft(torch.fft.rfft(v, 2 * length) * spectrum, 2 * length, norm="forward")[..., :length]
        return x0 * (y + self.filter_fn.bias[:, None] * v)


def plain_model(model: LanguageModel) -> LanguageModel:
    """Copy a model, its mixers made plain."""
    other = deepcopy(model)
    for layer in other.backbone.layers:
        block = cast(Block, layer)
        block.mixer = Plain(cast(Hyena, block.mixer))
    return other


Work = Callable[[int], object]


def _works(case: Case, part: str, training: bool) -> tuple[Work, Work]:
    """Both contenders' calls: ours, then the plain one."""
    model = case.build().train(training)
    both = (model, plain_model(model))
    draw = torch.Generator().manual_seed(0)
    if part == "model":
        tokens = torch.randint(7, 11, (case.batch, case.length), generator=draw)
        step = _train_model if training else _read_model
        return partial(step, both[0], tokens), partial(step, both[1], tokens)
    mixers = [cast(Hyena | Plain, cast(Block, m.backbone.layers[0]).mixer) for m in both]
    width = 3 * model.config.d_model
    # As a projection leaves it: positions apart, channels side by side.
    u = rearrange(torch.randn(case.batch, case.length, width, generator=draw), "b l e -> b e l")
    step_ = _train_mixer if training else _read_mixer
    return partial(step_, mixers[0], u), partial(step_, mixers[1], u)


def _read_mixer(mixer: Hyena | Plain, u: Tensor, turn: int) -> Tensor:
    with torch.inference_mode():
        return mixer.mix(u)


def _train_mixer(mixer: Hyena | Plain, u: Tensor, turn: int) -> None:
    mixer.zero_grad()
    y = mixer.mix(u.detach().requires_grad_())
    y.backward(torch.ones_like(y))  # type: ignore[no-untyped-call]


def _read_model(model: LanguageModel, tokens: Tensor, turn: int) -> Tensor:
    with torch.inference_mode():
        return model(tokens)


def _train_model(model: LanguageModel, tokens: Tensor, turn: int) -> None:
    model.zero_grad()
    logits = model(tokens)
    cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]


def rows(config: BenchConfig) -> Iterator[Row]:
    """Yield a row for each shape, for the mixer and for the model, reading and learning."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if sys.platform == "linux":
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 1 << 20)
    for case, part, training in itertools.product(CASES, ("mixer", "model"), (False, True)):
        if config.lengths and case.length not in config.lengths:
            continue
        mode = "training" if training else "inference"
        say(f"models: {case.preset}, batch {case.batch}, {part}, {mode}")
        ours, theirs = _works(case, part, training)
        yield {
            "model": case.preset,
            "length": case.length,
            "batch": case.batch,
            "part": part,
            "mode": mode,
            "contender": "plain torch, whole-tensor rfft",
            "threads": torch.get_num_threads(),
            **race(ours, theirs, config.repeats).summary(),
            "ours_peak_bytes": _peak(ours),
            "theirs_peak_bytes": _peak(theirs),
        }


_MMAP_THRESHOLD = -3  # of mallopt: larger blocks go back to the system when they are freed, so that peaks are seen


def _peak(work: Work) -> int | None:
    """Bytes that one call adds to a process at most: to a fork, whose peak begins with what it was given."""
    if sys.platform != "linux":
        return None
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # the parent's threads are not there
        before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        work(0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        os.write(writer, str(peak - before).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        size = int(answer.read())
    os.waitpid(child, 0)
    return size
