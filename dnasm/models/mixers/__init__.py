"""What mixes along the sequence: one module a family, `(b, l, d)` in and out, causal."""

from dnasm.models.mixers.attention import Attention
from dnasm.models.mixers.h3 import H3
from dnasm.models.mixers.hyena import Hyena

__all__ = ["H3", "Attention", "Hyena"]
