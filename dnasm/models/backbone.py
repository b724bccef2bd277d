"""The model: embedding, blocks of a mixer and an MLP, a final norm, and the head that predicts the next base."""

import math
from collections.abc import Callable, Iterator
from typing import cast

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dnasm.config import ModelConfig
from dnasm.errors import ConfigError
from dnasm.memory import ROWS, mixers
from dnasm.models import strands
from dnasm.models.filters import DiagonalKernel, ExplicitFilter, HyenaFilter, ModalFilter, ShiftKernel
from dnasm.models.fused import add_norm, linear_gelu
from dnasm.models.heads import LanguageModelHead
from dnasm.models.mixers import H3, Attention, DilatedCNN, Hyena, Multihybrid
from dnasm.models.state import DecodingState, MixerState, StatefulMixer

_FILTERS = (HyenaFilter, ShiftKernel, DiagonalKernel, ExplicitFilter, ModalFilter)
_INIT_STD = 0.02
_SSM_MAX_LR = 1e-3  # H3's recipe: state-space parameters learn at min(1e-3, lr), without weight decay


class MLP(nn.Module):
    """Two linear layers with GELU (tanh form) between."""

    def __init__(self, d_model: int, d_inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(d_model, d_inner)
        self.fc2 = nn.Linear(d_inner, d_model)

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        return self.fc2(linear_gelu(self.fc1, x))


class GatedMLP(nn.Module):
    """Two linear layers, the first of which makes values and their gates (SiLU)."""

    def __init__(self, d_model: int, d_inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(d_model, 2 * d_inner)
        self.fc2 = nn.Linear(d_inner, d_model)

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        gate, value = self.fc1(x).chunk(2, -1)
        return self.fc2(nn.functional.silu(gate) * value)


def make_mixer(config: ModelConfig, index: int) -> nn.Module:
    """Build the mixer of a layer."""
    name = mixers(config)[index]
    if name in ("se", "mr", "li"):
        return Multihybrid(config, name)
    if name == "cnn":
        return DilatedCNN(config, index)
    return {"hyena": Hyena, "h3": H3, "attention": Attention}[name](config)


def make_norm(config: ModelConfig) -> nn.LayerNorm | nn.RMSNorm:
    """Build a norm over the channels."""
    if config.family == "multihybrid":
        return nn.RMSNorm(config.d_model, config.layer_norm_epsilon)
    return nn.LayerNorm(config.d_model, config.layer_norm_epsilon)


class Block(nn.Module):
    """`x + mixer(norm(x))`, then `x + mlp(norm(x))`; x stays in float32 whatever the layers compute in."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.mixer = make_mixer(config, index)
        self.mlp = (GatedMLP if config.family == "multihybrid" else MLP)(config.d_model, config.d_inner)
        self.norm1, self.norm2 = make_norm(config), make_norm(config)
        self.dropout = nn.Dropout(config.residual_dropout)

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        return self._run(x, self.mixer)

    def extend(
        self,
        x: Float[Tensor, "b c d"],
        last: Float[Tensor, "b c d"] | None,
        state: MixerState,
        *,
        again: bool,
        only_last: bool = False,
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"]]:
        """Run the block on the next positions, the mixer going on from its state.

        Args:
            x: What comes in, but for `last`.
            last: What the block before adds to x.
            state: The mixer's.
            again: Sums and norms are compiled, on a GPU.
            only_last: Leave out what no one but the last position needs.

        Returns:
            What goes out, but for its last term, and this term: the next norm adds it, in one pass.
        """
        x, h = add_norm(x, last, self.norm1, again=again)
        y = cast(StatefulMixer, self.mixer).extend(h, state)
        if only_last:
            x, y = x[:, -1:].contiguous(), y[:, -1:].contiguous()
        x, h = add_norm(x, self.dropout(y), self.norm2, again=again)
        return x, self.dropout(self.mlp(h))

    def _run(self, x: Float[Tensor, "b l d"], mix: Callable[[Tensor], Tensor]) -> Float[Tensor, "b l d"]:
        x = x + self.dropout(mix(self.norm1(x.to(self.norm1.weight.dtype))))
        return x + self.dropout(self.mlp(self.norm2(x.to(self.norm2.weight.dtype))))


class Embeddings(nn.Module):
    """One vector a token; no positions, the mixers know them."""

    def __init__(self, rows: int, d_model: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(rows, d_model)

    def forward(self, tokens: Integer[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        return self.word_embeddings(tokens.long())


def check_tokens(tokens: Tensor) -> None:
    """Raise ConfigError for what is no batch of token ids; ids that are none are an IndexError of the embedding."""
    if tokens.dtype.is_floating_point or tokens.dtype.is_complex:
        raise ConfigError(f"tokens are {tokens.dtype}; they must be integers: tokens.long()")
    if tokens.dim() != 2:
        raise ConfigError(f"tokens have shape {tuple(tokens.shape)}; a model takes (batch, length): tokens[None]")
    if tokens.shape[1] == 0:
        raise ConfigError(f"tokens have shape {tuple(tokens.shape)}: there is nothing to read")


class Backbone(nn.Module):
    """Tokens to hidden states."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.max_length = config.max_length
        self.checkpoint_activations = False
        """Keep only what goes into each block, and compute the block again for its gradient."""
        self.embeddings = Embeddings(ROWS[config.vocabulary], config.d_model)
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_layers))
        self.ln_f = make_norm(config)

    def forward(self, tokens: Integer[Tensor, "b l"], layer: int = -1) -> Float[Tensor, "b l d"]:
        """Return what leaves block `layer`, or with -1 the final norm."""
        check_tokens(tokens)
        self.check_length(tokens.shape[1])
        blocks = self._up_to(layer)
        x = self._embed(tokens)
        again = self.checkpoint_activations and torch.is_grad_enabled()
        for block in blocks:
            x = checkpoint(block, x, use_reentrant=False) if again else block(x)
        return x if layer != -1 else self.ln_f(x.to(self.ln_f.weight.dtype))

    def extend(
        self, tokens: Integer[Tensor, "b c"], state: DecodingState, layer: int = -1, *, only_last: bool = False
    ) -> Float[Tensor, "b n d"]:
        """Return what `forward` would at the next positions, and bring the state of the layers up to it up to date.

        With `only_last` that of the last position alone, and nothing else of the others that the state does not need.
        """
        blocks = self._up_to(layer)
        state.advance(tokens.shape[1])
        x, last = self._embed(tokens), None
        for block, held in zip(blocks, state.layers, strict=False):
            cut = only_last and block is blocks[-1]
            x, last = cast(Block, block).extend(x, last, held, again=state.again, only_last=cut)
        if layer != -1:
            return x if last is None else x + last
        return add_norm(x, last, self.ln_f, again=state.again)[1]

    def _up_to(self, layer: int) -> list[nn.Module]:
        if not -1 <= layer < len(self.layers):
            raise ConfigError(f"layer {layer} is not one of this model's: 0 to {len(self.layers) - 1}, or -1")
        return list(self.layers)[: None if layer == -1 else layer + 1]

    def check_length(self, length: int) -> None:
        """Raise ConfigError for an input that is longer than the model was built for."""
        if self.max_length is not None and length > self.max_length:
            raise ConfigError(
                f"the input has {length} tokens, this model's max_length is {self.max_length}: "
                "give shorter windows, or a model that was built for longer ones"
            )

    def _embed(self, tokens: Integer[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        x = self.dropout(self.embeddings(tokens))
        return x.to(torch.promote_types(x.dtype, torch.float32))


class LanguageModel(nn.Module):
    """A model of DNA.

    A causal one's `logits[:, i]` predict `tokens[:, i + 1]`, and inputs of unequal length are padded right. One that
    sees both sides (`config.bidirectional`, `config.equivariant`) predicts `tokens[:, i]` where it is masked, and sees
    padding too: batches of it hold one length.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.lm_head = LanguageModelHead(config.d_model, ROWS[config.vocabulary], config.tie_embeddings)

    def forward(self, tokens: Integer[Tensor, "b l"]) -> Float[Tensor, "b l v"]:
        if self.config.equivariant:
            return strands.join_logits(self._head(self.backbone(strands.both_strands(tokens))))
        return self._head(self.backbone(tokens))

    def _head(self, hidden: Float[Tensor, "b l d"]) -> Float[Tensor, "b l v"]:
        return self.lm_head(hidden, self.backbone.embeddings.word_embeddings.weight)

    def hidden(self, tokens: Integer[Tensor, "b l"], layer: int = -1) -> Float[Tensor, "b l d"]:
        """Return the hidden states after block `layer` (from 0), or with -1 after the final norm.

        An equivariant model has twice `d_model` channels: this strand's, then the other's.

        Raises:
            ConfigError: If there is no such layer, or the input is longer than `max_length`.
        """
        if self.config.equivariant:
            return strands.join_hidden(self.backbone(strands.both_strands(tokens), layer))
        return self.backbone(tokens, layer)

    @torch.no_grad()
    def start(self, batch: int, capacity: int, *, again: bool = False) -> DecodingState:
        """Make the state before the first token of `batch` sequences.

        Args:
            batch: Sequences.
            capacity: Tokens that will follow at most, in all. H3's state does not grow with it, attention's cache does,
                and so do Hyena's convolutions, which for their filters' sake end at `max_length`.
            again: Many prompts of one shape will come: on a GPU parts of reading them are compiled at the first, as
                those of replayed steps are in any case.

        Raises:
            ConfigError: If `capacity` is beyond `max_length`, or the model is not causal.
        """
        if not self.config.causal:
            raise ConfigError("this model sees both sides of a position: it cannot go on from a state, nor generate")
        self.backbone.check_length(capacity)
        mixers = [cast(StatefulMixer, cast(Block, block).mixer) for block in self.backbone.layers]
        return DecodingState([mixer.start(batch, capacity) for mixer in mixers], capacity, again=again)

    @torch.no_grad()
    def extend(
        self, tokens: Integer[Tensor, "b c"], state: DecodingState, *, only_last: bool = False
    ) -> Float[Tensor, "b n v"]:
        """Return the logits of the next tokens, as `forward` over everything so far would, and update the state.

        With `only_last` those of the last token alone: over a text's vocabulary the others are most of a prompt's cost.

        One token costs the same at any position with H3, grows with the position in attention, and n of them cost
        O(n log^2 n) with Hyena. Several at once cost about what `forward` costs.

        Raises:
            ConfigError: If they do not fit the state.
        """
        return self._head(self.backbone.extend(tokens, state, only_last=only_last))


def build_model(config: ModelConfig) -> LanguageModel:
    """Build a model with fresh weights, drawn from torch's global generator.

    Raises:
        ConfigError: If settings contradict each other.
    """
    check_model(config)
    model = LanguageModel(config)
    initialize(model)
    mark_parameters(model)
    return model


def check_model(config: ModelConfig) -> None:
    """Raise ConfigError for the first settings that contradict each other."""
    for message in _contradictions(config):
        raise ConfigError(f"model: {message}")


def _contradictions(c: ModelConfig) -> Iterator[str]:
    """Find what cannot be built; the first finding is the one to report, the later ones may rest on it."""
    for name in (
        "d_model", "d_inner", "num_layers", "num_heads", "head_dim", "short_filter", "filter_order",
        "short_taps", "medium_taps", "filter_group", "modes", "cnn_taps",
    ):  # fmt: skip
        if getattr(c, name) < 1:
            yield f"{name} {getattr(c, name)} must be at least 1"
    for name in ("embedding_dropout", "residual_dropout"):
        if not 0 <= getattr(c, name) < 1:
            yield f"{name} {getattr(c, name)} must be at least 0 and below 1"
    if c.max_length is not None and c.max_length < 1:
        yield f"max_length {c.max_length} must be at least 1, or null"
    if c.equivariant and c.vocabulary != "dna":
        yield f"equivariant is for DNA; the vocabulary is {c.vocabulary}"
    if any(not 0 <= i < c.num_layers for i in c.attention_layers):
        yield f"attention_layers {c.attention_layers} must lie in 0 to {c.num_layers - 1}"
    if c.family == "hyena" and c.max_length is None:
        yield "max_length is null, and hyena's filters are defined on it: give a number"
    if c.family == "hyena" and (c.filter_embedding < 3 or c.filter_embedding % 2 == 0):
        yield f"filter_embedding {c.filter_embedding} must be odd and at least 3"
    if c.family == "h3" and c.d_model % c.head_dim:
        yield f"d_model {c.d_model} is no multiple of head_dim {c.head_dim}"
    if c.family == "h3" and (c.state_size < 2 or c.state_size % 2):
        yield f"state_size {c.state_size} must be even and at least 2"
    if c.family == "multihybrid" and c.d_model % c.filter_group:
        yield f"d_model {c.d_model} is no multiple of filter_group {c.filter_group}"
    if c.family == "multihybrid" and not c.pattern:
        yield "pattern is empty; give the filters of the layers, as [se, mr, li]"
    if c.family == "attention" or c.attention_layers:
        if c.d_model % c.num_heads:
            yield f"d_model {c.d_model} is no multiple of num_heads {c.num_heads}"
        if c.rotary_dim % 2 or not 0 <= c.rotary_dim <= c.d_model // c.num_heads:
            yield f"rotary_dim {c.rotary_dim} must be even and at most {c.d_model // c.num_heads}, a head's channels"


def initialize(model: LanguageModel) -> None:
    """Draw linear and embedding weights as GPT-2 does; filters and state-space models have drawn their own."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=_INIT_STD)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    if model.lm_head.weight is not None:
        nn.init.normal_(model.lm_head.weight, std=_INIT_STD)
    scaled = _INIT_STD / math.sqrt(2 * model.config.num_layers)  # the residual sum has two terms a block
    for block in model.backbone.layers:
        assert isinstance(block, Block)
        nn.init.normal_(block.mixer.get_parameter(f"{block.mixer.residual_projection}.weight"), std=scaled)
        nn.init.normal_(block.mlp.fc2.weight, std=scaled)


def mark_parameters(model: nn.Module) -> None:
    """Mark what optimisers treat apart: `_no_weight_decay = True`, and `_max_lr` on state-space parameters.

    Marks are attributes of the parameters: whoever replaces parameters (a copy, `to_empty`) marks again.
    """
    for module in model.modules():
        whole = isinstance(module, (nn.LayerNorm, nn.Embedding, *_FILTERS))
        for parameter in module.parameters(recurse=whole):
            if whole or parameter.ndim < 2:
                parameter._no_weight_decay = True  # type: ignore[attr-defined]
            if isinstance(module, ShiftKernel | DiagonalKernel):
                parameter._max_lr = _SSM_MAX_LR  # type: ignore[attr-defined]


def cast_model(model: nn.Module, dtype: torch.dtype) -> None:
    """Turn a model's weights to `dtype` in place; what makes the filters stays in float32 below that precision."""
    if isinstance(model, _FILTERS) and dtype.itemsize < torch.float32.itemsize:
        return
    for tensor in (*model.parameters(recurse=False), *model.buffers(recurse=False)):
        tensor.data = tensor.data.to(dtype)
    for child in model.children():
        cast_model(child, dtype)
