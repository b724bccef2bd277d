"""Causal softmax attention: the baseline, and the attention layers of hybrid models."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Integer
from torch import Tensor, nn

from dnasm.config import ModelConfig
from dnasm.models.state import MixerState

_ROTARY_BASE = 10_000.0
_LEAST_BOUND = 64


@dataclass
class AttentionState(MixerState):
    """Keys and values of every position, in a cache of fixed size."""

    keys: Float[Tensor, "b h n c"]
    values: Float[Tensor, "b h n c"]

    def schedule(self) -> tuple[int, ...]:
        """Tell how much of the cache the next step looks at: up to the next power of two."""
        return (min(self.keys.shape[2], max(_LEAST_BOUND, 1 << self.position.bit_length())),)


class Attention(nn.Module):
    """Multi-head causal attention; the first `rotary_dim` channels of a head are turned by their position.

    Source: flash_attn.modules.mha.MHA, of which H3's hybrid layers are made.
    """

    residual_projection = "out_proj"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.causal = not config.bidirectional
        self.num_heads = config.num_heads
        self.rotary_dim = config.rotary_dim
        self.Wqkv = nn.Linear(config.d_model, 3 * config.d_model)
        self.out_proj = nn.Linear(config.d_model, config.d_model)

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        q, k, v = self.project(x, torch.arange(x.shape[1], device=x.device))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out_proj(rearrange(y, "b h l d -> b l (h d)"))

    def start(self, batch: int, capacity: int) -> AttentionState:
        """Make an empty cache for `capacity` positions."""
        d = self.out_proj.in_features
        keys = self.out_proj.weight.new_zeros(batch, self.num_heads, capacity, d // self.num_heads)
        return AttentionState(position=0, keys=keys, values=keys.clone())

    def extend(self, x: Float[Tensor, "b c d"], state: AttentionState) -> Float[Tensor, "b c d"]:
        """Attend from the next positions to all so far."""
        if state.place is not None:
            return self._step(x, state, state.place)
        begin, end = state.position, state.position + x.shape[1]
        q, k, v = self.project(x, torch.arange(begin, end, device=x.device))
        state.keys[:, :, begin:end], state.values[:, :, begin:end] = k, v
        state.position = end
        mask = None
        if begin > 0 and end - begin > 1:
            mask = torch.ones(end - begin, end, dtype=torch.bool, device=x.device).tril(begin)
        keys, values = (cache[:, :, :end].to(q.dtype) for cache in (state.keys, state.values))
        y = nn.functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask, is_causal=begin == 0)
        return self.out_proj(rearrange(y, "b h c d -> b c (h d)"))

    def _step(
        self, x: Float[Tensor, "b 1 d"], state: AttentionState, place: Integer[Tensor, " 1"]
    ) -> Float[Tensor, "b 1 d"]:
        """Attend from a position that only the device knows; what of the cache lies ahead of it is masked."""
        (bound,) = state.schedule()
        q, k, v = self.project(x, place)
        state.keys.index_copy_(2, place, k.to(state.keys.dtype))
        state.values.index_copy_(2, place, v.to(state.values.dtype))
        state.position += 1
        keys, values = (cache[:, :, :bound].to(q.dtype) for cache in (state.keys, state.values))
        # Two products, which spread one query over a whole GPU; fused attention gives it one block a head.
        scores = (q @ keys.mT).to(torch.promote_types(q.dtype, torch.float32)) / q.shape[-1] ** 0.5
        weights = scores.masked_fill(torch.arange(bound, device=x.device) > place, -torch.inf).softmax(-1)
        y = weights.to(q.dtype) @ values
        return self.out_proj(rearrange(y, "b h c d -> b c (h d)"))

    def project(
        self, x: Float[Tensor, "b l d"], positions: Integer[Tensor, " l"]
    ) -> tuple[Float[Tensor, "b h l n"], Float[Tensor, "b h l n"], Float[Tensor, "b h l n"]]:
        """Return queries, keys and values, the first two turned to their positions."""
        q, k, v = rearrange(self.Wqkv(x), "b l (three h d) -> three b h l d", three=3, h=self.num_heads)
        if self.rotary_dim:
            q, k = (rotate(z, positions, self.rotary_dim) for z in (q, k))
        return q, k, v


def rotary_frequencies(rotary_dim: int, device: torch.device | None = None) -> Float[Tensor, " half"]:
    """Return the angle per position of each pair of channels."""
    return _ROTARY_BASE ** -(torch.arange(0, rotary_dim, 2, device=device).double() / rotary_dim)


def rotate(x: Float[Tensor, "b h l n"], positions: Integer[Tensor, " l"], rotary_dim: int) -> Float[Tensor, "b h l n"]:
    """Turn pairs of channels (i, i + rotary_dim / 2) by position * frequency; the other channels pass.

    Angles are float64: a float32 one is off by 0.06 rad at position 1M.
    """
    angle = positions.double()[:, None] * rotary_frequencies(rotary_dim, x.device)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    half = rotary_dim // 2
    first, second, rest = x[..., :half], x[..., half:rotary_dim], x[..., rotary_dim:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos, rest], -1)
