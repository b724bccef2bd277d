"""The plain definitions that every fast path is tested against: same arguments, no cleverness."""

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

Signal = Float[Tensor, "b d l"]


def causal_conv(x: Signal, k: Float[Tensor, "d lk"]) -> Signal:
    """Convolve each channel with its filter: `y[t] = sum_s k[s] * x[t - s]`, lags from 0, in x's length.

    The transform is long enough for the whole tail, so that nothing wraps round; a power of two, since the library is
    several times slower at the odd length that would just do.
    """
    n = 1 << (x.shape[-1] + k.shape[-1] - 2).bit_length()
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


def fftconv_backward(
    dy: Signal,
    u: Signal,
    k: Float[Tensor, "d lk"] | Float[Tensor, "d 2 lk"],
    in_gate: Signal | None,
    out_gate: Signal | None,
    skip: Float[Tensor, " d"] | None,
    *,
    bidirectional: bool = False,
    cu_seqlens: Int[Tensor, " n"] | None = None,
) -> tuple[Signal, Tensor, Signal, Signal, Float[Tensor, " d"]]:
    """Gradients of `fftconv` for u, k, in_gate, out_gate and skip, written out; tested against autograd.

    With `g = out_gate * dy`, the signal's gradient is g convolved backwards in time, the filter's g correlated with x.
    A gate or a skip that is None is taken as ones and zeros.
    """
    wide = torch.float64 if torch.float64 in (u.dtype, k.dtype) else torch.float32
    ones = torch.ones_like(u)
    gates = [ones if gate is None else gate for gate in (in_gate, out_gate)]
    dy_, u_, k_, in_, out_ = (t.to(wide) for t in (dy, u, k, *gates))
    skip_ = u_.new_zeros(u.shape[1]) if skip is None else skip.to(wide)
    x, g = u_ * in_, dy_ * out_
    dx, dk, conv = torch.empty_like(x), torch.zeros_like(k_), torch.empty_like(x)
    bounds = [0, x.shape[-1]] if cu_seqlens is None else cu_seqlens.tolist()
    for i, j in pairwise(bounds):
        if j > i:
            conv[..., i:j] = _convolve(x[..., i:j], k_, bidirectional)
            _pull_back(g[..., i:j], x[..., i:j], k_, dx[..., i:j], dk)
    dx = dx + skip_[:, None] * g
    du, din, dout = (grad.to(u.dtype) for grad in (dx * in_, dx * u_, dy_ * (conv + skip_[:, None] * x)))
    return du, dk.to(k.dtype), din, dout, (g * x).sum((0, 2)).to(wide if skip is None else skip.dtype)


def _pull_back(g: Signal, x: Signal, k: Tensor, dx: Signal, dk: Tensor) -> None:
    """Set dx and add to dk, for a convolution's result with gradient g."""
    back, lags = g.flip(-1), k.shape[-1]
    if k.dim() == 2:
        dx[:] = causal_conv(back, k).flip(-1)
        dk[:, : x.shape[-1]] += _correlate(g, x, lags)
        return
    past, future = k.unbind(1)
    ahead = torch.nn.functional.pad(future, (1, 0))
    dx[:] = causal_conv(back, past).flip(-1) + causal_conv(g, ahead)
    dk[:, 0, : x.shape[-1]] += _correlate(g, x, lags)
    dk[:, 1, : x.shape[-1] - 1] += _correlate(x, g, lags + 1)[:, 1:]


def _correlate(late: Signal, early: Signal, taps: int) -> Float[Tensor, "d lags"]:
    """`sum_b sum_t late[t] * early[t - s]` for each lag s below `taps`, as far as the signals reach."""
    n = 1 << (2 * late.shape[-1] - 2).bit_length()
    # conj_physical: torch 2.13 drops the lazy bit of conj() inside an operator that runs from a compiled graph.
    product = torch.fft.rfft(late, n) * torch.fft.rfft(early, n).conj_physical()
    return torch.fft.irfft(product.sum(0), n)[..., : min(taps, late.shape[-1])]


def short_conv(
    x: Signal, weight: Float[Tensor, "d taps"], bias: Float[Tensor, " d"] | None = None, *, ahead: int = 0
) -> Signal:
    """Convolve each channel with a few taps, in torch's order: `weight[:, -1 - ahead]` meets the present base."""
    padded = torch.nn.functional.pad(x, (weight.shape[-1] - 1 - ahead, ahead))
    return torch.nn.functional.conv1d(
        padded, weight[:, None].to(x.dtype), None if bias is None else bias.to(x.dtype), groups=x.shape[1]
    )


def hyena_operator(
    projection: Float[Tensor, "b e l"],
    k: Float[Tensor, "d lk"] | Float[Tensor, "d 2 lk"],
    *,
    short_weight: Float[Tensor, "e taps"],
    short_bias: Float[Tensor, " e"] | None = None,
    skip: Float[Tensor, " d"] | None = None,
    bidirectional: bool = False,
) -> Signal:
    """`x0 * (conv(x1 * v, k) + skip * (x1 * v))`, x0, x1 and v a projection's thirds, each through a few taps."""
    ahead = short_weight.shape[-1] // 2 if bidirectional else 0
    x0, x1, v = short_conv(projection, short_weight, short_bias, ahead=ahead).chunk(3, 1)
    return fftconv(v, k, in_gate=x1, out_gate=x0, skip=skip, bidirectional=bidirectional)
