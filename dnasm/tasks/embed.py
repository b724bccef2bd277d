"""Regions or sequences -> one vector each: the function, and the command that calls it."""

import sys
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from torch import nn

from dnasm.config import EmbedConfig
from dnasm.errors import ConfigError
from dnasm.genome import Genome
from dnasm.models.checkpoint import load
from dnasm.ops import set_backend
from dnasm.tasks.embed_layers import Layer
from dnasm.tasks.embed_regions import EmbedInput, Region, cut_windows, read_regions
from dnasm.tasks.embed_zarr import MARKER, zarr_sink
from dnasm.tasks.embedder import Embedder, EmbedStrands, Rows, require_bases
from dnasm.tasks.embeddings import SUFFIXES, Embeddings, model_hash, provenance, require_format, write_embeddings
from dnasm.tasks.forward_batches import BatchSize
from dnasm.tasks.new_file import check_new_file, refuse_same_file
from dnasm.tasks.outputs import check_new_folder
from dnasm.tasks.pooling import Pool
from dnasm.tasks.progress import Meter, counted
from dnasm.tasks.run_record import now, write_run_json


def embed(
    model: nn.Module,
    seqs_or_bed: EmbedInput,
    genome: Genome | str | PathLike[str] | None = None,
    *,
    layer: Layer | Sequence[Layer] = -1,
    pool: Pool = "mean",
    strands: EmbedStrands = "forward",
    window: int | None = None,
    stride: int | None = None,
    batch_size: BatchSize = "auto",
    num_workers: int = 1,
) -> Embeddings:
    """Compute one vector for each sequence or region, in the order given.

    N and padding are left out of the pool. A vector does not depend on the other sequences, their order, the batch
    size or the number of workers. Regions of a BED that lie on strand `-` are read on the reverse strand. Sequences of
    more than 65,536 bases go through a causal model piece by piece.

    Args:
        model: As `dnasm.load` returns it.
        seqs_or_bed: Sequences (letters or token arrays), or a FASTA or BED file, or with a genome a place on it.
        genome: What a BED or a place speaks of; contig names match with and without `chr`.
        layer: Number or name of a layer, as `dnasm.layers(model)` lists them, or a list of some: 0 is after the first
            block, -1 after the final norm.
        pool: `mean` or `max` over the bases, the `last` one, which in a causal model has seen all others, the one in
            the `centre`, or `none`: every position has its vector.
        strands: `mean` averages the vectors of the region's strand and of the opposite one, `concat` puts them side by
            side; with pool `none` both are of the same base.
        window: Cut every sequence into windows of so many bases; those without a base are left out.
        stride: Bases from one window's start to the next; None: the window.
        batch_size: Sequences in a forward call.
        num_workers: Threads that read the next sequences while the model works; 0: none.

    Returns:
        An `Embeddings`; `numpy.asarray` of it is float32 (n, d), with a list of layers (n, layers, d).

    Raises:
        InputError: If a sequence is longer than the model takes or holds no base, or a region leaves its contig.
        ConfigError: If there is no such layer, pool or strand.
    """
    opened = Genome(genome) if isinstance(genome, str | PathLike) else genome
    embedder = Embedder(model, layer, pool, strands, batch_size, num_workers)
    regions = _windows(read_regions(seqs_or_bed, opened), window, stride)
    return _collect(embedder, regions, windowed=window is not None, meter=None)


def _windows(regions: list[Region], window: int | None, stride: int | None) -> list[Region]:
    if window is None:
        if stride is not None:
            raise ConfigError(f"stride is {stride}, and there is no window: give both or neither")
        return regions
    return cut_windows(regions, window, window if stride is None else stride)


def _kept(
    embedder: Embedder, chunk: Sequence[Region], rows: Sequence[Rows], *, windowed: bool
) -> tuple[list[Region], list[Rows]]:
    """Leave out windows of nothing but N; a region that a user named is an error."""
    if embedder.pool == "none":
        return list(chunk), list(rows)
    if not windowed:
        require_bases(chunk, rows)
    kept = [not np.isnan(row).all() for row in rows]
    return [r for r, keep in zip(chunk, kept, strict=True) if keep], [r for r, k in zip(rows, kept, strict=True) if k]


def _collect(embedder: Embedder, regions: Sequence[Region], *, windowed: bool, meter: Meter | None) -> Embeddings:
    embedder.check(regions)
    kept: list[Region] = []
    rows: list[Rows] = []
    for chunk, values in embedder.run(regions):
        some = _kept(embedder, chunk, values, windowed=windowed)
        kept += some[0]
        rows += some[1]
        if meter is not None:
            meter.advance(len(chunk))
    ragged = embedder.pool == "none"
    width = _width(embedder)
    vectors = (np.concatenate(rows) if ragged else np.stack(rows)) if rows else np.empty((0, *width), np.float32)
    return Embeddings(
        vectors=vectors.reshape(len(vectors), *width).astype(np.float32, copy=False),
        ids=_text(region.name for region in kept),
        contig=_text(region.contig for region in kept),
        start=np.array([region.start for region in kept], dtype=np.int64),
        end=np.array([region.end for region in kept], dtype=np.int64),
        strand=_text(region.strand for region in kept),
        layers=embedder.layers,
        pool=embedder.pool,
        strands=embedder.strands,
        model_hash=model_hash(embedder.model),
        offsets=np.cumsum([0, *(len(row) for row in rows)]) if ragged else None,
    )


def _text(values: Iterable[str]) -> "np.ndarray[tuple[int], np.dtype[np.object_]]":
    return np.array(list(values), dtype=object)


def _width(embedder: Embedder) -> tuple[int, ...]:
    """Shape of one vector."""
    config = getattr(embedder.model, "config", None)
    channels = int(getattr(config, "d_model", 0)) * (2 if getattr(config, "equivariant", False) else 1)
    channels *= 2 if embedder.strands == "concat" else 1
    return (channels,) if embedder.single else (len(embedder.layers), channels)


def run(config: EmbedConfig) -> None:
    """Embed a file.

    Raises:
        InputError: If an input cannot be used; then there is no output.
        OutputError: If the output exists or cannot be written.
    """
    started = now()
    suffix = _check_output(config)
    inputs = [config.regions, *([config.genome] if config.genome is not None else [])]
    refuse_same_file(config.out, *inputs)
    genome = None if config.genome is None else Genome(config.genome, quiet=config.quiet)
    regions = _windows(read_regions(config.regions, genome), config.window, config.stride)
    set_backend(config.conv_backend)
    model = load(config.model, config.device, config.dtype)
    embedder = Embedder(model, config.layer, config.pool, config.strands, config.batch_size, config.num_workers)
    reverse = sum(region.strand == "-" for region in regions)
    note = f", {reverse:,} of them on strand -, read as the reverse complement" if reverse else ""
    plan = f"{config.regions}: {counted(len(regions), 'sequence')}{note}, {', '.join(embedder.layers)} -> {config.out}"
    if config.dry_run:
        print(plan)
        return
    if not config.quiet:
        print(f"dnasm embed: {plan}", file=sys.stderr)
    with Meter("embed", "sequences", len(regions), quiet=config.quiet) as meter:
        written = _write(embedder, regions, suffix, config, meter)
    if written < len(regions) and not config.quiet:
        print(f"dnasm embed: {len(regions) - written:,} windows hold no base and are left out", file=sys.stderr)
    counts = {"sequences": written, "reverse_strand": reverse, "without_a_base": len(regions) - written}
    write_run_json(
        Path(f"{config.out}.run.json"),
        config,
        inputs=[*(name for name in inputs if Path(name).exists()), Path(config.model) / "model.safetensors"],
        counts=counts | {"channels": _width(embedder)[-1]},
        started=started,
    )


def _check_output(config: EmbedConfig) -> str:
    suffix = ".zarr"
    if config.out.lower().endswith(suffix):
        check_new_folder(config.out, force=config.force, marker=MARKER)
    else:
        suffix = check_new_file(config.out, SUFFIXES, force=config.force)
        if config.pool == "none":
            raise ConfigError(f"--pool none keeps every position, which is streamed to --out OUT.zarr, not {suffix}")
    require_format(suffix)
    return suffix


def _write(embedder: Embedder, regions: Sequence[Region], suffix: str, config: EmbedConfig, meter: Meter) -> int:
    """Write what is computed; return the number of rows."""
    windowed = config.window is not None
    if suffix != ".zarr":
        result = _collect(embedder, regions, windowed=windowed, meter=meter)
        write_embeddings(result, config.out, suffix)
        return len(result)
    embedder.check(regions)
    written = 0
    with zarr_sink(config.out, single=embedder.single, ragged=embedder.pool == "none") as sink:
        for chunk, rows in embedder.run(regions):
            kept, values = _kept(embedder, chunk, rows, windowed=windowed)
            sink.write(kept, values)
            written += len(kept)
            meter.advance(len(chunk))
        digest = model_hash(embedder.model)
        sink.finish(_width(embedder), provenance(embedder.layers, embedder.pool, embedder.strands, digest))
    return written
