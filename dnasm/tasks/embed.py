"""Regions or sequences -> one vector each: the function, and the command that calls it."""

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Integer
from torch import Tensor, nn

from dnasm import vocabulary
from dnasm.config import EmbedConfig
from dnasm.errors import InputError
from dnasm.genome import Genome
from dnasm.models.checkpoint import load
from dnasm.models.chunks import pieces_of
from dnasm.ops import set_backend
from dnasm.tasks.embed_regions import EmbedInput, Region, read_regions
from dnasm.tasks.embeddings import SUFFIXES, Embeddings, model_hash, require_format, write_embeddings
from dnasm.tasks.forward_batches import BatchRunner, BatchSize, check_choice, check_length
from dnasm.tasks.likelihood import check_vocabulary
from dnasm.tasks.new_file import check_new_file, refuse_same_file
from dnasm.tasks.pooling import Pool, pool_pieces
from dnasm.tasks.progress import Meter
from dnasm.tasks.run_record import now, write_run_json
from dnasm.vocabulary import Tokens

EmbedStrands = Literal["forward", "mean"]
_CHUNK = 1024  # regions whose tokens are held at a time


def embed(
    model: nn.Module,
    seqs_or_bed: EmbedInput,
    genome: Genome | str | PathLike[str] | None = None,
    *,
    layer: int = -1,
    pool: Pool = "mean",
    strands: EmbedStrands = "forward",
    batch_size: BatchSize = "auto",
) -> Embeddings:
    """Compute one vector for each sequence or region, in the order given.

    N and padding are left out of the pool. A vector does not depend on the other sequences, their order or the
    batch size. Regions of a BED that lie on strand `-` are read on the reverse strand.

    Args:
        model: As `dnasm.load` returns it.
        seqs_or_bed: Sequences (letters or token arrays), or a FASTA or BED file.
        genome: What a BED speaks of; contig names match with and without `chr`.
        layer: Block after which hidden states are read, from 0; -1: after the final norm.
        pool: `mean` or `max` over the positions, or the `last` one, which in a causal model has seen all others.
        strands: `mean` averages the vectors of the region's strand and of the opposite one.
        batch_size: Sequences in a forward call.

    Returns:
        An `Embeddings`; `numpy.asarray` of it is float32 (n, d).

    Raises:
        InputError: If a sequence is longer than the model takes or holds no base, or a region leaves its contig.
        ConfigError: If there is no such layer, pool or strand.
    """
    opened = Genome(genome) if isinstance(genome, str | PathLike) else genome
    return _embed(model, read_regions(seqs_or_bed, opened), layer, pool, strands, batch_size, None)


def _embed(
    model: nn.Module,
    regions: Sequence[Region],
    layer: int,
    pool: Pool,
    strands: EmbedStrands,
    batch_size: BatchSize,
    meter: Meter | None,
) -> Embeddings:
    check_vocabulary(model)
    check_choice("pool", pool, get_args(Pool))
    check_choice("strands", strands, get_args(EmbedStrands))
    runner = BatchRunner(model, batch_size, pad=True)
    for region in regions:
        check_length(region.name, region.length, runner.max_length)
    compute = partial(_pooled, model, layer, pool)
    rows: list[npt.NDArray[Any]] = []
    for chunk in _chunks(regions):
        rows += _vectors(runner, compute, chunk, strands)
        if meter is not None:
            meter.advance(len(chunk))
    for region, row in zip(regions, rows, strict=True):
        if np.isnan(row).all():
            raise InputError(f"{region.name}: holds no A, C, G or T, so there is nothing to pool; leave it out")
    width = int(getattr(getattr(model, "config", None), "d_model", 0))
    return Embeddings(
        vectors=np.array(rows, dtype=np.float32).reshape(len(rows), len(rows[0]) if rows else width),
        ids=np.array([region.name for region in regions], dtype=object),
        contig=np.array([region.contig for region in regions], dtype=object),
        start=np.array([region.start for region in regions], dtype=np.int64),
        end=np.array([region.end for region in regions], dtype=np.int64),
        strand=np.array([region.strand for region in regions], dtype=object),
        layer=layer,
        pool=pool,
        strands=strands,
        model_hash=model_hash(model),
    )


def _pooled(model: nn.Module, layer: int, pool: Pool, tokens: Integer[Tensor, "b l"]) -> Float[Tensor, "b d"]:
    return pool_pieces(pieces_of(model, tokens, layer), pool)


def _vectors(
    runner: BatchRunner, compute: "partial[Tensor]", chunk: Sequence[Region], strands: EmbedStrands
) -> list[npt.NDArray[Any]]:
    tokens: list[Tokens] = [region.read() for region in chunk]
    own = runner.run(tokens, compute)
    if strands == "forward":
        return own
    opposite = runner.run([vocabulary.reverse_complement(sequence) for sequence in tokens], compute)
    return [(a + b) / 2 for a, b in zip(own, opposite, strict=True)]


def _chunks(regions: Sequence[Region]) -> Iterator[Sequence[Region]]:
    for start in range(0, len(regions), _CHUNK):
        yield regions[start : start + _CHUNK]


def run(config: EmbedConfig) -> None:
    """Embed a file.

    Raises:
        InputError: If an input cannot be used; then there is no output.
        OutputError: If the output exists or cannot be written.
    """
    started = now()
    suffix = check_new_file(config.out, SUFFIXES, force=config.force)
    inputs = [config.regions, *([config.genome] if config.genome is not None else [])]
    refuse_same_file(config.out, *inputs)
    require_format(suffix)
    genome = None if config.genome is None else Genome(config.genome, quiet=config.quiet)
    regions = read_regions(config.regions, genome)
    set_backend(config.conv_backend)
    model = load(config.model, config.device, config.dtype)
    reverse = sum(region.strand == "-" for region in regions)
    note = f", {reverse:,} of them on strand -, read as the reverse complement" if reverse else ""
    plan = f"{config.regions}: {len(regions):,} sequences{note} -> {config.out}"
    if config.dry_run:
        print(plan)
        return
    if not config.quiet:
        print(f"dnasm embed: {plan}", file=sys.stderr)
    with Meter("embed", "sequences", len(regions), quiet=config.quiet) as meter:
        result = _embed(model, regions, config.layer, config.pool, config.strands, config.batch_size, meter)
    write_embeddings(result, config.out, suffix)
    write_run_json(
        Path(f"{config.out}.run.json"),
        config,
        inputs=[*inputs, Path(config.model) / "model.safetensors"],
        counts={"sequences": len(regions), "reverse_strand": reverse, "channels": result.shape[1]},
        started=started,
    )
