"""A filter's transform, computed once for many calls."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dnasm.ops import cpu, cuda


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """A filter and its transform; pass it to `fftconv` for k. Gradients flow to `k`."""

    k: Tensor
    """The filter it was made of."""
    length: int
    """Length of the signals that it is meant for."""
    bidirectional: bool
    values: Tensor | None
    """The transform in the backend's own order, or None where the backend keeps none."""
    version: int
    """How often k had been written to by then."""

    def check(self, bidirectional: bool) -> None:
        """Refuse a use that the spectrum was not made for."""
        if bidirectional != self.bidirectional:
            raise ValueError(
                f"k is a spectrum made with bidirectional={self.bidirectional}, the call has {bidirectional}: make it "
                f"by spectrum(k, l, bidirectional={bidirectional})"
            )
        if _version(self.k) != self.version:
            raise ValueError("k was changed in place after its spectrum was made: call spectrum(k, l) again")


def spectrum(k: Tensor, length: int, *, bidirectional: bool = False) -> Spectrum:
    """Transform a filter once, to be passed to `fftconv` as k many times.

    Args:
        k: Filter as `fftconv` takes it.
        length: Length of the signals; another length works too, but then the filter is transformed again.
        bidirectional: Whether k is (d, 2, taps).

    Raises:
        TypeError: If k is not floating point.
        ValueError: If k's shape or the length does not fit.
    """
    if k.dim() != 2 + bidirectional or 0 in k.shape[1:]:
        wanted = "(channels, 2, taps)" if bidirectional else "(channels, taps)"
        raise ValueError(f"k has shape {tuple(k.shape)}; a spectrum takes {wanted}")
    if not k.is_floating_point():
        raise TypeError(f"k is {k.dtype}; it must be floating point: k.float()")
    if length < 1:
        raise ValueError(f"a spectrum is for signals of at least 1 position, got length {length}")
    values = None if torch.compiler.is_compiling() else _values(k.detach(), length, bidirectional)
    return Spectrum(k, length, bidirectional, values, _version(k))


def _version(k: Tensor) -> int:
    """How often k has been written to; of tensors made in inference mode torch does not count it."""
    return 0 if k.is_inference() else k._version


def _values(k: Tensor, length: int, bidirectional: bool) -> Tensor | None:
    if k.device.type == "cpu" and k.dtype != torch.float64 and not cpu.unavailable():
        return cpu.spectrum(k, length, bidirectional)
    return cuda.spectrum(k, length) if k.device.type == "cuda" else None
