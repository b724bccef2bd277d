"""Sequences that begin alike: the beginning is read once, and for each sequence only what follows it.

Scoring asks for many windows that differ in a base near their middle. A causal model need not read the first half
again for each of them: any family goes on from a copy of its state, Hyena from what `hyena_suffixes` tells of.

A row's values depend on its own prefix, reference and suffix alone: on no other row, and not on how rows are batched.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from dnasm.models.backbone import MLP, Block, LanguageModel
from dnasm.models.fused import plain
from dnasm.models.hyena_suffixes import HyenaReader
from dnasm.models.likelihood import target_log_probs
from dnasm.models.mixers import H3, Hyena
from dnasm.models.state import DecodingState, MixerState


@runtime_checkable
class PrefixReader(Protocol):
    """A causal model, ready to read beginnings and what may follow them."""

    in_turn: int
    """Suffixes that a thread of a CPU reads one after another, in the memory of one."""

    def read(self, prefixes: Integer[Tensor, "p c"], references: Integer[Tensor, "p n"]) -> Any:
        """Read beginnings, and return what `log_probs` needs of them.

        Args:
            prefixes: Tokens, all of one length.
            references: For each what most of its suffixes resemble; a reader may keep what it finds there.
        """
        ...

    def log_probs(self, held: Any, rows: Sequence[int], suffixes: Integer[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Compute the log-probability of each suffix's bases, in nats; 0 where a token is no base.

        Args:
            held: What `read` returned. It is left as it is.
            rows: The prefix that each suffix follows.
            suffixes: As many tokens as the references have.
        """
        ...


def prefix_reader(model: nn.Module) -> PrefixReader | None:
    """Return the cheapest reader that gives a model's own numbers; None if it can only read whole sequences."""
    if not isinstance(model, LanguageModel) or not model.config.causal:
        return None
    blocks = [cast(Block, block) for block in model.backbone.layers]
    if plain(model.backbone.embeddings.word_embeddings) and all(_reads_as_made(block) for block in blocks):
        return HyenaReader(model) if model.backbone.ln_f.weight.dtype == torch.float32 else None
    if any(isinstance(block.mixer, H3 | Hyena) for block in blocks):
        return None  # these go on from a state more slowly than they read a whole window by transforms
    return StateReader(model)


def _reads_as_made(block: Block) -> bool:
    """Whether a Hyena block's weights say all that it does: no adapter stands in a layer's place, nobody listens."""
    mixer, mlp = block.mixer, block.mlp
    if not isinstance(mixer, Hyena) or not isinstance(mlp, MLP):
        return False
    layers = (mixer.in_proj, mixer.short_filter, mixer.out_proj, block.norm1, block.norm2, mlp.fc1, mlp.fc2)
    return all(plain(layer) for layer in layers)


class StateReader:
    """Goes on from copies of the model's decoding state."""

    in_turn = 1

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    def read(
        self, prefixes: Integer[Tensor, "p c"], references: Integer[Tensor, "p n"]
    ) -> tuple[DecodingState, Float[Tensor, "p 1 v"]]:
        """Bring a state up to the prefixes' end."""
        state = self._model.start(prefixes.shape[0], prefixes.shape[1] + references.shape[1])
        return state, self._model.extend(prefixes, state)[:, -1:]

    def log_probs(
        self,
        held: tuple[DecodingState, Float[Tensor, "p 1 v"]],
        rows: Sequence[int],
        suffixes: Integer[Tensor, "b n"],
    ) -> Float[Tensor, "b n"]:
        """Extend a copy of the state that holds a row for each suffix."""
        state, last = held
        index = torch.tensor(rows, device=suffixes.device)
        logits = self._model.extend(suffixes, _take(state, index))
        return _joined_log_probs(last[index], logits, suffixes)


def _take(state: DecodingState, index: Integer[Tensor, " b"]) -> DecodingState:
    """Return an independent state whose rows are those named."""

    def taken(layer: MixerState) -> MixerState:
        held = {field.name: getattr(layer, field.name) for field in fields(layer)}
        rows: dict[str, Any] = {name: value[index] for name, value in held.items() if isinstance(value, Tensor)}
        return replace(layer, **rows)

    return replace(state, layers=[taken(layer) for layer in state.layers])


def _joined_log_probs(
    last: Float[Tensor, "b 1 v"], logits: Float[Tensor, "b n v"], suffixes: Integer[Tensor, "b n"]
) -> Float[Tensor, "b n"]:
    """Judge each suffix's first base by what the prefix says of it; the last logits are of what is not there."""
    before = suffixes[:, :1]  # stands where the prefix's last token does, which is given, not judged
    return target_log_probs(torch.cat([last, logits], 1), torch.cat([before, suffixes], 1))
