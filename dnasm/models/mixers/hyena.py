"""Hyena, order 2: a short convolution, two gates and one implicit long convolution."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from dnasm.config import ModelConfig
from dnasm.models.filters import HyenaFilter
from dnasm.models.state import MixerState
from dnasm.models.tiling import TiledFilter
from dnasm.ops import fftconv, short_conv


@dataclass
class HyenaState(MixerState):
    """The inputs of both convolutions, and what those of the long one add to outputs ahead."""

    recent: Float[Tensor, "b e past"]
    inputs: Float[Tensor, "b d n"]
    owed: Float[Tensor, "b d n"]
    filter: TiledFilter
    tiled_from: int = 0
    """Every input before it has reached every output; tiles count from it."""


class Hyena(nn.Module):
    """`out_proj(x0 * (k conv (x1 * v) + bias * (x1 * v)))` with x0, x1, v from a projection and a short convolution.

    Source: HyenaDNA, standalone_hyenadna.py, HyenaOperator.
    """

    residual_projection = "out_proj"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.max_length is not None, "check_model lets no Hyena pass without max_length"
        d = config.d_model
        self.bidirectional = config.bidirectional
        self.in_proj = nn.Linear(d, 3 * d)
        self.out_proj = nn.Linear(d, d)
        self.short_filter = nn.Conv1d(3 * d, 3 * d, config.short_filter, groups=3 * d)
        self.filter_fn = HyenaFilter(
            d,
            config.max_length,
            embedding=config.filter_embedding,
            width=config.filter_order,
            inner_layers=config.filter_layers,
            frequency=config.activation_frequency,
            shift=config.modulation_shift,
            sides=2 if config.bidirectional else 1,
        )

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        x0, x1, v = self._short(rearrange(self.in_proj(x), "b l d -> b d l")).chunk(3, 1)
        k, bias = self.filter_fn(x.shape[1]), self.filter_fn.bias
        y = fftconv(v, k, in_gate=x1, out_gate=x0, skip=bias, bidirectional=self.bidirectional)
        return self.out_proj(rearrange(y, "b d l -> b l d"))

    def _short(self, u: Float[Tensor, "b e l"]) -> Float[Tensor, "b e l"]:
        """Convolve with a few taps; they are centred where both sides are seen."""
        weight, bias = self.short_filter.weight[:, 0], self.short_filter.bias
        if not self.bidirectional:
            return short_conv(u, weight, bias)
        ahead = weight.shape[-1] // 2
        return short_conv(pad(u, (0, ahead)), weight, bias)[..., ahead:]

    def start(self, batch: int, capacity: int) -> HyenaState:
        """Make the state before the first position; it holds two numbers a channel and position of the capacity."""
        weight = self.short_filter.weight
        wide = torch.promote_types(weight.dtype, torch.float32)
        long = weight.new_zeros(batch, self.out_proj.in_features, capacity, dtype=wide)
        return HyenaState(
            position=0,
            recent=weight.new_zeros(batch, weight.shape[0], weight.shape[-1] - 1),
            inputs=long,
            owed=long.clone(),
            filter=TiledFilter(self.filter_fn(capacity).to(wide)),
        )

    def extend(self, x: Float[Tensor, "b c d"], state: HyenaState) -> Float[Tensor, "b c d"]:
        """Mix the next positions: one by tiles, several by a transform of everything so far."""
        u = torch.cat([state.recent, rearrange(self.in_proj(x), "b c e -> b e c")], -1)
        taps = state.recent.shape[-1]
        state.recent = u[..., u.shape[-1] - taps :].clone()
        x0, x1, v = short_conv(u, self.short_filter.weight[:, 0], self.short_filter.bias)[..., taps:].chunk(3, 1)
        begin, end = state.position, state.position + x.shape[1]
        z = (x1 * v).to(state.inputs.dtype)
        state.inputs[..., begin:end] = z
        state.position = end
        if end - begin > 1:
            held = pad(state.inputs[..., :end], (0, state.inputs.shape[-1] - end))
            state.owed = fftconv(held, state.filter.taps)
            state.tiled_from = end
            y = state.owed[..., begin:end]
        else:
            y = state.owed[..., begin:end] + state.filter.taps[:, :1] * z
            count = end - state.tiled_from
            state.filter.add_tile(state.inputs, state.owed, end, count & -count)
        y = (x0 * (y + self.filter_fn.bias[:, None] * z)).to(x.dtype)
        return self.out_proj(rearrange(y, "b d c -> b c d"))
