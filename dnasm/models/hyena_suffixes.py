"""Hyena goes on from what a beginning adds to its convolutions, not from a state, which is as dear as the beginning.

Kept are what the beginning adds to every later output of each long convolution, and the last few inputs of each short
one. The first layer needs no more than a table, because all that comes before its long convolution depends on as many
tokens as the short one has taps.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import gelu, pad

from dnasm.models.backbone import MLP, Block, LanguageModel
from dnasm.models.hyena_rows import (
    Filter,
    Lookup,
    Past,
    PastLayer,
    Reference,
    RowReader,
    base_rows,
    judge,
    through_taps,
)
from dnasm.models.mixers import Hyena
from dnasm.models.row_threads import each_row
from dnasm.ops import fftconv, spectrum
from dnasm.vocabulary import NUM_TOKENS

_MOST_CODES = NUM_TOKENS**3
_KEPT_FILTERS = 4


class _Held(NamedTuple):
    """What was read of prefixes: on a GPU of all together, on a CPU of each by itself, with what follows it."""

    together: Past | None
    references: list[Reference]
    filters: list[Filter]


class HyenaReader:
    """Reads beginnings and what follows them, in float32. The model's weights must stay as they are."""

    in_turn = 64

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._blocks = [cast(Block, block) for block in model.backbone.layers]
        self._mixers = [cast(Hyena, block.mixer) for block in self._blocks]
        self._past = self._mixers[0].short_filter.weight.shape[-1] - 1
        self._filters: dict[tuple[int, int], list[tuple[Tensor, Filter]]] = {}  # by length of prefix and suffix
        # Ordinary tensors, not inference tensors: a spectrum asks for their version.
        with torch.inference_mode(False), torch.no_grad():
            few = NUM_TOKENS ** (self._past + 1) <= _MOST_CODES
            self._lookup = Lookup.of(self._blocks[0], model.backbone.embeddings.word_embeddings.weight) if few else None
        self._rows = RowReader(model, self._lookup)

    @torch.no_grad()
    def read(self, prefixes: Integer[Tensor, "p c"], references: Integer[Tensor, "p n"]) -> _Held:
        """Read prefixes once, with the output of each long convolution as far as the references reach."""
        room = references.shape[1]
        filters = self._long_filters(prefixes.shape[1], room)
        taps, short = [k for k, _ in filters], [part for _, part in filters]
        if prefixes.is_cuda:
            return _Held(self._begin(prefixes, room, taps), [], short)

        def read(row: int) -> Reference:
            past = self._begin(prefixes[row : row + 1], room, taps)
            return self._rows.follow(past, references[row], short)

        return _Held(None, each_row(read, range(len(prefixes))), short)

    @torch.no_grad()
    def log_probs(self, held: _Held, rows: Sequence[int], suffixes: Integer[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Run the layers over the suffixes alone."""
        if held.together is None:
            return self._rows.log_probs(held.references, held.filters, rows, suffixes)
        return self._go_on(held.together, held.filters, torch.tensor(rows, device=suffixes.device), suffixes)

    def _begin(self, prefixes: Integer[Tensor, "p c"], room: int, filters: Sequence[Tensor]) -> Past:
        length, backbone = prefixes.shape[1], self._model.backbone
        x, layers = backbone.embeddings(prefixes), []
        for block, mixer, taps in zip(self._blocks, self._mixers, filters, strict=True):
            u = torch.matmul(mixer.in_proj.weight, block.norm1(x).transpose(1, 2))
            before = pad(u, (self._past, 0))[..., length:].clone()
            u += mixer.in_proj.bias[:, None]
            weight, bias = mixer.short_filter.weight[:, 0], mixer.short_filter.bias
            gate, signal = torch.ops.dnasm.gated_short_conv(u, weight, bias, 0)
            y = fftconv(pad(signal, (0, room)), taps, skip=mixer.filter_fn.bias)
            layers.append(PastLayer(before, y[..., length:].clone()))
            if len(layers) == len(self._blocks):  # nothing but the last position is asked for
                x, y, gate = (t.narrow(dim, length - 1, 1) for t, dim in ((x, 1), (y, 2), (gate, 2)))
            y = y[..., : gate.shape[-1]] * gate
            if x.is_cuda:
                x = _add_block(x, y, block, mixer)
            else:
                self._rows.finish(x, y, len(layers) - 1, 0)
        return Past(layers, self._expect(x), pad(prefixes, (self._past, 0))[:, length:])

    def _go_on(
        self, held: Past, filters: Sequence[Filter], index: Integer[Tensor, " b"], suffixes: Integer[Tensor, "b n"]
    ) -> Float[Tensor, "b n"]:
        """Read all rows together, as a GPU wants them."""
        x = self._model.backbone.embeddings(suffixes)
        for number, (block, mixer) in enumerate(zip(self._blocks, self._mixers, strict=True)):
            past = held.layers[number]
            if number == 0 and self._lookup is not None:
                gate, signal = self._lookup.read(torch.cat([held.tail[index].to(suffixes.dtype), suffixes], 1))
            else:
                u = torch.matmul(mixer.in_proj.weight, block.norm1(x).transpose(1, 2))
                u = torch.cat([past.before[index], u], 2)
                both = torch.ops.dnasm.gated_short_conv(u, mixer.short_filter.weight[:, 0], through_taps(mixer), 0)
                gate, signal = (t[..., self._past :] for t in both)
            y = fftconv(signal, filters[number].spectrum, skip=mixer.filter_fn.bias)
            y += past.owed[index]
            x = _add_block(x, y.mul_(gate), block, mixer)
        return judge(torch.cat([held.last[index], self._expect(x)[..., :-1]], 2), suffixes)

    def _expect(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b 4 n"]:
        """Log-probabilities of the base after each position."""
        return torch.matmul(base_rows(self._model), self._model.backbone.ln_f(x).transpose(1, 2)).log_softmax(1)

    def _long_filters(self, length: int, room: int) -> list[tuple[Tensor, Filter]]:
        """Return each layer's filter as long as a whole sequence, and as much of it as a suffix needs."""
        key = length, room
        if key not in self._filters:
            while len(self._filters) >= _KEPT_FILTERS:  # at a contig's ends every few variants have another length
                self._filters.pop(next(iter(self._filters)))
            with torch.inference_mode(False), torch.no_grad():
                self._filters[key] = [_cut(mixer, length, room) for mixer in self._mixers]
        return self._filters[key]


def _cut(mixer: Hyena, length: int, room: int) -> tuple[Tensor, Filter]:
    k = mixer.filter_fn(length + room)
    part = k[:, :room].contiguous()
    with_skip = part.clone()
    with_skip[:, 0] += mixer.filter_fn.bias
    return k, Filter(spectrum(part, room), with_skip)


def _add_block(
    x: Float[Tensor, "b n d"], y: Float[Tensor, "b d n"], block: Block, mixer: Hyena
) -> Float[Tensor, "b n d"]:
    """Add to x what the block makes of it, y being what its mixer's last projection takes."""
    x = x + torch.matmul(y.transpose(1, 2), mixer.out_proj.weight.T) + mixer.out_proj.bias
    mlp = cast(MLP, block.mlp)
    return x + mlp.fc2(gelu(mlp.fc1(block.norm2(x)), approximate="tanh"))
