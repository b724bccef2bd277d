"""The right-angle transform in plain torch: the CPU backend where no compiler is at hand, at any float dtype.

`X_m = sum_n x_n exp(2 pi i n (m + 1/4) / L)` are the values of x, as a polynomial, at the roots of z^L = i. Products
of such values are products of polynomials modulo z^L - i: with real x and k shorter than L, the real part of the
inverse is the causal convolution and the imaginary part is its tail. Nothing is padded to 2 L.

Conjugates are physical: torch 2.13 drops the lazy bit of `conj()` inside an operator that runs from a compiled graph.
"""

import torch
from torch import Tensor

from dnasm.ops.operands import GRADIENTS, Operands

_BLOCK = {"cpu": 1 << 17, "cuda": 1 << 26}
"""Complex elements in a block: 1 MB, which a core's caches hold; half a gigabyte on a GPU, for large launches."""


def _twist(n: int, length: int, like: Tensor) -> Tensor:
    angle = torch.arange(n, dtype=torch.float64, device=like.device) * (torch.pi / 2 / length)
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex(like[:0], like[:0]).dtype)


def transform(x: Tensor, length: int) -> Tensor:
    """Values of x (..., n <= length), real, at the roots of z^length = i; (..., length), complex."""
    return torch.fft.ifft(x * _twist(x.shape[-1], length, x.flatten()), length, norm="forward")


def inverse(z: Tensor, n: int) -> Tensor:
    """Real part of the first n coefficients of the polynomial with values z."""
    length = z.shape[-1]
    turned = torch.fft.fft(z, norm="forward")[..., :n] * _twist(n, length, z.real.flatten()).conj_physical()
    return turned.real


def filter_values(k: Tensor, length: int, bidirectional: bool) -> Tensor:
    """Values of a filter (d, taps) or (d, 2, taps), cut to `length` lags.

    On the circle a negative lag is a conjugate, so the future's taps, from lag 1, cost one transform and no padding.
    """
    if not bidirectional:
        return transform(k[..., :length], length)
    past, future = k.unbind(1)
    ahead = torch.nn.functional.pad(future[..., : length - 1], (1, 0))
    return transform(past[..., :length], length) + transform(ahead, length).conj_physical()


def _wide(op: Operands) -> torch.dtype:
    return torch.float64 if torch.float64 in (op.u.dtype, op.k.dtype) else torch.float32


def _blocks(u: Tensor, length: int) -> list[tuple[slice, slice]]:
    """Slices of rows and of channels, row by row within a channel's, of `_BLOCK` elements where one row allows it."""
    b, d = u.shape[:2]
    most = _BLOCK.get(u.device.type, _BLOCK["cuda"])
    channels = max(1, min(d, most // length))
    rows = max(1, most // (length * channels))
    return [
        (slice(i, min(i + rows, b)), slice(c, min(c + channels, d)))
        for c in range(0, d, channels)
        for i in range(0, b, rows)
    ]


def _part(x: Tensor | None, rows: slice, channels: slice, piece: slice, wide: torch.dtype) -> Tensor | float:
    return 1.0 if x is None else x[rows, channels, piece].to(wide)


def forward(op: Operands) -> Tensor:
    """`fftconv`, block by block."""
    wide, y = _wide(op), torch.empty(op.u.shape, dtype=op.u.dtype, device=op.u.device)
    for start, end in op.pieces():
        n, piece = end - start, slice(start, end)
        for rows, channels in _blocks(op.u, n):
            x = op.u[rows, channels, piece].to(wide) * _part(op.in_gate, rows, channels, piece, wide)
            spectrum = filter_values(op.k[channels].to(wide), n, op.bidirectional)
            part = inverse(transform(x, n) * spectrum, n)
            if op.skip is not None:
                part += op.skip[channels, None].to(wide) * x
            y[rows, channels, piece] = part * _part(op.out_gate, rows, channels, piece, wide)
    return y


def backward(op: Operands, dy: Tensor, needs: tuple[bool, ...]) -> list[Tensor | None]:
    """Gradients for u, k, in_gate, out_gate and skip, each only if needed; filters are summed over rows in order."""
    wide = _wide(op)
    grads = {
        name: torch.zeros_like(getattr(op, name), dtype=wide if name in ("k", "skip") else None)
        if need and getattr(op, name) is not None
        else None
        for name, need in zip(GRADIENTS, needs, strict=True)
    }
    for start, end in op.pieces():
        for rows, channels in _blocks(op.u, end - start):
            _backward_block(op, dy, grads, (rows, channels, slice(start, end)), wide)
    return [None if grad is None else grad.to(getattr(op, name).dtype) for name, grad in grads.items()]


def _backward_block(
    op: Operands, dy: Tensor, grads: dict[str, Tensor | None], at: tuple[slice, slice, slice], wide: torch.dtype
) -> None:
    channels, n = at[1], at[2].stop - at[2].start
    u, gate_in = op.u[at].to(wide), _part(op.in_gate, *at, wide)
    x = u * gate_in
    g = dy[at].to(wide) * _part(op.out_gate, *at, wide)
    skip = 0.0 if op.skip is None else op.skip[channels, None].to(wide)
    spectrum = filter_values(op.k[channels].to(wide), n, op.bidirectional)
    values, g_values = transform(x, n), transform(g, n)
    dx = inverse(g_values * spectrum.conj_physical(), n) + skip * g
    if (du := grads["u"]) is not None:
        du[at] = (dx * gate_in).to(op.u.dtype)
    if (din := grads["in_gate"]) is not None:
        din[at] = (dx * u).to(op.u.dtype)
    if (dout := grads["out_gate"]) is not None:
        conv = inverse(values * spectrum, n) + skip * x
        dout[at] = (dy[at].to(wide) * conv).to(op.u.dtype)
    if (dskip := grads["skip"]) is not None:
        dskip[channels] += (g * x).sum((0, 2))
    if (dk := grads["k"]) is not None:
        _add_filter_gradient(dk[channels], (g_values * values.conj_physical()).sum(0), n)


def _add_filter_gradient(dk: Tensor, product: Tensor, n: int) -> None:
    """Add the lags of sum_b G conj X to a filter's gradient, which is a view into the whole one."""
    taps = min(n, dk.shape[-1])
    if dk.dim() == 2:
        dk[..., :taps] += inverse(product, taps)
        return
    dk[:, 0, :taps] += inverse(product, taps)
    ahead = min(n - 1, dk.shape[-1])
    dk[:, 1, :ahead] += inverse(product.conj_physical(), ahead + 1)[..., 1:]
