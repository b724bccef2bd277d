"""Sequences that begin alike: the beginning is read once, and for each sequence only what follows it.

Scoring asks for many windows that differ in a base near their middle. A causal model need not read the first half again
for each of them: any family goes on from a copy of its state. For Hyena, whose state is as dear as the beginning itself,
what matters is kept apart: what the beginning adds to every later output of each long convolution, and the last few
inputs of each short one. Its first layer needs no more than a table, because all that comes before its long convolution
depends on as many tokens as the short one has taps.

A row's values depend on its own prefix and suffix alone: on no other row, and not on how rows are batched.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple, Protocol, cast

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn.functional import pad

from dnasm.models.backbone import MLP, Block, LanguageModel
from dnasm.models.likelihood import target_log_probs
from dnasm.models.mixers import Hyena
from dnasm.models.state import DecodingState, MixerState
from dnasm.ops import Spectrum, fftconv, short_conv, spectrum
from dnasm.vocabulary import NUM_TOKENS

_MOST_CODES = NUM_TOKENS**3
_GELU = (0.0713548162726, 1.5957691216057308)  # tanh-form GELU is x * sigmoid(x * (b + a * x * x))


class PrefixReader(Protocol):
    """A causal model, ready to read beginnings and what may follow them."""

    def read(self, prefixes: Integer[Tensor, "p c"], room: int) -> Any:
        """Read beginnings that at most `room` tokens will follow; return what `log_probs` needs of them."""
        ...

    def log_probs(self, held: Any, rows: Sequence[int], suffixes: Integer[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Compute the log-probability of each suffix's bases, in nats; 0 where a token is no base.

        Args:
            held: What `read` returned. It is left as it is.
            rows: The prefix that each suffix follows.
            suffixes: As many tokens as `read` made room for.
        """
        ...


def prefix_reader(model: nn.Module) -> PrefixReader | None:
    """Return the cheapest reader that gives a model's own numbers; None if it can only read whole sequences."""
    if not isinstance(model, LanguageModel) or not model.config.causal:
        return None
    blocks = [cast(Block, block) for block in model.backbone.layers]
    plain = all(isinstance(block.mixer, Hyena) and isinstance(block.mlp, MLP) for block in blocks)
    return HyenaReader(model) if plain and model.backbone.ln_f.weight.dtype == torch.float32 else StateReader(model)


class StateReader:
    """Goes on from copies of the model's decoding state."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    def read(
        self, prefixes: Integer[Tensor, "p c"], room: int
    ) -> tuple[DecodingState, Float[Tensor, "p 1 v"], Integer[Tensor, "p 1"]]:
        """Bring a state up to the prefixes' end."""
        state = self._model.start(prefixes.shape[0], prefixes.shape[1] + room)
        return state, self._model.extend(prefixes, state)[:, -1:], prefixes[:, -1:]

    def log_probs(
        self,
        held: tuple[DecodingState, Float[Tensor, "p 1 v"], Integer[Tensor, "p 1"]],
        rows: Sequence[int],
        suffixes: Integer[Tensor, "b n"],
    ) -> Float[Tensor, "b n"]:
        """Extend a copy of the state that holds a row for each suffix."""
        state, last, tail = held
        index = torch.tensor(rows, device=suffixes.device)
        logits = self._model.extend(suffixes, _take(state, index))
        return _joined_log_probs(last[index], logits, tail[index], suffixes)


def _take(state: DecodingState, index: Integer[Tensor, " b"]) -> DecodingState:
    """Return an independent state whose rows are those named."""

    def taken(layer: MixerState) -> MixerState:
        held = {field.name: getattr(layer, field.name) for field in fields(layer)}
        return replace(layer, **{name: value[index] for name, value in held.items() if isinstance(value, Tensor)})

    return replace(state, layers=[taken(layer) for layer in state.layers])


def _joined_log_probs(
    last: Float[Tensor, "b 1 v"],
    logits: Float[Tensor, "b n v"],
    tail: Integer[Tensor, "b 1"],
    suffixes: Integer[Tensor, "b n"],
) -> Float[Tensor, "b n"]:
    return target_log_probs(torch.cat([last, logits], 1), torch.cat([tail, suffixes], 1))


class _LayerPast(NamedTuple):
    """What one layer keeps of the prefixes."""

    recent: Float[Tensor, "p past d"]
    """The last inputs of its projection, as many as the short convolution looks back."""
    owed: Float[Tensor, "p d n"]
    """What the prefix adds to the long convolution's outputs after it."""


class _HyenaPast(NamedTuple):
    layers: list[_LayerPast]
    last: Float[Tensor, "p 1 v"]
    tail: Integer[Tensor, "p past"]
    """The last tokens."""


class _Lookup(NamedTuple):
    """The first layer's gate and input of its long convolution, for each string of as many tokens as it has taps."""

    table: Float[Tensor, "two_d codes"]

    def read(
        self, tokens: Integer[Tensor, "b past_n"], past: int
    ) -> tuple[Float[Tensor, "b d n"], Float[Tensor, "b d n"]]:
        """Look up each position but the first `past`."""
        count = tokens.shape[1] - past
        codes = torch.zeros(tokens.shape[0], 1, count, dtype=torch.int64, device=tokens.device)
        for start in range(past + 1):
            codes = codes * NUM_TOKENS + tokens[:, None, start : start + count]
        rows = self.table.expand(len(tokens), -1, -1).gather(2, codes.expand(-1, self.table.shape[0], -1))
        gate, signal = rows.chunk(2, 1)
        return gate, signal


class HyenaReader:
    """Goes on from what the prefix adds to each convolution, in float32. The model's weights must stay as they are."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._blocks = [cast(Block, block) for block in model.backbone.layers]
        self._mixers = [cast(Hyena, block.mixer) for block in self._blocks]
        self._past = self._mixers[0].short_filter.weight.shape[-1] - 1
        self._filters: dict[tuple[int, int], list[tuple[Tensor, Spectrum]]] = {}
        # Ordinary tensors, not inference tensors: a spectrum asks for their version.
        with torch.inference_mode(False), torch.no_grad():
            self._lookup = self._make_lookup() if NUM_TOKENS ** (self._past + 1) <= _MOST_CODES else None

    def read(self, prefixes: Integer[Tensor, "p c"], room: int) -> _HyenaPast:
        """Read prefixes once, with the output of each long convolution `room` positions beyond them."""
        length, backbone = prefixes.shape[1], self._model.backbone
        x, layers = backbone.embeddings(prefixes), []
        for block, mixer, (taps, _) in zip(
            self._blocks, self._mixers, self._long_filters(length, room), strict=True
        ):
            h = block.norm1(x)
            gate, signal = _short(mixer, h)
            y = fftconv(pad(signal, (0, room)), taps, skip=mixer.filter_fn.bias)
            recent = pad(h, (0, 0, self._past, 0))[:, h.shape[1] :].clone()
            layers.append(_LayerPast(recent, y[..., length:].clone()))
            if len(layers) == len(self._blocks):  # nothing but the last position is asked for
                x, y, gate = (t.narrow(dim, length - 1, 1) for t, dim in ((x, 1), (y, 2), (gate, 2)))
            x = x.clone()
            _add_projected(x, y[..., : gate.shape[-1]] * gate, mixer.out_proj)
            x = x + block.mlp(block.norm2(x))
        tail = pad(prefixes, (self._past, 0))[:, length:]
        return _HyenaPast(layers, self._logits(x), tail)

    def log_probs(
        self, held: _HyenaPast, rows: Sequence[int], suffixes: Integer[Tensor, "b n"]
    ) -> Float[Tensor, "b n"]:
        """Run the layers over the suffixes alone."""
        room = suffixes.shape[1]
        index = torch.tensor(rows, device=suffixes.device)
        # One prefix for all rows is the common case on a grid: then nothing is copied.
        same = slice(rows[0], rows[0] + 1) if len(set(rows)) == 1 else index
        tail = held.tail[index].to(suffixes.dtype)
        x = self._model.backbone.embeddings(suffixes)
        filters = next(filters for (_, size), filters in self._filters.items() if size == room)
        for number, (block, mixer) in enumerate(zip(self._blocks, self._mixers, strict=True)):
            past = held.layers[number]
            if number == 0 and self._lookup is not None:
                gate, signal = self._lookup.read(torch.cat([tail, suffixes], 1), self._past)
            else:
                h = torch.cat([past.recent[index], block.norm1(x)], 1)
                gate, signal = (part[..., self._past :] for part in _short(mixer, h))
            y = fftconv(signal, filters[number][1], skip=mixer.filter_fn.bias)
            y += past.owed[same]
            y *= gate
            _add_projected(x, y, mixer.out_proj)
            x += _run_mlp(cast(MLP, block.mlp), block.norm2(x))
        return _joined_log_probs(held.last[index], self._logits(x), tail[:, -1:], suffixes)

    def _logits(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n v"]:
        model = self._model
        return model.lm_head(model.backbone.ln_f(x), model.backbone.embeddings.word_embeddings.weight)

    def _long_filters(self, length: int, room: int) -> list[tuple[Tensor, Spectrum]]:
        """Return each layer's filter as long as a whole sequence, and the spectrum of as much as a suffix needs."""
        key = length, room
        if key not in self._filters:
            with torch.inference_mode(False), torch.no_grad():
                whole = [mixer.filter_fn(length + room) for mixer in self._mixers]
                self._filters[key] = [(k, spectrum(k[:, :room].contiguous(), room)) for k in whole]
        return self._filters[key]

    def _make_lookup(self) -> _Lookup:
        mixer, taps = self._mixers[0], self._past + 1
        weight, bias = mixer.short_filter.weight[:, 0], mixer.short_filter.bias
        tokens = torch.arange(NUM_TOKENS, device=weight.device)
        u = mixer.in_proj(self._blocks[0].norm1(self._model.backbone.embeddings(tokens[None])[0]))
        sums = bias if bias is not None else weight.new_zeros(weight.shape[0])
        for tap in range(taps):  # the first is furthest back, and its token the highest digit of a code
            sums = sums[..., None, :] + u * weight[:, tap]
        gate, x1, v = sums.reshape(-1, weight.shape[0]).T.chunk(3)
        return _Lookup(torch.cat([gate, x1 * v]))


def _short(mixer: Hyena, h: Float[Tensor, "b l d"]) -> tuple[Float[Tensor, "b d l"], Float[Tensor, "b d l"]]:
    """Project and convolve with a few taps; return the outer gate and what the long convolution takes."""
    weight, bias = mixer.in_proj.weight, mixer.in_proj.bias
    # The product is made with channels first, as the convolutions want them.
    u = torch.baddbmm(bias[:, None], weight.expand(h.shape[0], -1, -1), h.transpose(1, 2))
    gate, x1, v = short_conv(u, mixer.short_filter.weight[:, 0], mixer.short_filter.bias).chunk(3, 1)
    return gate, x1 * v


def _add_projected(x: Float[Tensor, "b n d"], y: Float[Tensor, "b d n"], projection: nn.Linear) -> None:
    """Add the projection of y, whose channels come first, to x."""
    x.baddbmm_(y.transpose(1, 2), projection.weight.T.expand(len(x), -1, -1))
    x += projection.bias


def _run_mlp(mlp: MLP, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """Compute what `mlp` does; its GELU by a sigmoid in place, which takes half the time on a CPU."""
    h = mlp.fc1(x)
    gate = (h * h).mul_(_GELU[0]).add_(_GELU[1]).mul_(h).sigmoid_()
    return mlp.fc2(h.mul_(gate))
