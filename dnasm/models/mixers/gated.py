"""What Hyena and the multihybrid's filters share: a projection, a short convolution, two gates, a filter between."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from dnasm.config import ModelConfig
from dnasm.models.filters import ExplicitFilter, HyenaFilter, ModalFilter
from dnasm.models.fused import plain
from dnasm.models.mixers.projection import from_channels
from dnasm.models.state import MixerState
from dnasm.ops import fftconv, hyena_operator, short_conv


@dataclass
class GatedState(MixerState):
    """The inputs that the short convolution still reaches."""

    recent: Float[Tensor, "b e past"]


class GatedConvolution(nn.Module):
    """`out_proj(x0 * (k conv (x1 * v) + skip * (x1 * v)))` with x0, x1, v from a projection and a short convolution."""

    residual_projection = "out_proj"

    def __init__(self, config: ModelConfig, filter_fn: HyenaFilter | ExplicitFilter | ModalFilter) -> None:
        super().__init__()
        d = config.d_model
        self.bidirectional = config.bidirectional
        self.in_proj = nn.Linear(d, 3 * d)
        self.out_proj = nn.Linear(d, d)
        self.short_filter = nn.Conv1d(3 * d, 3 * d, config.short_filter, groups=3 * d)
        self.filter_fn = filter_fn

    @property
    def skip(self) -> Float[Tensor, " d"] | None:
        """Weight of what goes past the filter."""
        return self.filter_fn.bias if isinstance(self.filter_fn, HyenaFilter) else None

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        return from_channels(self.out_proj, self.mix(rearrange(self.in_proj(x), "b l e -> b e l")))

    def mix(self, u: Float[Tensor, "b e l"]) -> Float[Tensor, "b d l"]:
        """What lies between the projections: e is three times d. An adapter in the short filter's place is called."""
        k = self.filter_fn(u.shape[-1])
        if not plain(self.short_filter):
            past = self.short_filter.weight.shape[-1] - 1
            ahead = (past + 1) // 2 if self.bidirectional else 0
            x0, x1, v = self.short_filter(pad(u, (past - ahead, ahead))).chunk(3, 1)
            return fftconv(v, k, in_gate=x1, out_gate=x0, skip=self.skip, bidirectional=self.bidirectional)
        return hyena_operator(
            u,
            k,
            short_weight=self.short_filter.weight[:, 0],
            short_bias=self.short_filter.bias,
            skip=self.skip,
            bidirectional=self.bidirectional,
        )

    def no_inputs(self, batch: int) -> Float[Tensor, "b e past"]:
        """Return what the short convolution sees before the first position."""
        weight = self.short_filter.weight
        return weight.new_zeros(batch, weight.shape[0], weight.shape[-1] - 1)

    def extend_short(
        self, x: Float[Tensor, "b c d"], state: GatedState
    ) -> tuple[Float[Tensor, "b d c"], Float[Tensor, "b d c"], Float[Tensor, "b d c"]]:
        """Project and convolve the next positions: both gates and the values."""
        u = torch.cat([state.recent, rearrange(self.in_proj(x), "b c e -> b e c")], -1)
        past = state.recent.shape[-1]
        state.recent = u[..., u.shape[-1] - past :].clone()
        if plain(self.short_filter):
            short = short_conv(u, self.short_filter.weight[:, 0], self.short_filter.bias)[..., past:]
        else:
            short = self.short_filter(u)
        x0, x1, v = short.chunk(3, 1)
        return x0, x1, v
