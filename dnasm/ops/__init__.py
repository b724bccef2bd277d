"""Torch functions with a fast path; `reference` holds their definitions."""

from dnasm.ops.fftconv import fftconv
from dnasm.ops.reference import short_conv

__all__ = ["fftconv", "short_conv"]
