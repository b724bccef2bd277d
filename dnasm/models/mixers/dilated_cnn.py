"""A gated dilated convolution: the baseline that sees a stated stretch and nothing beyond."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from dnasm.config import ModelConfig
from dnasm.models.state import MixerState

_DILATIONS = (1, 4, 16, 64, 256)


@dataclass
class ConvolutionState(MixerState):
    """The inputs that the taps still reach."""

    recent: Float[Tensor, "b d past"]


class DilatedCNN(nn.Module):
    """`out_proj(a * sigmoid(b))`, a and b from one convolution whose taps stand 1, 4, 16, 64 or 256 bases apart.

    The distance grows from layer to layer, then begins again. Source: after ConvNova's gated block.
    """

    residual_projection = "out_proj"

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.dilation = _DILATIONS[index % len(_DILATIONS)]
        self.bidirectional = config.bidirectional
        self.conv = nn.Conv1d(config.d_model, 2 * config.d_model, config.cnn_taps, dilation=self.dilation)
        self.out_proj = nn.Linear(config.d_model, config.d_model)

    @property
    def reach(self) -> int:
        """Positions from the first tap to the last."""
        return (self.conv.kernel_size[0] - 1) * self.dilation

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        ahead = self.reach // 2 if self.bidirectional else 0
        return self._mix(pad(rearrange(x, "b l d -> b d l"), (self.reach - ahead, ahead)))

    def _mix(self, u: Float[Tensor, "b d past_l"]) -> Float[Tensor, "b l d"]:
        a, b = self.conv(u).chunk(2, 1)
        return self.out_proj(rearrange(a * b.sigmoid(), "b d l -> b l d"))

    def start(self, batch: int, capacity: int) -> ConvolutionState:
        """Make the state before the first position; its size does not depend on the capacity."""
        return ConvolutionState(0, self.conv.weight.new_zeros(batch, self.conv.in_channels, self.reach))

    def extend(self, x: Float[Tensor, "b c d"], state: ConvolutionState) -> Float[Tensor, "b c d"]:
        """Mix the next positions; one costs the same at any place."""
        u = torch.cat([state.recent, rearrange(x, "b c d -> b d c").to(state.recent.dtype)], -1)
        state.recent = u[..., u.shape[-1] - self.reach :].clone()
        state.position += x.shape[1]
        return self._mix(u.to(x.dtype))
