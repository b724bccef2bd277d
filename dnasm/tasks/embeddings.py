"""Vectors with what they are of, and the files that hold them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import dnasm
from dnasm.errors import MissingExtra
from dnasm.tasks.new_file import new_file

SUFFIXES = (".npz", ".parquet", ".h5ad", ".zarr")

Text = npt.NDArray[np.object_]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One vector a row, with the sequence that it is of and how it was made; numpy takes it for the vectors."""

    vectors: Vectors
    """(n, d), with several layers (n, layers, d). With pool `none` a row is a base: row i's are those from
    `offsets[i]` to `offsets[i + 1]`."""
    ids: Text
    """Name of the region or record, or `sequence 0` and so on."""
    contig: Text
    """Empty for sequences that are no regions."""
    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    strand: Text
    """`-`: the reverse strand was read."""
    layers: tuple[str, ...]
    pool: str
    strands: str
    model_hash: str
    """SHA-256 of the model's weights."""
    offsets: npt.NDArray[np.int64] | None = None
    """n + 1 numbers, where every position was kept."""

    def __len__(self) -> int:
        return len(self.ids)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.vectors, dtype=dtype, copy=copy)

    def __getitem__(self, index: Any) -> Any:
        return self.vectors[index]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of `vectors`."""
        return self.vectors.shape

    @property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """What each row is of, by the names that tables use."""
        return {"id": self.ids, "chrom": self.contig, "start": self.start, "end": self.end, "strand": self.strand}

    @property
    def provenance(self) -> dict[str, str]:
        """How the vectors were made."""
        return provenance(self.layers, self.pool, self.strands, self.model_hash)


def provenance(layers: Sequence[str], pool: str, strands: str, digest: str) -> dict[str, str]:
    """Say how vectors were made, in the words that every format holds."""
    return {
        "layer": ",".join(layers),
        "pool": pool,
        "strands": strands,
        "model_hash": digest,
        "dnasm_version": dnasm.__version__,
    }


def model_hash(model: nn.Module) -> str:
    """Hash names, shapes and values of all weights; the same on any device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {list(values.shape)} {values.dtype}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def require_format(suffix: str) -> None:
    """Fail before the work if a format cannot be written here.

    Raises:
        MissingExtra: If its package is not installed.
    """
    extras = {".parquet": ("pyarrow", "tables"), ".h5ad": ("anndata", "anndata"), ".zarr": ("zarr", "anndata")}
    needed = extras.get(suffix)
    if needed is None:
        return
    try:
        __import__(needed[0])
    except ImportError:
        raise MissingExtra(f"{suffix} needs {needed[0]}: pip install 'dnasm[{needed[1]}]'") from None


def write_embeddings(embeddings: Embeddings, out: str, suffix: str) -> None:
    """Write vectors and what they are of; the file appears whole or not at all."""
    writers = {".npz": _write_npz, ".parquet": _write_parquet, ".h5ad": _write_h5ad}
    with new_file(out) as draft:
        writers[suffix](embeddings, draft)


def _write_npz(embeddings: Embeddings, draft: Path) -> None:
    columns = {
        name: column.astype(np.str_) if column.dtype == object else column  # text without pickle
        for name, column in embeddings.columns.items()
    }
    extra: dict[str, Any] = {**columns, **embeddings.provenance}
    with draft.open("xb") as handle:
        np.savez(handle, vectors=embeddings.vectors, **extra)


def _write_parquet(embeddings: Embeddings, draft: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = {name: pa.array(column) for name, column in embeddings.columns.items()}
    vectors = {
        "vector" if layer is None else f"vector_{layer}": pa.FixedSizeListArray.from_arrays(
            pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[-1]
        )
        for layer, values in _by_layer(embeddings)
    }
    table = pa.table(text | vectors)
    pq.write_table(table.replace_schema_metadata(embeddings.provenance), draft)


def _write_h5ad(embeddings: Embeddings, draft: Path) -> None:
    import anndata
    import h5py
    import pandas as pd
    from anndata.io import write_elem

    obs = pd.DataFrame(embeddings.columns)
    obs.index = [str(number) for number in range(len(obs))]  # ids may repeat, an index may not
    by_layer = dict(_by_layer(embeddings))
    X, obsm = (by_layer[None], {}) if None in by_layer else (None, by_layer)
    table = anndata.AnnData(X=X, obs=obs, obsm=obsm, uns=embeddings.provenance)
    # Made in memory: where a disk is full, HDF5 prints pages, and may crash as it closes the file.
    with h5py.File(draft.name, "w", driver="core", backing_store=False) as file:
        write_elem(file, "/", table)
        file.flush()
        image = file.id.get_file_image()
    draft.write_bytes(image)


def _by_layer(embeddings: Embeddings) -> list[tuple[str | None, Vectors]]:
    """Vectors of each layer with its name; a single layer that was not asked for in a list has none."""
    if embeddings.vectors.ndim == 2:
        return [(None, embeddings.vectors)]
    return [(layer, embeddings.vectors[:, i]) for i, layer in enumerate(embeddings.layers)]
