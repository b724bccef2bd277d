"""Hyena, order 2: a short convolution, two gates and one implicit long convolution."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from dnasm.config import ModelConfig
from dnasm.models.filters import HyenaFilter
from dnasm.models.mixers.gated import GatedConvolution, GatedState
from dnasm.models.tiling import TiledFilter
from dnasm.ops import fftconv


@dataclass
class HyenaState(GatedState):
    """The inputs of both convolutions, and what those of the long one add to outputs ahead."""

    inputs: Float[Tensor, "b d n"]
    owed: Float[Tensor, "b d n"]
    filter: TiledFilter
    tiled_from: int = 0
    """Every input before it has reached every output; tiles count from it."""

    def schedule(self) -> tuple[int, ...]:
        """Tell the size of the tile that the next position completes."""
        count = self.position + 1 - self.tiled_from
        return (count & -count,)


class Hyena(GatedConvolution):
    """`out_proj(x0 * (k conv (x1 * v) + bias * (x1 * v)))`, k made by an MLP of the position.

    Source: HyenaDNA, standalone_hyenadna.py, HyenaOperator.
    """

    filter_fn: HyenaFilter

    def __init__(self, config: ModelConfig) -> None:
        assert config.max_length is not None, "check_model lets no Hyena pass without max_length"
        filter_fn = HyenaFilter(
            config.d_model,
            config.max_length,
            embedding=config.filter_embedding,
            width=config.filter_order,
            inner_layers=config.filter_layers,
            frequency=config.activation_frequency,
            shift=config.modulation_shift,
            sides=2 if config.bidirectional else 1,
        )
        super().__init__(config, filter_fn)

    def start(self, batch: int, capacity: int) -> HyenaState:
        """Make the state before the first position; it holds two numbers a channel and position of the capacity."""
        weight = self.short_filter.weight
        wide = torch.promote_types(weight.dtype, torch.float32)
        long = weight.new_zeros(batch, self.out_proj.in_features, capacity, dtype=wide)
        taps = TiledFilter(self.filter_fn(capacity).to(wide))
        return HyenaState(0, self.no_inputs(batch), inputs=long, owed=long.clone(), filter=taps)

    def extend(self, x: Float[Tensor, "b c d"], state: HyenaState) -> Float[Tensor, "b c d"]:
        """Mix the next positions: one by tiles, several by a transform of everything so far."""
        x0, x1, v = self.extend_short(x, state)
        z = (x1 * v).to(state.inputs.dtype)
        if z.shape[-1] > 1:
            y = _transform(z, state)
        elif state.place is None:
            y = _tile(z, state)
        else:
            y = _tile_at(z, state, state.place)
        y = (x0 * (y + self.filter_fn.bias[:, None] * z)).to(x.dtype)
        return self.out_proj(rearrange(y, "b d c -> b c d"))


def _transform(z: Float[Tensor, "b d c"], state: HyenaState) -> Float[Tensor, "b d c"]:
    """Convolve everything so far, onto every output that the state has room for."""
    begin = state.position
    state.position = end = begin + z.shape[-1]
    state.inputs[..., begin:end] = z
    held = pad(state.inputs[..., :end], (0, state.inputs.shape[-1] - end))
    state.owed = fftconv(held, state.filter.taps)
    state.tiled_from = end
    return state.owed[..., begin:end]


def _tile(z: Float[Tensor, "b d 1"], state: HyenaState) -> Float[Tensor, "b d 1"]:
    """Take what is owed here, and let the tile that ends here reach the outputs ahead."""
    (size,) = state.schedule()
    begin = state.position
    state.position = end = begin + 1
    state.inputs[..., begin:end] = z
    ahead = state.owed[..., end : end + size]
    ahead += state.filter.ahead(state.inputs[..., end - size : end])[..., : ahead.shape[-1]]
    return state.owed[..., begin:end] + state.filter.taps[:, :1] * z


def _tile_at(z: Float[Tensor, "b d 1"], state: HyenaState, place: Tensor) -> Float[Tensor, "b d 1"]:
    """`_tile` at a position that only the device knows."""
    (size,) = state.schedule()
    state.position += 1
    state.inputs.index_copy_(2, place, z)
    steps = torch.arange(1, size + 1, device=z.device)
    ahead, last = place + steps, state.inputs.shape[-1] - 1
    sums = state.filter.ahead(state.inputs.index_select(2, ahead - size))
    state.owed.index_add_(2, ahead.clamp(max=last), sums.where(ahead <= last, 0.0))
    return state.owed.index_select(2, place) + state.filter.taps[:, :1] * z
