"""Layers as their authors write them, one equation after the other, on a table of weights: any precision, no tricks."""

import torch
from torch import Tensor

State = dict[str, Tensor]


def layer_norm(x: Tensor, s: State, name: str) -> Tensor:
    return torch.nn.functional.layer_norm(x, x.shape[-1:], s[f"{name}.weight"], s[f"{name}.bias"])


def rms_norm(x: Tensor, s: State, name: str) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * s[f"{name}.weight"]


def linear(x: Tensor, s: State, name: str) -> Tensor:
    return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]


def convolve(x: Tensor, k: Tensor) -> Tensor:
    """Filter the positions of x (b, l, d) with k (d, taps), the past alone."""
    n = x.shape[1] + k.shape[1]
    spectrum = torch.fft.rfft(x, n, dim=1) * torch.fft.rfft(k.T, n, dim=0)
    return torch.fft.irfft(spectrum, n, dim=1)[:, : x.shape[1]]


def turn(x: Tensor, channels: int) -> Tensor:
    """Rotary positions on the first channels of each head of x (b, l, heads, n)."""
    frequency = 10_000 ** (-torch.arange(0, channels, 2).double() / channels)
    turned = x[..., : channels // 2] + 1j * x[..., channels // 2 : channels]
    turned = turned * torch.exp(1j * torch.arange(x.shape[1])[:, None, None] * frequency)
    return torch.cat([turned.real, turned.imag, x[..., channels:]], -1)


def attention(x: Tensor, s: State, m: str, heads: int, rotary: int) -> Tensor:
    q, k, v = linear(x, s, f"{m}.Wqkv").unflatten(-1, (3, heads, -1)).unbind(2)
    if rotary:
        q, k = turn(q, rotary), turn(k, rotary)
    scores = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
    future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future, -torch.inf).softmax(-1)
    return linear(torch.einsum("bhts,bshd->bthd", weights, v).flatten(2), s, f"{m}.out_proj")
