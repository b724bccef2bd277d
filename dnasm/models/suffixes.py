"""Sequences that begin alike: the beginning is read once, and for each sequence only what follows it.

Scoring asks for many windows that differ in a base near their middle. A causal model need not read the first half
again for each of them: any family goes on from a copy of its state. For Hyena, whose state is as dear as the beginning
itself, what matters is kept apart: what the beginning adds to every later output of each long convolution, and the last
few inputs of each short one. Its first layer needs no more than a table, because all that comes before its long
convolution depends on as many tokens as the short one has taps.

A row's values depend on its own prefix and suffix alone: on no other row, and not on how rows are batched. On a CPU
each row is read by itself, by a thread of its own.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn.functional import pad

from dnasm.models.backbone import MLP, Block, LanguageModel
from dnasm.models.fused import plain
from dnasm.models.likelihood import is_base, target_log_probs
from dnasm.models.mixers import H3, Hyena
from dnasm.models.row_threads import each_row
from dnasm.models.state import DecodingState, MixerState
from dnasm.ops import Spectrum, fftconv, spectrum
from dnasm.vocabulary import NUM_TOKENS, A, T

_MOST_CODES = NUM_TOKENS**3
_KEPT_FILTERS = 4
_CACHED = 512  # positions of an MLP at a time
_ONLY = slice(0, 1)
_PACK = 8  # rows that a thread takes at a time: fewer calls, and still within a cache
_GELU = (0.0713548162726, 1.5957691216057308)  # tanh-form GELU is x * sigmoid(x * (b + a * x * x))


@runtime_checkable
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
    if all(_reads_as_made(block) for block in blocks):
        return HyenaReader(model) if model.backbone.ln_f.weight.dtype == torch.float32 else None
    if any(isinstance(block.mixer, H3 | Hyena) for block in blocks):
        return None  # these go on from a state more slowly than they read a whole window by transforms
    return StateReader(model)


def _reads_as_made(block: Block) -> bool:
    """Whether a Hyena block's weights say all that it does: no adapter stands in a layer's place, nobody listens."""
    mixer, mlp = block.mixer, block.mlp
    if not isinstance(mixer, Hyena) or not isinstance(mlp, MLP):
        return False
    return all(plain(layer) for layer in (mixer.in_proj, mixer.short_filter, mixer.out_proj, mlp.fc1, mlp.fc2))


class StateReader:
    """Goes on from copies of the model's decoding state."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    def read(self, prefixes: Integer[Tensor, "p c"], room: int) -> tuple[DecodingState, Float[Tensor, "p 1 v"]]:
        """Bring a state up to the prefixes' end."""
        state = self._model.start(prefixes.shape[0], prefixes.shape[1] + room)
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


class _LayerPast(NamedTuple):
    """What one layer keeps of the prefixes."""

    recent: Float[Tensor, "p past d"]
    """The last inputs of its projection, as many as the short convolution looks back."""
    owed: Float[Tensor, "p d n"]
    """What the prefix adds to the long convolution's outputs after it."""


class _HyenaPast(NamedTuple):
    layers: list[_LayerPast]
    last: Float[Tensor, "p 1 4"]
    """Log-probabilities of the base that comes first after the prefix."""
    tail: Integer[Tensor, "p past"]
    """The last tokens."""


class _Held(NamedTuple):
    parts: list[_HyenaPast]
    """On a CPU one for each prefix, on a GPU one of all."""
    filters: list[Spectrum]
    """As much of each layer's filter as a suffix needs."""


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
        self._filters: dict[tuple[int, int], list[tuple[Tensor, Spectrum]]] = {}  # by length of prefix and suffix
        # Ordinary tensors, not inference tensors: a spectrum asks for their version.
        with torch.inference_mode(False), torch.no_grad():
            self._lookup = self._make_lookup() if NUM_TOKENS ** (self._past + 1) <= _MOST_CODES else None

    @torch.no_grad()
    def read(self, prefixes: Integer[Tensor, "p c"], room: int) -> _Held:
        """Read prefixes once, with the output of each long convolution `room` positions beyond them."""
        filters = self._long_filters(prefixes.shape[1], room)
        taps = [k for k, _ in filters]
        parts = [prefixes] if prefixes.is_cuda else torch.split(prefixes, 1)
        return _Held(each_row(lambda part: self._begin(part, room, taps), parts), [values for _, values in filters])

    @torch.no_grad()
    def log_probs(self, held: _Held, rows: Sequence[int], suffixes: Integer[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Run the layers over the suffixes alone."""
        if suffixes.is_cuda:
            index = torch.tensor(rows, device=suffixes.device)
            return self._go_on(held.parts[0], held.filters, index, suffixes)
        found = torch.empty(suffixes.shape)

        def go_on(pack: list[int]) -> None:
            found[pack] = self._go_on(held.parts[rows[pack[0]]], held.filters, _ONLY, suffixes[pack])

        each_row(go_on, _packs(rows))
        return found

    def _begin(self, prefixes: Integer[Tensor, "p c"], room: int, filters: Sequence[Tensor]) -> _HyenaPast:
        length, backbone = prefixes.shape[1], self._model.backbone
        x, layers = backbone.embeddings(prefixes), []
        for block, mixer, taps in zip(self._blocks, self._mixers, filters, strict=True):
            h = block.norm1(x)
            gate, signal = _short(mixer, h)
            y = fftconv(pad(signal, (0, room)), taps, skip=mixer.filter_fn.bias)
            recent = pad(h, (0, 0, self._past, 0))[:, h.shape[1] :].clone()
            layers.append(_LayerPast(recent, y[..., length:].clone()))
            if len(layers) == len(self._blocks):  # nothing but the last position is asked for
                x, y, gate = (t.narrow(dim, length - 1, 1) for t, dim in ((x, 1), (y, 2), (gate, 2)))
            _add_projected(x, y[..., : gate.shape[-1]] * gate, mixer.out_proj)
            _add_mlp(x, block)
        return _HyenaPast(layers, self._expect(x), pad(prefixes, (self._past, 0))[:, length:])

    def _go_on(
        self, held: _HyenaPast, filters: Sequence[Spectrum], index: Tensor | slice, suffixes: Integer[Tensor, "b n"]
    ) -> Float[Tensor, "b n"]:
        def of(past: Tensor) -> Tensor:
            return past[index].expand(len(suffixes), *past.shape[1:])

        tail = of(held.tail).to(suffixes.dtype)
        x = self._model.backbone.embeddings(suffixes)
        for number, (block, mixer) in enumerate(zip(self._blocks, self._mixers, strict=True)):
            past = held.layers[number]
            if number == 0 and self._lookup is not None:
                gate, signal = self._lookup.read(torch.cat([tail, suffixes], 1), self._past)
            else:
                h = torch.cat([of(past.recent), block.norm1(x)], 1)
                gate, signal = _short(mixer, h, inside=True)
            y = fftconv(signal, filters[number], skip=mixer.filter_fn.bias)
            y += of(past.owed)
            y *= gate
            _add_projected(x, y, mixer.out_proj)
            _add_mlp(x, block)
        expected = torch.cat([of(held.last), self._expect(x)[:, :-1]], 1)
        found = expected.gather(2, (suffixes.long() - A).clamp(0, T - A)[..., None])[..., 0]
        return found.where(is_base(suffixes), 0.0)

    def _expect(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n 4"]:
        """Log-probabilities of the base after each position."""
        head, embeddings = self._model.lm_head.weight, self._model.backbone.embeddings.word_embeddings.weight
        rows = (embeddings if head is None else head)[A : T + 1]
        h = self._model.backbone.ln_f(x)
        logits = h @ rows.T if h.is_cuda else torch.stack([torch.mm(row, rows.T) for row in h])
        return logits.log_softmax(-1)

    def _long_filters(self, length: int, room: int) -> list[tuple[Tensor, Spectrum]]:
        """Return each layer's filter as long as a whole sequence, and the spectrum of as much as a suffix needs."""
        key = length, room
        if key not in self._filters:
            while len(self._filters) >= _KEPT_FILTERS:  # at a contig's ends every few variants have another length
                self._filters.pop(next(iter(self._filters)))
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


def _packs(rows: Sequence[int]) -> list[list[int]]:
    """Put places of rows that follow one prefix together, a few at a time and no more than keeps all threads busy."""
    size = min(_PACK, -(-len(rows) // torch.get_num_threads()))
    places: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row, []).append(place)
    return [held[i : i + size] for held in places.values() for i in range(0, len(held), size)]


def _product(weight: Float[Tensor, "e d"], h: Float[Tensor, "b l d"]) -> Float[Tensor, "b e l"]:
    """Multiply each position with a matrix; channels come out first, as the convolutions want them.

    On a CPU each row is a product of its own: how a library rounds a product may depend on its size.
    """
    if h.is_cuda:
        return torch.matmul(weight, h.transpose(1, 2))
    products = h.new_empty(h.shape[0], weight.shape[0], h.shape[1])
    for row, out in zip(h, products, strict=True):
        torch.mm(weight, row.T, out=out)
    return products


def _short(
    mixer: Hyena, h: Float[Tensor, "b l d"], *, inside: bool = False
) -> tuple[Float[Tensor, "b d n"], Float[Tensor, "b d n"]]:
    """Project and convolve with a few taps; return the outer gate and what the long convolution takes.

    Args:
        mixer: Whose.
        h: Its input.
        inside: The first positions are there for the taps alone, and are not returned. Then the projection's bias need
            not be added to each position, since it goes through the taps as one number.
    """
    weight, offset, past = mixer.short_filter.weight[:, 0], mixer.in_proj.bias, 0
    bias: Tensor | None = mixer.short_filter.bias
    u = _product(mixer.in_proj.weight, h)
    if inside:
        past = weight.shape[1] - 1
        through = offset * weight.sum(1)
        bias = through if bias is None else through + bias
    else:
        u += offset[:, None]
    gate, signal = torch.ops.dnasm.gated_short_conv(u, weight, bias, 0)
    return gate[..., past:], signal[..., past:]


def _add_projected(x: Float[Tensor, "b n d"], y: Float[Tensor, "b d n"], projection: nn.Linear) -> None:
    """Add the projection of y, whose channels come first, to x."""
    if x.is_cuda:
        x += torch.matmul(y.transpose(1, 2), projection.weight.T)
    else:
        for row, values in zip(x, y, strict=True):
            row.addmm_(values.T, projection.weight.T)
    x += projection.bias


def _add_mlp(x: Float[Tensor, "b n d"], block: Block) -> None:
    """Add what the block's MLP makes of x; its GELU by a sigmoid in place, which takes half the time on a CPU.

    There a few hundred positions go at a time, so that the wide layer between stays in the cache; a GPU wants them all.
    """
    mlp = cast(MLP, block.mlp)
    for part in [x] if x.is_cuda else [part for row in x for part in row.split(_CACHED)]:
        h = mlp.fc1(block.norm2(part))
        gate = torch.addcmul(h.new_full((), _GELU[1]), h, h, value=_GELU[0]).mul_(h).sigmoid_()
        part.flatten(0, -2).addmm_(h.mul_(gate).flatten(0, -2), mlp.fc2.weight.T)
        part += mlp.fc2.bias
