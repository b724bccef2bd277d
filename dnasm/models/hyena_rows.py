"""Hyena's suffixes on a CPU: each is read from where it first differs from a reference that was read before.

A thread takes a few rows at a time and works in memory that it keeps, small enough for its caches: memory that is
taken anew and given back for each step costs a fifth of the time, and threads wait for each other over it.

A row's values follow from its prefix, its reference and itself alone; on the reference they depend by rounding, since
what is taken from it was computed in transforms of all of it.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from dnasm.models.backbone import MLP, Block, LanguageModel
from dnasm.models.likelihood import is_base
from dnasm.models.mixers import Hyena
from dnasm.models.row_threads import each_row
from dnasm.ops import Spectrum, fftconv
from dnasm.vocabulary import NUM_TOKENS, A, T

_STEP = 8  # rows begin at multiples of it, so that several can be taken together and products have even sizes
_FEW = 8  # inputs of a long convolution up to which their changes are added one by one, not by a transform
_TOGETHER = 4096  # positions that a thread takes at a time
_PIECE = 512  # positions of an MLP at a time
_GELU = (0.0713548162726, 1.5957691216057308)  # tanh-form GELU is x * sigmoid(x * (b + a * x * x))


class PastLayer(NamedTuple):
    """What one layer keeps of prefixes."""

    before: Float[Tensor, "p e past"]
    """The last inputs of the short convolution, without the projection's bias."""
    owed: Float[Tensor, "p d n"]
    """What the prefix adds to the long convolution's outputs after it."""


class Past(NamedTuple):
    """What is kept of prefixes."""

    layers: list[PastLayer]
    last: Float[Tensor, "p 4 1"]
    """Log-probabilities of the base that comes first after the prefix."""
    tail: Integer[Tensor, "p past"]
    """The last tokens."""


class Lookup(NamedTuple):
    """The first layer's gate and input of its long convolution, for each string of as many tokens as it has taps."""

    table: Float[Tensor, "codes two_d"]
    taps: int

    @classmethod
    def of(cls, block: Block, embeddings: Float[Tensor, "rows d"]) -> "Lookup":
        """Compute the table of a model's first block."""
        mixer = cast(Hyena, block.mixer)
        weight, bias = mixer.short_filter.weight[:, 0], mixer.short_filter.bias
        u = mixer.in_proj(block.norm1(embeddings[:NUM_TOKENS]))
        sums = bias if bias is not None else weight.new_zeros(weight.shape[0])
        for tap in range(weight.shape[1]):  # the first is furthest back, and its token the highest digit of a code
            sums = sums[..., None, :] + u * weight[:, tap]
        gate, x1, v = sums.reshape(-1, weight.shape[0]).chunk(3, 1)
        return cls(torch.cat([gate, x1 * v], 1), weight.shape[1])

    def codes(self, tokens: Integer[Tensor, "b past_n"]) -> Integer[Tensor, "b n"]:
        """Number the strings that end at each position but the first few."""
        count = tokens.shape[1] - self.taps + 1
        found = torch.zeros(tokens.shape[0], count, dtype=torch.int64, device=tokens.device)
        for start in range(self.taps):
            found = found * NUM_TOKENS + tokens[:, start : start + count]
        return found

    def of_codes(self, codes: Integer[Tensor, "*b n"]) -> tuple[Float[Tensor, "*b d n"], Float[Tensor, "*b d n"]]:
        """Look numbers up."""
        gate, signal = self.table[codes].transpose(-1, -2).chunk(2, -2)
        return gate, signal

    def read(self, tokens: Integer[Tensor, "b past_n"]) -> tuple[Float[Tensor, "b d n"], Float[Tensor, "b d n"]]:
        """Look up each position but the first few."""
        return self.of_codes(self.codes(tokens))


class Filter(NamedTuple):
    """As much of a long convolution's filter as a suffix needs."""

    spectrum: Spectrum
    with_skip: Float[Tensor, "d n"]
    """The taps; the first with what goes past the filter."""


class _ReferenceLayer(NamedTuple):
    signal: Float[Tensor, "d n"]
    """What the long convolution takes."""
    before: Float[Tensor, "steps e past"]
    """Before each place where a row may begin, as `PastLayer.before`."""
    owed: Float[Tensor, "d n"]


class _LookedUp(NamedTuple):
    """The first layer, where there is a table."""

    codes: Integer[Tensor, " n"]
    gate: Float[Tensor, "d n"]
    signal: Float[Tensor, "d n"]
    mixed: Float[Tensor, "d n"]
    """What leaves the long convolution."""


class Reference(NamedTuple):
    """What is kept of a prefix and one suffix of it, from which others go on."""

    first: _LookedUp | None
    layers: list[_ReferenceLayer]
    """But for one that is looked up."""
    tokens: Integer[Tensor, " n"]
    tail: Integer[Tensor, "1 past"]
    expected: Float[Tensor, "4 n"]
    """Log-probabilities of the bases at each place."""
    values: Float[Tensor, " n"]
    """That of the reference's own."""


class _Scratch(threading.local):
    """A thread's memory, which grows to what is asked for."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a tensor with anything in it; it is the same memory under the same name."""
        count = torch.Size(shape).numel()
        if name not in self._held or self._held[name].numel() < count:
            self._held[name] = torch.empty(count)
        return self._held[name][:count].view(shape)


class _Weights(NamedTuple):
    """What a block does after its long convolution: by names in modules each would be looked up for every row."""

    out: Float[Tensor, "d d"]
    out_bias: Float[Tensor, " d"]
    norm: Float[Tensor, " d"]
    shift: Float[Tensor, " d"]
    eps: float
    fc1: Float[Tensor, "d inner"]
    bias1: Float[Tensor, " inner"]
    fc2: Float[Tensor, "inner d"]
    bias2: Float[Tensor, " d"]

    @classmethod
    def of(cls, block: Block) -> "_Weights":
        out, norm, mlp = cast(Hyena, block.mixer).out_proj, cast(nn.LayerNorm, block.norm2), cast(MLP, block.mlp)
        with torch.no_grad():
            return cls(
                out.weight.T, out.bias, norm.weight, norm.bias, norm.eps,
                mlp.fc1.weight.T, mlp.fc1.bias, mlp.fc2.weight.T, mlp.fc2.bias,
            )  # fmt: skip


class RowReader:
    """Reads suffixes row by row."""

    def __init__(self, model: LanguageModel, lookup: Lookup | None) -> None:
        self._model, self._lookup = model, lookup
        self._blocks = [cast(Block, block) for block in model.backbone.layers]
        self._mixers = [cast(Hyena, block.mixer) for block in self._blocks]
        self._weights = [_Weights.of(block) for block in self._blocks]
        self._slope = torch.tensor(_GELU[1])
        self._scratch = _Scratch()

    def follow(self, past: Past, tokens: Integer[Tensor, " n"], filters: Sequence[Filter]) -> Reference:
        """Read what follows one prefix whole, and keep what rows that begin like it need."""
        first, layers = None, []
        x = self._model.backbone.embeddings(tokens[None])
        for number, (block, held) in enumerate(zip(self._blocks, past.layers, strict=True)):
            if number == 0 and self._lookup is not None:
                codes = self._lookup.codes(torch.cat([past.tail.to(tokens.dtype), tokens[None]], 1))
                gate, signal = (t.contiguous() for t in self._lookup.of_codes(codes))
            else:
                gate, signal, before = self._short(x, block, held.before[0])
                layers.append(_ReferenceLayer(signal[0].clone(), before.clone(), held.owed[0]))
            y = fftconv(signal, filters[number].spectrum, skip=self._mixers[number].filter_fn.bias).add_(held.owed)
            if number == 0 and self._lookup is not None:
                first = _LookedUp(codes[0], gate[0], signal[0], y[0].clone())
            self.finish(x, y.mul_(gate), number, 0)
        expected = torch.cat([past.last, self._expect(x)[..., :-1]], 2)
        return Reference(first, layers, tokens, past.tail, expected[0], judge(expected, tokens[None])[0])

    def log_probs(
        self,
        references: Sequence[Reference],
        filters: Sequence[Filter],
        rows: Sequence[int],
        suffixes: Integer[Tensor, "b n"],
    ) -> Float[Tensor, "b n"]:
        """Compute the log-probability of each suffix's bases; `rows` are their references."""
        differs = suffixes != torch.stack([reference.tokens for reference in references])[list(rows)]
        found = torch.stack([references[row].values for row in rows])

        def go_on(pack: tuple[int, int, list[int]]) -> None:
            row, start, places = pack
            found[places, start:] = self._go_on(references[row], filters, start, suffixes[places])

        each_row(go_on, list(_packs(rows, differs)))
        return found

    def _go_on(
        self, reference: Reference, filters: Sequence[Filter], start: int, suffixes: Integer[Tensor, "b n"]
    ) -> Float[Tensor, "b m"]:
        """Compute the values from `start` on, up to where all rows are like the reference."""
        rows, length = suffixes.shape
        tokens = suffixes[:, start:]
        embeddings = self._model.backbone.embeddings.word_embeddings.weight
        x = self._scratch.take("x", rows, length - start, embeddings.shape[1])
        torch.index_select(embeddings, 0, tokens.flatten().long(), out=x.flatten(0, 1))
        kept = iter(reference.layers)
        for number in range(len(self._blocks)):
            if number == 0 and reference.first is not None:
                y = self._first(reference.first, reference.tail, filters[0], start, suffixes)
            else:
                y = self._later(x, next(kept), filters[number], start, number)
            self.finish(x, y, number, start)
        before = reference.expected[:, start, None].expand(rows, -1, -1)
        return judge(torch.cat([before, self._expect(x)[..., :-1]], 2), tokens)

    def _first(
        self,
        held: _LookedUp,
        tail: Integer[Tensor, "1 past"],
        taps: Filter,
        start: int,
        suffixes: Integer[Tensor, "b n"],
    ) -> Float[Tensor, "b d m"]:
        """Mix by the table: to the reference's mixture, add what each input that is not the reference's changes."""
        lookup, (channels, length) = self._lookup, held.signal.shape
        assert lookup is not None
        codes = lookup.codes(torch.cat([tail.to(suffixes.dtype).expand(len(suffixes), -1), suffixes], 1))
        mixed = self._scratch.take("mixed", len(suffixes), channels, length - start)
        for row, found in zip(codes, mixed, strict=True):
            places = (row != held.codes).nonzero()[:, 0]
            gate, signal = lookup.of_codes(row[places])
            change = signal - held.signal[:, places]
            found.copy_(held.mixed[:, start:])
            if len(places) <= _FEW:
                for column, place in enumerate(places.tolist()):
                    by = change[:, column, None]
                    found[:, place - start :].addcmul_(taps.with_skip[:, : length - place], by)
            else:
                spread = torch.zeros_like(held.signal).index_copy_(1, places, change)
                found += fftconv(spread[None], taps.spectrum, skip=self._mixers[0].filter_fn.bias)[0, :, start:]
            gated = found[:, places - start] * gate
            found *= held.gate[:, start:]
            found.index_copy_(1, places - start, gated)
        return mixed

    def _later(
        self, x: Float[Tensor, "b m d"], held: _ReferenceLayer, taps: Filter, start: int, number: int
    ) -> Float[Tensor, "b d m"]:
        """Mix by a transform of the reference's inputs up to `start` and the row's own from there on."""
        gate, own, _ = self._short(x, self._blocks[number], held.before[start // _STEP])
        signal = self._scratch.take("signal", len(x), *held.signal.shape)
        signal[..., :start] = held.signal[:, :start]
        signal[..., start:] = own
        y = fftconv(signal, taps.spectrum, skip=self._mixers[number].filter_fn.bias)[..., start:]
        y += held.owed[:, start:]
        y *= gate
        return y

    def _short(
        self, x: Float[Tensor, "b m d"], block: Block, before: Float[Tensor, "e past"]
    ) -> tuple[Float[Tensor, "b d m"], Float[Tensor, "b d m"], Float[Tensor, "steps e past"]]:
        """Project and convolve with a few taps: the outer gate, the long convolution's input, and what later rows need.

        The projection's bias is not added to each position: it goes through the taps as one number.
        """
        mixer, past = cast(Hyena, block.mixer), before.shape[1]
        u = self._scratch.take("u", len(x), len(before), past + x.shape[1])
        for row, out in zip(x, u, strict=True):
            out[:, :past] = before
            torch.mm(mixer.in_proj.weight, block.norm1(row).T, out=out[:, past:])
        both = torch.ops.dnasm.gated_short_conv(u, mixer.short_filter.weight[:, 0], through_taps(mixer), 0)
        gate, signal = (t[..., past:] for t in both)
        return gate, signal, u[0].unfold(1, past, _STEP).transpose(0, 1)

    def finish(self, x: Float[Tensor, "b m d"], y: Float[Tensor, "b d m"], number: int, start: int) -> None:
        """Add to x the last projection of y, then what the MLP makes of x, a few hundred positions at a time."""
        own = self._weights[number]
        for row, values in zip(x.unbind(), y.unbind(), strict=True):
            row.addmm_(values.T, own.out).add_(own.out_bias)
            for first, last in _pieces(start, start + len(row)):
                part = row[first - start : last - start]
                h, gate = self._scratch.take("wide", 2, len(part), len(own.bias1)).unbind()
                torch.addmm(
                    own.bias1, torch.layer_norm(part, own.norm.shape, own.norm, own.shift, own.eps), own.fc1, out=h
                )
                torch.addcmul(self._slope, h, h, value=_GELU[0], out=gate)
                gate.mul_(h).sigmoid_().mul_(h)
                part.addmm_(gate, own.fc2).add_(own.bias2)

    def _expect(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b 4 n"]:
        """Log-probabilities of the base after each position."""
        head, norm = base_rows(self._model), self._model.backbone.ln_f
        return log_softmax(torch.stack([torch.mm(head, norm(row).T) for row in x]), 1)


def _packs(rows: Sequence[int], differs: Bool[Tensor, "b n"]) -> Iterator[tuple[int, int, list[int]]]:
    """Put places of rows together that go on from one place of one reference: reference, place, rows."""
    length = differs.shape[1]
    groups: dict[tuple[int, int], list[int]] = {}
    for place, (row, any_, first) in enumerate(
        zip(rows, differs.any(1).tolist(), differs.int().argmax(1).tolist(), strict=True)
    ):
        if any_:
            groups.setdefault((row, first // _STEP * _STEP), []).append(place)
    size = max(1, min(_TOGETHER // length, -(-len(rows) // torch.get_num_threads())))
    for (row, start), places in groups.items():
        for i in range(0, len(places), size):
            yield row, start, places[i : i + size]


def _pieces(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut a stretch at multiples of the same number, wherever it begins."""
    while start < end:
        last = min(end, start // _PIECE * _PIECE + _PIECE)
        yield start, last
        start = last


def base_rows(model: LanguageModel) -> Float[Tensor, "4 d"]:
    """The rows of the head that stand for bases."""
    head, embeddings = model.lm_head.weight, model.backbone.embeddings.word_embeddings.weight
    return (embeddings if head is None else head)[A : T + 1]


def judge(expected: Float[Tensor, "b 4 n"], tokens: Integer[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Pick what was expected of each base; 0 where a token is none."""
    found = expected.gather(1, (tokens.long() - A).clamp(0, T - A)[:, None])[:, 0]
    return found.where(is_base(tokens), 0.0)


def through_taps(mixer: Hyena) -> Float[Tensor, " e"]:
    """The short convolution's bias, with what it makes of the projection's."""
    weight, bias = mixer.short_filter.weight[:, 0], mixer.short_filter.bias
    through = mixer.in_proj.bias * weight.sum(1)
    return through if bias is None else through + bias
