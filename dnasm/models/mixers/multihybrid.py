"""The three convolutions of StripedHyena 2: short explicit, medium regularised and long modal filters."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Complex, Float
from torch import Tensor

from dnasm.config import ModelConfig
from dnasm.models.diagonal_steps import DiagonalSteps
from dnasm.models.filters import ExplicitFilter, ModalFilter
from dnasm.models.mixers.gated import GatedConvolution, GatedState
from dnasm.ops import fftconv


@dataclass
class MultihybridState(GatedState):
    """What the convolutions need of the past: inputs of the short one, and inputs or modes of the filter."""

    held: Float[Tensor, "b d reach"] | None
    """SE and MR: as many inputs as the filter has taps, less one."""
    modes: Complex[Tensor, "b d n"] | None
    """LI: one number for each mode."""
    steps: DiagonalSteps | None


class Multihybrid(GatedConvolution):
    """`out_proj(x0 * (k conv (x1 * v)))` with x0, x1, v from a projection and a short convolution.

    k is a few taps shared by a group of channels (`se`), more of them that decay (`mr`), or a sum of decaying
    exponentials (`li`), which has no end and steps in constant time.

    Source: Ku et al. 2025, "Systems and algorithms for convolutional multi-hybrid language models at scale".
    """

    filter_fn: ExplicitFilter | ModalFilter

    def __init__(self, config: ModelConfig, kind: str) -> None:
        d, sides = config.d_model, 1 + config.bidirectional
        filter_fn: ExplicitFilter | ModalFilter
        if kind == "li":
            filter_fn = ModalFilter(d, config.modes, sides)
        else:
            taps = config.short_taps if kind == "se" else config.medium_taps
            filter_fn = ExplicitFilter(d, taps, config.filter_group, decays=kind == "mr", sides=sides)
        super().__init__(config, filter_fn)

    def start(self, batch: int, capacity: int) -> MultihybridState:
        """Make the state before the first position; its size does not depend on the capacity."""
        recent = self.no_inputs(batch)
        if isinstance(self.filter_fn, ModalFilter):
            steps = self.filter_fn.steps()
            return MultihybridState(0, recent, None, steps.poles.new_zeros(batch, *steps.poles.shape), steps)
        taps = self.filter_fn.taps
        none = taps.new_zeros(batch, self.out_proj.in_features, taps.shape[-1] - 1)
        return MultihybridState(0, recent, none, None, None)

    def extend(self, x: Float[Tensor, "b c d"], state: MultihybridState) -> Float[Tensor, "b c d"]:
        """Mix the next positions; one costs the same at any place."""
        x0, x1, v = self.extend_short(x, state)
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
