"""Hyena, order 2: a short convolution, two gates and one implicit long convolution."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dnasm.config import ModelConfig
from dnasm.models.filters import HyenaFilter
from dnasm.ops import fftconv, short_conv


class Hyena(nn.Module):
    """`out_proj(x0 * (k conv (x1 * v) + bias * (x1 * v)))` with x0, x1, v from a projection and a short convolution.

    Source: HyenaDNA, standalone_hyenadna.py, HyenaOperator.
    """

    residual_projection = "out_proj"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.max_length is not None, "check_model lets no Hyena pass without max_length"
        d = config.d_model
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
        )

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        u = short_conv(
            rearrange(self.in_proj(x), "b l d -> b d l"), self.short_filter.weight[:, 0], self.short_filter.bias
        )
        x0, x1, v = u.chunk(3, 1)
        y = fftconv(v, self.filter_fn(x.shape[1]), in_gate=x1, out_gate=x0, skip=self.filter_fn.bias)
        return self.out_proj(rearrange(y, "b d l -> b l d"))
