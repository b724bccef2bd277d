"""The three convolutions of StripedHyena 2: short explicit, medium regularised and long modal filters."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn.functional import pad

from dnasm.config import ModelConfig
from dnasm.models.filters import DiagonalSteps, ExplicitFilter, ModalFilter
from dnasm.models.state import MixerState
from dnasm.ops import fftconv, short_conv


@dataclass
class MultihybridState(MixerState):
    """What the convolutions need of the past: inputs of the short one, and inputs or modes of the filter."""

    recent: Float[Tensor, "b e past"]
    held: Float[Tensor, "b d reach"] | None
    """SE and MR: as many inputs as the filter has taps, less one."""
    modes: Complex[Tensor, "b d n"] | None
    """LI: one number for each mode."""
    steps: DiagonalSteps | None


class Multihybrid(nn.Module):
    """`out_proj(x0 * (k conv (x1 * v)))` with x0, x1, v from a projection and a short convolution.

    k is a few taps shared by a group of channels (`se`), more of them that decay (`mr`), or a sum of decaying
    exponentials (`li`), which has no end and steps in constant time.

    Source: Ku et al. 2025, "Systems and algorithms for convolutional multi-hybrid language models at scale".
    """

    residual_projection = "out_proj"

    def __init__(self, config: ModelConfig, kind: str) -> None:
        super().__init__()
        d, sides = config.d_model, 1 + config.bidirectional
        self.bidirectional = config.bidirectional
        self.in_proj = nn.Linear(d, 3 * d)
        self.out_proj = nn.Linear(d, d)
        self.short_filter = nn.Conv1d(3 * d, 3 * d, config.short_filter, groups=3 * d)
        self.filter_fn: ExplicitFilter | ModalFilter
        if kind == "li":
            self.filter_fn = ModalFilter(d, config.modes, sides)
        else:
            taps = config.short_taps if kind == "se" else config.medium_taps
            self.filter_fn = ExplicitFilter(d, taps, config.filter_group, decays=kind == "mr", sides=sides)

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        x0, x1, v = self._short(rearrange(self.in_proj(x), "b l d -> b d l")).chunk(3, 1)
        y = fftconv(v, self.filter_fn(x.shape[1]), in_gate=x1, out_gate=x0, bidirectional=self.bidirectional)
        return self.out_proj(rearrange(y, "b d l -> b l d"))

    def _short(self, u: Float[Tensor, "b e l"]) -> Float[Tensor, "b e l"]:
        weight, bias = self.short_filter.weight[:, 0], self.short_filter.bias
        if not self.bidirectional:
            return short_conv(u, weight, bias)
        ahead = weight.shape[-1] // 2
        return short_conv(pad(u, (0, ahead)), weight, bias)[..., ahead:]

    def start(self, batch: int, capacity: int) -> MultihybridState:
        """Make the state before the first position; its size does not depend on the capacity."""
        weight, d = self.short_filter.weight, self.out_proj.in_features
        recent = weight.new_zeros(batch, weight.shape[0], weight.shape[-1] - 1)
        if isinstance(self.filter_fn, ModalFilter):
            steps = self.filter_fn.steps()
            return MultihybridState(0, recent, None, steps.poles.new_zeros(batch, *steps.poles.shape), steps)
        taps = self.filter_fn.taps
        return MultihybridState(0, recent, taps.new_zeros(batch, d, taps.shape[-1] - 1), None, None)

    def extend(self, x: Float[Tensor, "b c d"], state: MultihybridState) -> Float[Tensor, "b c d"]:
        """Mix the next positions; one costs the same at any place."""
        u = torch.cat([state.recent, rearrange(self.in_proj(x), "b c e -> b e c")], -1)
        past = state.recent.shape[-1]
        state.recent = u[..., u.shape[-1] - past :].clone()
        x0, x1, v = short_conv(u, self.short_filter.weight[:, 0], self.short_filter.bias)[..., past:].chunk(3, 1)
        y = self._go_on(x1 * v, state)
        state.position += x.shape[1]
        return self.out_proj(rearrange(x0 * y.to(x0.dtype), "b d c -> b c d"))

    def _go_on(self, z: Float[Tensor, "b d c"], state: MultihybridState) -> Float[Tensor, "b d c"]:
        if state.steps is not None:
            assert state.modes is not None
            y, state.modes = state.steps.run(z.to(state.steps.dtype), state.modes)
            return y
        assert state.held is not None
        past = state.held.shape[-1]
        held = torch.cat([state.held, z.to(state.held.dtype)], -1)
        state.held = held[..., held.shape[-1] - past :].clone()
        taps = self.filter_fn(past + 1)
        if z.shape[-1] == 1:
            return (held * taps.flip(-1)).sum(-1, keepdim=True)
        return fftconv(held, taps)[..., past:]
