"""H3: a shift and a diagonal state-space model between three projections, as attention's queries, keys and values."""

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from dnasm.config import ModelConfig
from dnasm.models.diagonal_steps import DiagonalSteps
from dnasm.models.filters import DiagonalKernel, ShiftKernel
from dnasm.models.fused import joined, reads_only, turned_linear
from dnasm.models.mixers.h3_step import around, best_step
from dnasm.models.mixers.projection import from_channels
from dnasm.models.state import MixerState
from dnasm.ops import fftconv


@dataclass
class H3State(MixerState):
    """The last keys, for the shift, and the diagonal model's oscillators for each pair of channels of a head."""

    keys: Float[Tensor, "b states d"]
    """That of position p stands at p modulo their number, so that a step writes one place and moves nothing."""
    real: Float[Tensor, "b i j n h"]
    imag: Float[Tensor, "b i j n h"]
    taps: tuple[Float[Tensor, "d states"], Float[Tensor, "around d"]]
    """The shift model's kernel, as it is and as steps read it; in a tuple, since copies of the state share it."""
    steps: DiagonalSteps
    projections: tuple[Tensor, Tensor] | None = None
    """Those of queries, keys and values as one, where steps are replayed."""


class H3(nn.Module):
    """`output_linear(q * diag(shift(k) * v))`; with heads, keys and values meet in an outer product.

    Source: H3, src/models/ssm/h3.py.
    """

    residual_projection = "output_linear"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d = config.d_model
        self.head_dim = config.head_dim
        heads = d // config.head_dim
        self.q_proj, self.k_proj, self.v_proj = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)
        self.ssm_k_kernel = ShiftKernel(d, config.state_size)
        self.ssm_k_D = nn.Parameter(torch.randn(d))
        self.kernel = DiagonalKernel(heads, config.state_size, config.discretization)
        self.D = nn.Parameter(torch.randn(heads))
        self.bidirectional = config.bidirectional
        if config.bidirectional:  # the same again for the other side
            self.ssm_k_kernel_back = ShiftKernel(d, config.state_size)
            self.kernel_back = DiagonalKernel(heads, config.state_size, config.discretization)
        self.output_linear = nn.Linear(d, d)

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        q, k, v = self._project(x)
        shift, kernel = self.ssm_k_kernel(x.shape[1]), self.kernel(x.shape[1])
        if self.bidirectional:
            shift = torch.stack([shift, self.ssm_k_kernel_back(x.shape[1])], 1)
            kernel = torch.stack([kernel, self.kernel_back(x.shape[1])], 1)
        k = fftconv(k, shift, skip=self.ssm_k_D, bidirectional=self.bidirectional)
        if self.head_dim == 1:
            y = fftconv(v, kernel, in_gate=k, out_gate=q, skip=self.D, bidirectional=self.bidirectional)
        else:
            y = self._heads(q, k, v, kernel)
        return from_channels(self.output_linear, y)

    def _project(self, x: Float[Tensor, "b l d"]) -> tuple[Float[Tensor, "b d l"], ...]:
        """Return queries, keys and values; on a GPU, whose kernels want a channel's positions together, turned once."""
        layers = (self.q_proj, self.k_proj, self.v_proj)
        if reads_only(x, *layers):
            return tuple(turned_linear(layer, x) for layer in layers)
        turned = (rearrange(proj(x), "b l d -> b d l") for proj in layers)
        return tuple(z.contiguous() if z.is_cuda else z for z in turned)

    def _heads(
        self,
        q: Float[Tensor, "b d l"],
        k: Float[Tensor, "b d l"],
        v: Float[Tensor, "b d l"],
        kernel: Float[Tensor, "h *sides l"],
    ) -> Float[Tensor, "b d l"]:
        """Sum over the keys' channels of a head, one at a time: the outer product is never held whole.

        Queries, keys and values are ordered (head, channel), what comes out (channel, head), as in the original.
        """
        n = self.head_dim
        v = rearrange(v, "b (h n) l -> b (n h) l", n=n)
        kernel, skip = repeat(kernel, "h ... -> (n h) ...", n=n), repeat(self.D, "h -> (n h)", n=n)
        y = torch.zeros_like(v)
        for i in range(n):
            in_gate, out_gate = (repeat(x[:, i::n], "b h l -> b (n h) l", n=n) for x in (k, q))
            gates = {"in_gate": in_gate, "out_gate": out_gate}
            y = y + fftconv(v, kernel, **gates, skip=skip, bidirectional=self.bidirectional)
        return y

    def start(self, batch: int, capacity: int) -> H3State:
        """Make the state before the first position; its size does not depend on the capacity."""
        n = self.head_dim
        taps = self.ssm_k_kernel(self.ssm_k_kernel.B.shape[-1])
        oscillators = self.kernel.inv_A_real.mT.shape
        return H3State(
            position=0,
            keys=self.k_proj.weight.new_zeros(batch, *taps.mT.shape),
            real=taps.new_zeros(batch, n, n, *oscillators),
            imag=taps.new_zeros(batch, n, n, *oscillators),
            taps=(taps, around(taps)),
            steps=self.kernel.steps(),
        )

    def extend(self, x: Float[Tensor, "b c d"], state: H3State) -> Float[Tensor, "b c d"]:
        """Mix the next positions; one costs the same at any place."""
        position, state.position = state.position, state.position + x.shape[1]
        if x.shape[1] == 1:
            return self.output_linear(self._step(x[:, 0], state, position)[:, None])
        return from_channels(self.output_linear, self._piece(x, state, position).to(x.dtype))

    def _step(self, x: Float[Tensor, "b d"], state: H3State, position: int) -> Float[Tensor, "b d"]:
        """Mix one position in place."""
        replayed = state.place is not None
        place = torch.full((1,), position, device=x.device) if state.place is None else state.place
        if replayed and state.projections is None:
            state.projections = joined(self.q_proj, self.k_proj, self.v_proj)
        if replayed and state.projections is not None:
            q, k, v = linear(x, *state.projections).chunk(3, -1)
        else:
            q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        held = (state.keys, state.real, state.imag)
        constants = (state.taps[1], self.ssm_k_D, state.steps.planes, self.D)
        return best_step(x.device, again_and_again=state.again)(q, k, v, *held, place, *constants)

    def _piece(self, x: Float[Tensor, "b c d"], state: H3State, begin: int) -> Float[Tensor, "b d c"]:
        """Mix several positions as `forward` does; what the state adds comes on top."""
        q, k, v = self._project(x)
        count, end = state.keys.shape[1], begin + k.shape[-1]
        held = k
        if begin:
            past = torch.arange(begin + 1, begin + count, device=k.device) % count
            held = torch.cat([state.keys[:, past].mT.to(k.dtype), k], -1)
        last = pad(held[..., -count:], (max(0, count - held.shape[-1]), 0))
        state.keys = last.to(state.keys.dtype).roll(end % count, -1).mT.contiguous()
        shifted = fftconv(held, state.taps[0], skip=self.ssm_k_D)[..., -k.shape[-1] :]
        kernel = self.kernel(k.shape[-1])
        if self.head_dim == 1:
            y = fftconv(v, kernel, in_gate=shifted, out_gate=q, skip=self.D)
        else:
            y = self._heads(q, shifted, v, kernel)
        oscillators = state.real.mT, state.imag.mT
        echo, real, imag = state.steps.absorb(self._pairs(shifted, v), *oscillators, fresh=begin == 0)
        state.real, state.imag = real.mT.contiguous(), imag.mT.contiguous()
        return y if echo is None else y + self._read(q, echo)

    def _pairs(self, k: Float[Tensor, "b d c"], v: Float[Tensor, "b d c"]) -> Float[Tensor, "b i j h c"]:
        """Outer product of the keys and values of each head."""
        n = self.head_dim
        return rearrange(k, "b (h i) c -> b i 1 h c", i=n) * rearrange(v, "b (h j) c -> b 1 j h c", j=n)

    def _read(self, q: Float[Tensor, "b d c"], y: Float[Tensor, "b i j h c"]) -> Float[Tensor, "b d c"]:
        """Let each head's queries choose among what its keys have stored."""
        chosen = (y * rearrange(q, "b (h i) c -> b i 1 h c", i=self.head_dim)).sum(1)
        return rearrange(chosen, "b j h c -> b (j h) c")
