"""What makes the long filters: Hyena's implicit MLP, and H3's shift and diagonal state-space models.

Parameter names are the official ones, so that published checkpoints map one to one.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from einops import rearrange, repeat
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn.functional import pad

from dnasm.models.diagonal_steps import DiagonalSteps
from dnasm.ops.ssm import Parts, real_vandermonde, vandermonde

_FAST_DECAY, _SLOW_DECAY, _DECAY_TARGET = 0.3, 1.5, 1e-2
_DT_MIN, _DT_MAX = 1e-3, 1e-1


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Compute in the tensors' own precision; on `meta`, which has no autocast, there is nothing to do."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


class Sin(nn.Module):
    """`sin(freq * x)` with a trained frequency for each channel."""

    def __init__(self, width: int, frequency: float) -> None:
        super().__init__()
        self.freq = nn.Parameter(torch.full((1, width), frequency))

    def forward(self, x: Float[Tensor, "*n w"]) -> Float[Tensor, "*n w"]:
        return torch.sin(self.freq * x)


class PositionalEmbedding(nn.Module):
    """Features of the position: time from 0 to 1, and cosines and sines of a few bands.

    They depend on `max_length`, and published checkpoints carry them: they are loaded, never made again.
    """

    z: Tensor
    t: Tensor

    def __init__(self, width: int, max_length: int) -> None:
        super().__init__()
        t = torch.linspace(0, 1, max_length)[None, :, None]
        angle = 2 * math.pi * torch.linspace(0, max_length - 1, max_length)[None, :, None] / max_length
        bands = (width - 1) // 2
        phase = torch.linspace(1e-4, bands - 1, bands) * angle
        self.register_buffer("z", torch.cat([t, phase.cos(), -phase.sin()], -1))
        self.register_buffer("t", t)


class ExponentialModulation(nn.Module):
    """Window on the filter: each channel decays at its own pace, down to a constant `shift`."""

    deltas: Tensor

    def __init__(self, channels: int, shift: float) -> None:
        super().__init__()
        self.shift = shift
        slow, fast = math.log(_DECAY_TARGET) / _SLOW_DECAY, math.log(_DECAY_TARGET) / _FAST_DECAY
        self.register_buffer("deltas", torch.linspace(slow, fast, channels)[None, None])

    def forward(self, t: Float[Tensor, " l"], h: Float[Tensor, "d *sides l"]) -> Float[Tensor, "d *sides l"]:
        pace = self.deltas.flatten().abs()[:, None] if h.dim() == 2 else self.deltas.flatten().abs()[:, None, None]
        return h * (torch.exp(-t * pace) + self.shift)


class HyenaFilter(nn.Module):
    """Implicit long filter: an MLP with sine activations, read at each position, times a decaying window.

    Every activation is one shared module, as in the original. The MLP runs in its own precision under autocast: its
    sines turn rounding of their argument into noise.

    Source: HyenaDNA, standalone_hyenadna.py, HyenaFilter.
    """

    def __init__(
        self,
        channels: int,
        max_length: int,
        *,
        embedding: int = 5,
        width: int = 64,
        inner_layers: int = 2,
        frequency: float = 10.0,
        shift: float = 0.05,
        sides: int = 1,
    ) -> None:
        super().__init__()
        self.sides = sides
        self.bias = nn.Parameter(torch.randn(channels))
        self.pos_emb = PositionalEmbedding(embedding, max_length)
        activation = Sin(width, frequency)
        layers: list[nn.Module] = [nn.Linear(embedding, width), activation]
        for _ in range(inner_layers):
            layers += [nn.Linear(width, width), activation]
        self.implicit_filter = nn.Sequential(*layers, nn.Linear(width, sides * channels, bias=False))
        self.modulation = ExponentialModulation(channels, shift)

    def forward(self, length: int) -> Float[Tensor, "d *sides l"]:
        """Return the first `length` taps of each channel's filter; `bias` is the skip that goes with it.

        With two sides it is the past with lag 0 and the future from lag 1, under one window.
        """
        with without_autocast(self.bias.device):
            h = self.implicit_filter[:-1](self.pos_emb.z[0, :length])
            last = self.implicit_filter[-1]
            # As the convolution reads it: turned afterwards, it would be slow. An adapter in its place is called.
            k = last.weight @ h.T if isinstance(last, nn.Linear) else last(h).T
            if self.sides > 1:
                k = rearrange(k, "(sides d) l -> d sides l", sides=self.sides)
            return self.modulation(self.pos_emb.t[0, :length, 0], k)


class ShiftKernel(nn.Module):
    """A shift register's kernel: `k[j] = sum_n B[n] * C[n + j]`, at most `states` taps.

    Source: H3, ss_kernel_shift.py.
    """

    def __init__(self, channels: int, states: int) -> None:
        super().__init__()
        first = torch.zeros(channels, states)
        first[:, 0] = 1
        self.B = nn.Parameter(first)
        bound = 1 / math.sqrt(states)
        self.C = nn.Parameter(torch.empty(1, channels, states).uniform_(-bound, bound))

    def forward(self, length: int) -> Float[Tensor, "d taps"]:
        states = self.B.shape[-1]
        with without_autocast(self.B.device):
            ahead = pad(self.C[0], (0, states)).unfold(-1, states, 1)[:, : min(states, length)]
            return (ahead * self.B[:, None]).sum(-1)


def _times(x: Parts, y: Parts) -> Parts:
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def _over(x: Parts, y: Parts) -> Parts:
    size = y[0] ** 2 + y[1] ** 2
    real, imag = _times(x, (y[0], -y[1]))
    return real / size, imag / size


class DiagonalKernel(nn.Module):
    """S4D: a bank of damped oscillators for each head, discretised with a trained step.

    Complex parameters are stored as pairs of reals (last axis). Poles and their powers are computed in float64.

    Source: H3, ss_kernel_diag.py; initialised as its `diag-lin`.
    """

    def __init__(self, heads: int, states: int, discretization: str = "bilinear") -> None:
        super().__init__()
        self.discretization = discretization
        n = states // 2  # conjugate pairs are kept once
        span = math.log(_DT_MAX) - math.log(_DT_MIN)
        self.log_dt = nn.Parameter(torch.rand(heads) * span + math.log(_DT_MIN))
        self.inv_A_real = nn.Parameter(torch.full((heads, n), math.log(0.5)))
        self.A_imag = nn.Parameter((math.pi * torch.arange(n, dtype=torch.float32)).repeat(heads, 1))
        self.B = nn.Parameter(torch.tensor([1.0, 0.0]).repeat(heads, n, 1))
        self.C = nn.Parameter(torch.randn(1, heads, n, 2) / math.sqrt(2))

    def discretized(self) -> tuple[Complex[Tensor, "h n"], Complex[Tensor, "h n"], Complex[Tensor, "h n"]]:
        """Return in complex128 the logarithms of the poles, the input weights and the output weights of one step."""
        log_poles, b, c = (torch.complex(*parts) for parts in self._parts())
        return log_poles, b, c

    def _parts(self) -> tuple[Parts, Parts, Parts]:
        """The same as pairs of reals, which compilers fuse; a step of complex ones is hundreds of launches."""
        dt = self.log_dt.double().exp()[:, None]
        a = (-self.inv_A_real.double().exp(), self.A_imag.double())
        b, c = (
            (self.B[..., 0].double(), self.B[..., 1].double()),
            (self.C[0, ..., 0].double(), self.C[0, ..., 1].double()),
        )
        if self.discretization == "zoh":
            growth = (a[0] * dt).exp()
            grown = (growth * (a[1] * dt).cos() - 1, growth * (a[1] * dt).sin())
            return (a[0] * dt, a[1] * dt), _over(_times(b, grown), a), c
        real, imag = a[0] * dt / 2, a[1] * dt / 2
        # log((1 + z) / (1 - z)); a compiler takes seconds over each function of float64 numbers
        size = torch.log1p(4 * real / ((1 - real) ** 2 + imag**2)) / 2
        angle = torch.atan2(2 * imag, 1 - real**2 - imag**2)
        return (size, angle), _over((b[0] * dt, b[1] * dt), (1 - real, -imag)), c

    def forward(self, length: int) -> Float[Tensor, "h l"]:
        with without_autocast(self.B.device):
            log_poles, b, c = self._parts()
            return real_vandermonde(_times(b, c), log_poles, length, torch.promote_types(self.B.dtype, torch.float32))

    def steps(self) -> DiagonalSteps:
        """Return the recurrence whose impulse response the kernel is."""
        return DiagonalSteps(self.discretized, torch.promote_types(self.B.dtype, torch.float32))


class ExplicitFilter(nn.Module):
    """Taps that are learned as they are, shared by the channels of a group; with `decays` under fixed envelopes.

    Source: StripedHyena 2, Hyena-SE and -MR (h * exp(-r t), t from 0 to 1, r from 1 to 100 over the groups).
    """

    envelope: Tensor

    def __init__(self, channels: int, taps: int, group: int, *, decays: bool, sides: int = 1) -> None:
        super().__init__()
        self.group = group
        groups = channels // group
        shape = (groups, taps) if sides == 1 else (groups, sides, taps)
        self.taps = nn.Parameter(torch.randn(shape) / math.sqrt(taps))
        envelope = torch.ones(groups, taps)
        if decays:
            envelope = torch.exp(-torch.logspace(0, 2, groups)[:, None] * torch.linspace(0, 1, taps))
        self.register_buffer("envelope", envelope)

    def forward(self, length: int) -> Float[Tensor, "d *sides taps"]:
        envelope = self.envelope if self.taps.dim() == 2 else self.envelope[:, None]
        return repeat((self.taps * envelope)[..., :length], "g ... -> (g n) ...", n=self.group)


class ModalFilter(nn.Module):
    """A sum of decaying exponentials: `k[t] = sum_n residues[n] * exp(-exp(log_decay[n]) * t)`, of any length.

    Source: StripedHyena 2, Hyena-LI.
    """

    def __init__(self, channels: int, modes: int, sides: int = 1) -> None:
        super().__init__()
        shape = (channels, modes) if sides == 1 else (channels, sides, modes)
        self.residues = nn.Parameter(0.1 * torch.randn(shape) / math.sqrt(modes))
        self.log_decay = nn.Parameter((torch.logspace(-2, -1, modes).log() - 1).expand(shape).clone())

    def _discretized(self) -> tuple[Complex[Tensor, "h n"], Complex[Tensor, "h n"]]:
        """Return the logarithms of the poles and half the residues, whose real parts are counted twice."""
        decay, half = self.log_decay.double().exp().flatten(0, -2), self.residues.double().flatten(0, -2) / 2
        return torch.complex(-decay, torch.zeros_like(decay)), torch.complex(half, torch.zeros_like(half))

    def forward(self, length: int) -> Float[Tensor, "d *sides l"]:
        with without_autocast(self.residues.device):
            log_poles, half = self._discretized()
            k = vandermonde(half, log_poles, length, torch.promote_types(self.residues.dtype, torch.float32))
            return k.reshape(*self.residues.shape[:-1], length)

    def steps(self) -> DiagonalSteps:
        """Return the recurrence whose impulse response the filter is."""

        def discretized() -> tuple[Tensor, Tensor, Tensor]:
            log_poles, half = self._discretized()
            return log_poles, torch.ones_like(half), half

        return DiagonalSteps(discretized, torch.promote_types(self.residues.dtype, torch.float32))
