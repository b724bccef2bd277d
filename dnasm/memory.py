"""How many parameters a model has and how much memory it needs, by arithmetic alone: no torch, nothing is built.

A unit is a float32 for each position and channel, `batch * length * d_model` numbers. What a block keeps for its
gradient is counted in units; filters and their making do not depend on the batch and are counted apart.
"""

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dnasm.config import ModelConfig

ROWS = {"dna": 16, "gpt2": 50_264}
"""Rows of the embedding and of the logits for each vocabulary: its tokens, padded to a multiple of 8."""

_FLOAT = 4
_WORKSPACE = {True: 18_000_000, False: 14_000_000}  # what libraries on a CPU take beside a model; measured
_WAVE_BYTES = 16  # two complex64 for each state and time of H3's kernel, while it is made


def parameters(c: "ModelConfig") -> int:
    """Count a model's parameters."""
    d, inner = c.d_model, c.d_inner
    gated = c.family == "multihybrid"
    mlp = (2 + gated) * d * inner + (1 + gated) * inner + d
    norm = d if gated else 2 * d
    blocks = sum(_MIXER_PARAMETERS[mixer](c) + mlp + 2 * norm for mixer in mixers(c))
    return ROWS[c.vocabulary] * d * (1 if c.tie_embeddings else 2) + blocks + norm


def mixers(c: "ModelConfig") -> list[str]:
    """Name the mixer of each layer: the family's, with `pattern` in turn in place of `multihybrid`."""
    turn = itertools.cycle(c.pattern if c.family == "multihybrid" else [c.family])
    return ["attention" if i in c.attention_layers else next(turn) for i in range(c.num_layers)]


def training_bytes(c: "ModelConfig", length: int, batch: int, checkpoint_activations: bool) -> int:
    """Predict the peak memory of training steps in float32 with AdamW, on top of the loaded libraries.

    Args:
        c: The architecture.
        length: Tokens of a sequence.
        batch: Sequences in a step.
        checkpoint_activations: Whether a block's inside is computed again for its gradient.
    """
    batch *= 1 + c.equivariant
    unit = _FLOAT * batch * length * c.d_model
    kept = [_kept(c, mixer, length, unit) for mixer in mixers(c)]
    # The peak is in the backward pass of the last MLP: the gradients of its hidden channels, and of its output.
    gated = c.family == "multihybrid"
    passing = ((1 + gated) * c.d_inner / c.d_model + 1) * unit + _FLOAT * batch * length * 2 * ROWS[c.vocabulary]
    held = len(kept) * unit + max(kept) if checkpoint_activations else sum(kept)
    held += max(_making_bytes(c, mixer, length) for mixer in mixers(c))
    if c.embedding_dropout:
        held += unit
    weights = _FLOAT * parameters(c)
    # Weights and AdamW's two moments all the time; the gradients come as the activations go.
    return round(3 * weights + _buffers(c) + max(held + passing, weights) + _WORKSPACE[True])


def inference_bytes(c: "ModelConfig", length: int, batch: int) -> int:
    """Predict the peak memory of a forward call in float32 without gradients, on top of the loaded libraries."""
    batch *= 1 + c.equivariant
    unit = _FLOAT * batch * length * c.d_model
    gated = c.family == "multihybrid"
    wide = max(2 + (2 + 2 * gated) * c.d_inner / c.d_model, *(_PASSING[mixer](c) for mixer in mixers(c)))
    making = max(_filter_bytes(c, mixer, length) + _making_bytes(c, mixer, length) for mixer in mixers(c))
    weights = _FLOAT * parameters(c) + _buffers(c)
    return round(weights + wide * unit + making + _FLOAT * batch * length * ROWS[c.vocabulary] + _WORKSPACE[False])


def _kept(c: "ModelConfig", mixer: str, length: int, unit: int) -> float:
    """Bytes that a block keeps for its gradient."""
    # The inputs of both norms and what they return; the MLP's hidden channels before and after the activation.
    gated = c.family == "multihybrid"
    units = 4 + (2 + 2 * gated) * c.d_inner / c.d_model + _KEPT_UNITS[mixer](c)
    if c.residual_dropout:
        units += 2
    return units * unit + _filter_bytes(c, mixer, length)


def _filter_bytes(c: "ModelConfig", mixer: str, length: int) -> int:
    sides = 1 + c.bidirectional
    if mixer == "hyena":  # each sine keeps what comes in, its argument and what goes out; then window and filter
        return _FLOAT * length * (3 * (c.filter_layers + 1) * c.filter_order + 2 * sides * c.d_model)
    return sides * _FLOAT * length * c.d_model if mixer in ("h3", "li") else 0


def _making_bytes(c: "ModelConfig", mixer: str, length: int) -> int:
    """Bytes that the sum of waves takes while it runs, forward or backward; they are not kept."""
    if mixer not in ("h3", "li"):
        return 0
    step = 1 << math.ceil(math.log2(max(length, 1)) / 2)
    poles = c.d_model * c.modes if mixer == "li" else c.d_model // c.head_dim * (c.state_size // 2)
    return _WAVE_BYTES * poles * (step + -(-length // step))


def _buffers(c: "ModelConfig") -> int:
    """Bytes of Hyena's positional features, which every layer holds for the longest input."""
    return _FLOAT * mixers(c).count("hyena") * (c.max_length or 0) * (c.filter_embedding + 1)


def _hyena_parameters(c: "ModelConfig") -> int:
    d, w = c.d_model, c.filter_order
    hidden = c.filter_embedding * w + w + c.filter_layers * (w * w + w) + w  # the last w are frequencies
    made = hidden + (1 + c.bidirectional) * w * d
    return 4 * d * (d + 1) + 3 * d * (c.short_filter + 1) + made + d


def _h3_parameters(c: "ModelConfig") -> int:
    d, heads = c.d_model, c.d_model // c.head_dim
    kernels = 2 * d * c.state_size + heads * (1 + 3 * c.state_size)
    return 4 * d * (d + 1) + (1 + c.bidirectional) * kernels + d + heads


def _multihybrid_parameters(c: "ModelConfig", filters: int) -> int:
    d = c.d_model
    return 4 * d * (d + 1) + 3 * d * (c.short_filter + 1) + (1 + c.bidirectional) * filters


_MIXER_PARAMETERS: dict[str, Callable[["ModelConfig"], int]] = {
    "hyena": _hyena_parameters,
    "h3": _h3_parameters,
    "attention": lambda c: 4 * c.d_model * (c.d_model + 1),
    "se": lambda c: _multihybrid_parameters(c, c.d_model // c.filter_group * c.short_taps),
    "mr": lambda c: _multihybrid_parameters(c, c.d_model // c.filter_group * c.medium_taps),
    "li": lambda c: _multihybrid_parameters(c, 2 * c.d_model * c.modes),
    "cnn": lambda c: 2 * c.d_model * (c.d_model * c.cnn_taps + 1) + c.d_model * (c.d_model + 1),
}
# Units that a mixer keeps between its norm and its output.
_KEPT_UNITS: dict[str, Callable[["ModelConfig"], int]] = {
    "hyena": lambda c: 4,  # the projection, and what the operator returns
    "h3": lambda c: 5 if c.head_dim == 1 else 3 + 2 * c.head_dim,  # q, k, v, shifted k, result; gates by channel
    "attention": lambda c: 7 if c.rotary_dim else 4,  # q, k, v, result; turned q and k, and the result in order
    **dict.fromkeys(("se", "mr", "li"), lambda c: 4),
    "cnn": lambda c: 5,  # the input in order, both halves of the convolution, the gate, the product
}
# Units that a mixer holds at once when nothing is kept, its input among them.
_PASSING: dict[str, Callable[["ModelConfig"], int]] = {
    "hyena": lambda c: 9,
    "h3": lambda c: 7 if c.head_dim == 1 else 10,
    "attention": lambda c: 12 if c.rotary_dim else 7,
    **dict.fromkeys(("se", "mr", "li"), lambda c: 9),
    "cnn": lambda c: 7,
}
