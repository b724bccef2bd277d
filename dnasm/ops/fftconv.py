"""The FFT long convolution: the public functions, their checks and their promise of accuracy."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, is_autocast_enabled

from dnasm.ops import backends, eager, registration
from dnasm.ops.operands import PRECISIONS, Operands, check, require_tensor
from dnasm.ops.spectrum import Spectrum

Signal = Float[Tensor, "b d l"]


def fftconv(  # long: its contract is said in one place
    u: Signal,
    k: Tensor | Spectrum,
    *,
    in_gate: Signal | None = None,
    out_gate: Signal | None = None,
    skip: Float[Tensor, " d"] | None = None,
    bidirectional: bool = False,
    cu_seqlens: Int[Tensor, " n"] | None = None,
    max_seqlen: int | None = None,
    backend: str = "auto",
    precision: str | None = None,
) -> Signal:
    """Long convolution `out_gate * (conv(x, k) + skip * x)` with `x = in_gate * u`, never circular, any length.

    `dnasm.ops.reference.fftconv` is the definition. Differentiable in every tensor, twice through the reference;
    deterministic; works under autocast (signals are cast, k and skip keep their dtype) and `torch.compile`.

    How exact, as relative L2 error of a row against float64: float32 and float64 inputs, and every input on a CPU
    before its rounding to u's dtype, 1e-5 or better for white-ish rows. bfloat16 and float16 on CUDA compute with fp16
    operands and fp32 sums: at most 2.0e-3 for white-ish rows (rounding the answer to bfloat16 alone is 1.65e-3), and
    for every row, whatever the data, at any scale::

        error <= floor(y) + 7e-4 * max|K| * norm(x)          K = spectrum of k, floor = rounding y to its dtype

    so a quiet stretch before a loud one, or a smooth filter on differenced data, can be worse than 2e-3 of y, and
    rounding reaches back in time at that level. `precision="float32"` computes in float32 instead. A NaN or an infinity
    spreads over its row (and its channel's dk), not beyond.

    Args:
        u: Signal in float32, bfloat16, float16 or float64; strided views are welcome.
        k: Filter (d, taps) with lags from 0, any number of taps, any float dtype; with `bidirectional` (d, 2, taps),
            the past with lag 0 and the future from lag 1; or what `spectrum` made of one.
        in_gate: Multiplies u, in u's dtype.
        out_gate: Multiplies the result, in u's dtype.
        skip: Weight of x itself, one a channel.
        bidirectional: Whether k has a future too.
        cu_seqlens: Bounds of sequences packed along l, from 0 to l; none sees another.
        max_seqlen: Length of the longest of them. With it, up to 16,384, CUDA kernels read the bounds by themselves:
            nothing waits for the device and a graph can capture the call; but where a sequence is longer after all,
            positions past that length are NaN. Without it each direction reads `cu_seqlens` on the host once, checks
            it, and groups sequences by plan.
        backend: `cuda` and `cpu` run there or raise; `reference` is the definition; `auto` takes the fastest that can
            run, and says once, in the log, if that is not the kernel made for the device.
        precision: `float32`, or None for the dtype's own route.

    Returns:
        (b, d, l) in u's dtype.

    Raises:
        BackendUnavailable: If the named backend cannot run here.
        TypeError: If a dtype does not fit.
        ValueError: If a shape, a device or an option does not fit.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"no precision {precision!r}; pass 'float32' or None")
    require_tensor("u", u)
    values = None
    if isinstance(k, Spectrum):
        k.check(bidirectional)
        values, k = (k.values if u.shape[-1] == k.length else None), k.k
    require_tensor("k", k)
    if cu_seqlens is None and not torch.compiler.is_compiling():
        y = eager.fftconv(u, k, in_gate, out_gate, skip, values, bidirectional, precision, backend)
        if y is not None:
            return y
    op = Operands(u, k, in_gate, out_gate, skip, cu_seqlens, values, bidirectional, max_seqlen, precision)
    device = u.device.type
    # `meta` has no autocast; to ask torch which devices have it would break the graph under torch.compile in 2.11.
    check(op, autocast=device != "meta" and is_autocast_enabled(device))
    named = backends.check_name(backend)
    inputs = (u, k, in_gate, out_gate, skip, cu_seqlens, values, bidirectional, max_seqlen, precision, named)
    return registration.fftconv(*inputs)
