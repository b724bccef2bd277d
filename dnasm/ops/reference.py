"""The plain definitions that every fast path is tested against: same arguments, no cleverness."""

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

Signal = Float[Tensor, "b d l"]


def causal_conv(x: Signal, k: Float[Tensor, "d lk"]) -> Signal:
    """Convolve each channel with its filter: `y[t] = sum_s k[s] * x[t - s]`, lags from 0, in x's length.

    The transform is long enough for the whole tail, so that nothing wraps round.
    """
    n = x.shape[-1] + k.shape[-1] - 1
    return torch.fft.irfft(torch.fft.rfft(x, n) * torch.fft.rfft(k, n), n)[..., : x.shape[-1]]


def fftconv(
    u: Signal,
    k: Float[Tensor, "d lk"] | Float[Tensor, "d 2 lk"],
    *,
    in_gate: Signal | None = None,
    out_gate: Signal | None = None,
    skip: Float[Tensor, " d"] | None = None,
    bidirectional: bool = False,
    cu_seqlens: Int[Tensor, " n"] | None = None,
) -> Signal:
    """`out_gate * (conv(x, k) + skip * x)` with `x = in_gate * u`; what `dnasm.ops.fftconv` is tested against.

    Computed in float32, or in float64 if an operand is; returned in u's dtype.
    """
    wide = torch.float64 if torch.float64 in (u.dtype, k.dtype) else torch.float32
    x = u.to(wide) if in_gate is None else u.to(wide) * in_gate.to(wide)
    bounds = [0, x.shape[-1]] if cu_seqlens is None else cu_seqlens.tolist()
    pieces = [_convolve(x[..., i:j], k.to(wide), bidirectional) for i, j in pairwise(bounds) if j > i]
    y = torch.cat(pieces, -1)
    if skip is not None:
        y = y + skip.to(wide)[:, None] * x
    return (y if out_gate is None else y * out_gate.to(wide)).to(u.dtype)


def _convolve(x: Signal, k: Tensor, bidirectional: bool) -> Signal:
    if not bidirectional:
        return causal_conv(x, k)
    past, future = k.unbind(1)  # the past with lag 0, the future from lag 1
    ahead = causal_conv(x.flip(-1), torch.nn.functional.pad(future, (1, 0))).flip(-1)
    return causal_conv(x, past) + ahead


def short_conv(x: Signal, weight: Float[Tensor, "d taps"], bias: Float[Tensor, " d"] | None = None) -> Signal:
    """Convolve each channel with a few taps, in torch's order: `weight[:, -1]` meets the present base."""
    padded = torch.nn.functional.pad(x, (weight.shape[-1] - 1, 0))
    return torch.nn.functional.conv1d(
        padded, weight[:, None].to(x.dtype), None if bias is None else bias.to(x.dtype), groups=x.shape[1]
    )
