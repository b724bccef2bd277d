"""A filter's transform, computed once for many calls."""

from dataclasses import dataclass

from torch import Tensor


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
                f"k is a spectrum of a {'' if self.bidirectional else 'not '}bidirectional filter, "
                f"bidirectional={bidirectional}: make it by spectrum(k, l, bidirectional={bidirectional})"
            )
        if self.k._version != self.version:
            raise ValueError("k was changed in place after its spectrum was made: call spectrum(k, l) again")


def spectrum(k: Tensor, length: int, *, bidirectional: bool = False) -> Spectrum:
    """Transform a filter once, to be passed to `fftconv` as k many times.

    Args:
        k: Filter as `fftconv` takes it.
        length: Length of the signals; another length works too, but then the filter is transformed again.
        bidirectional: Whether k is (d, 2, taps).
    """
    if length < 1:
        raise ValueError(f"a spectrum is for signals of at least 1 position, got length {length}")
    return Spectrum(k, length, bidirectional, None, k._version)
