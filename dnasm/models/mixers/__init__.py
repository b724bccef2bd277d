"""What mixes along the sequence: one module a family, `(b, l, d)` in and out, causal or seeing both sides."""

from dnasm.models.mixers.attention import Attention
from dnasm.models.mixers.dilated_cnn import DilatedCNN
from dnasm.models.mixers.h3 import H3
from dnasm.models.mixers.hyena import Hyena
from dnasm.models.mixers.multihybrid import Multihybrid

__all__ = ["H3", "Attention", "DilatedCNN", "Hyena", "Multihybrid"]
