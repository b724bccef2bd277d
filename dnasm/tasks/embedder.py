"""Run a model over regions and pool what its layers hold: rows in order, in chunks that fit the memory."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Integer
from torch import Tensor, nn

from dnasm import vocabulary
from dnasm.errors import ConfigError, InputError
from dnasm.models.backbone import LanguageModel
from dnasm.models.chunks import PIECE
from dnasm.tasks.embed_layers import Layer, find_layers, hidden_layers, hidden_pieces, layer_names, takes_pieces
from dnasm.tasks.embed_regions import Region
from dnasm.tasks.forward_batches import BatchRunner, BatchSize, check_choice, check_length, evaluating, memory_told
from dnasm.tasks.likelihood import check_vocabulary
from dnasm.tasks.pooling import Pool, pool_pieces, pool_states
from dnasm.tasks.read_ahead import map_ahead
from dnasm.vocabulary import Tokens

EmbedStrands = Literal["forward", "mean", "concat"]
Rows = npt.NDArray[np.float32]

_CHUNK = 1024  # regions whose tokens are held at a time
_CHUNK_NUMBERS = 1 << 26  # of a chunk's result, where every position is kept


class Embedder:
    """A model and what is wanted of it."""

    def __init__(
        self,
        model: nn.Module,
        layer: Layer | Sequence[Layer],
        pool: Pool,
        strands: EmbedStrands,
        batch_size: BatchSize,
        num_workers: int = 1,
    ) -> None:
        check_vocabulary(model)
        check_choice("pool", pool, get_args(Pool))
        check_choice("strands", strands, get_args(EmbedStrands))
        self.model = model
        self.pool: Pool = pool
        self.strands: EmbedStrands = strands
        self.runner = BatchRunner(model, batch_size, pad=True)
        self._numbers = find_layers(model, layer)
        self.layers = layer_names(model, self._numbers)
        self.single = isinstance(layer, int | str)
        self._compute = partial(_pooled, model, self._numbers, pool)
        if num_workers < 0:
            raise ConfigError(f"num_workers is {num_workers}; it must be 0 or more")
        self._workers = num_workers

    def check(self, regions: Sequence[Region]) -> None:
        """Raise InputError for the first region that the model cannot take."""
        longest = self.runner.max_length
        for region in regions:
            check_length(region.name, region.length, None)
            if longest is not None and region.length > longest:
                raise InputError(
                    f"{region.name} has {region.length:,} bases, the model takes at most {longest:,}; "
                    f"--window {longest} cuts it into windows"
                )

    def run(self, regions: Sequence[Region]) -> Iterator[tuple[list[Region], list[Rows]]]:
        """Yield regions in their order, each with its (layers, d), or with `none` (bases, layers, d).

        A region without a base has nan.
        """
        size = self._chunk(regions)
        chunks = (list(regions[start : start + size]) for start in range(0, len(regions), size))
        with map_ahead(_read, chunks, self._workers) as ahead:
            for chunk, tokens in ahead:
                yield chunk, self._chunk_rows(tokens)

    def _chunk(self, regions: Sequence[Region]) -> int:
        if self.pool != "none":
            return _CHUNK
        longest = max((region.length for region in regions), default=1)
        width = len(self._numbers) * int(getattr(getattr(self.model, "config", None), "d_model", 1))
        return max(1, min(_CHUNK, _CHUNK_NUMBERS // (longest * width)))

    def _chunk_rows(self, tokens: Sequence[Tokens]) -> list[Rows]:
        own = self._rows(tokens)
        if self.strands == "forward":
            return own
        opposite = self._rows([vocabulary.reverse_complement(sequence) for sequence in tokens])
        if self.pool == "none":
            opposite = [rows[::-1] for rows in opposite]
        if self.strands == "mean":
            return [(a + b) / np.float32(2) for a, b in zip(own, opposite, strict=True)]
        return [np.concatenate([a, b], -1) for a, b in zip(own, opposite, strict=True)]

    def _rows(self, sequences: Sequence[Tokens]) -> list[Rows]:
        long = {i for i, sequence in enumerate(sequences) if takes_pieces(self.model, len(sequence))}
        short = iter(self.runner.run([s for i, s in enumerate(sequences) if i not in long], self._compute))
        rows = []
        for i, sequence in enumerate(sequences):
            row = self._long(sequence) if i in long else next(short)
            rows.append(row[: len(sequence)] if self.pool == "none" else row)
        return rows

    def _long(self, sequence: Tokens) -> Rows:
        assert isinstance(self.model, LanguageModel), "takes_pieces has said so"
        advice = f"{len(sequence):,} bases are read in such pieces: take --dtype bfloat16 or --device cpu"
        with evaluating(self.model), memory_told(self.model, PIECE, 1, advice):
            pieces = hidden_pieces(self.model, torch.from_numpy(sequence)[None], self._numbers)
            if self.pool == "none":
                return np.concatenate([piece.cpu().numpy() for piece in pieces])
            flat = (piece.flatten(1) for piece in pieces)
            return pool_pieces(flat, sequence, self.pool).reshape(len(self._numbers), -1)


def _read(chunk: list[Region]) -> tuple[list[Region], list[Tokens]]:
    return chunk, [region.read() for region in chunk]


def _pooled(model: nn.Module, numbers: Sequence[int], pool: Pool, tokens: Integer[Tensor, "b l"]) -> Tensor:
    hidden = hidden_layers(model, tokens, numbers)
    pooled = pool_states(hidden.flatten(2), tokens, pool)
    return pooled.reshape(*pooled.shape[:-1], len(numbers), -1)


def require_bases(regions: Sequence[Region], rows: Sequence[Rows]) -> None:
    """Refuse a region of nothing but N.

    Raises:
        InputError: Names it.
    """
    for region, row in zip(regions, rows, strict=True):
        if np.isnan(row).all():
            raise InputError(f"{region.name}: holds no A, C, G or T, so there is nothing to pool; leave it out")
