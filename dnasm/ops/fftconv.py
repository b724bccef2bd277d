"""The FFT long convolution."""

from dnasm.ops.reference import fftconv

__all__ = ["fftconv"]
