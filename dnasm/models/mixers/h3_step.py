"""One position of H3 as a function of tensors alone, so that on a GPU a compiler makes a few kernels of it.

A step reads little but its state, and every operation that runs by itself reads and writes it once more: 64 sequences
of the 1.3-billion model hold 1.5 GB of it. Real and imaginary parts lie apart: compilers take no complex numbers.
What is summed lies behind the channels' axis, so that threads side by side read numbers side by side.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor

from dnasm.models.fused import compiled

Step = Callable[..., Tensor]


def step(
    q: Float[Tensor, "b d"],
    k: Float[Tensor, "b d"],
    v: Float[Tensor, "b d"],
    keys: Float[Tensor, "b states d"],
    real: Float[Tensor, "b i j n h"],
    imag: Float[Tensor, "b i j n h"],
    place: Int64[Tensor, " 1"],
    taps: Float[Tensor, "twice d"],
    key_skip: Float[Tensor, " d"],
    planes: tuple[Float[Tensor, "n h"], ...],
    skip: Float[Tensor, " h"],
) -> Float[Tensor, "b d"]:
    """Return what leaves the two state-space models; keys and oscillators are brought up to date in place.

    Args:
        q: Queries, ordered (head, channel) like k and v; the result is (channel, head).
        k: Keys.
        v: Values.
        keys: Ring of the last keys, as precise as they come: that of position p at p modulo their number.
        real: Real parts of the oscillators.
        imag: Imaginary parts.
        place: This position.
        taps: Kernel of the shift, as `around` lays it.
        key_skip: Weight of the key itself.
        planes: Poles, input weights and doubled output weights, real and imaginary parts each.
        skip: Weight of what goes past the diagonal model.
    """
    n, count, dtype = real.shape[1], keys.shape[1], q.dtype
    slot = place % count
    keys.index_copy_(1, slot, k[:, None].to(keys.dtype))
    q, k, v = (z.to(real.dtype) for z in (q, k, v))
    ages = torch.arange(count, 2 * count, device=keys.device) - slot
    shifted = (keys * taps.index_select(0, ages)).sum(1) + key_skip * k
    kv = rearrange(shifted, "b (h i) -> b i 1 h", i=n) * rearrange(v, "b (h j) -> b 1 j h", j=n)
    pole_real, pole_imag, in_real, in_imag, out_real, out_imag = planes
    new_real = pole_real * real - pole_imag * imag + in_real * kv[..., None, :]
    new_imag = pole_real * imag + pole_imag * real + in_imag * kv[..., None, :]
    real.copy_(new_real)
    imag.copy_(new_imag)
    y = (out_real * new_real - out_imag * new_imag).sum(-2) + skip * kv
    chosen = (y * rearrange(q, "b (h i) -> b i 1 h", i=n)).sum(1)
    return rearrange(chosen, "b j h -> b (j h)").to(dtype)


def best_step(device: torch.device, *, again_and_again: bool) -> Step:
    """Return `step`, compiled where many steps on a GPU follow one another and torch has a compiler."""
    return _compiled() if again_and_again and device.type == "cuda" else step


@lru_cache(maxsize=1)
def _compiled() -> Step:
    return compiled(step, "H3's step")


def around(taps: Float[Tensor, "d states"]) -> Float[Tensor, "twice d"]:
    """Lay the taps backwards and twice: those of a ring whose newest key stands at slot s begin at count - s."""
    back = taps.mT.flip(0).roll(1, 0)
    return torch.cat([back, back])
