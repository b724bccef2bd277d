"""Torch functions with a fast path; `reference` holds their definitions."""

from dnasm.ops.backends import Call, record_calls, set_backend
from dnasm.ops.fftconv import fftconv
from dnasm.ops.hyena import hyena_operator
from dnasm.ops.shortconv import short_conv
from dnasm.ops.spectrum import Spectrum, spectrum
from dnasm.ops.streaming import StreamState, fftconv_step

__all__ = [
    "Call",
    "Spectrum",
    "StreamState",
    "fftconv",
    "fftconv_step",
    "hyena_operator",
    "record_calls",
    "set_backend",
    "short_conv",
    "spectrum",
]
