"""Vectors with what they are of, and the files that hold them."""

import hashlib
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

SUFFIXES = (".npz", ".parquet", ".h5ad")

Text = npt.NDArray[np.object_]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One vector a row, with the sequence that it is of and how it was made; numpy takes it for the vectors."""

    vectors: Vectors
    ids: Text
    """Name of the region or record, or `sequence 0` and so on."""
    contig: Text
    """Empty for sequences that are no regions."""
    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    strand: Text
    """`-`: the reverse strand was read."""
    layer: int
    pool: str
    strands: str
    model_hash: str
    """SHA-256 of the model's weights."""

    def __len__(self) -> int:
        return len(self.vectors)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.vectors, dtype=dtype, copy=copy)

    def __getitem__(self, index: Any) -> Any:
        return self.vectors[index]

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and channels."""
        return self.vectors.shape

    @property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """What each row is of, by the names that tables use."""
        return {"id": self.ids, "chrom": self.contig, "start": self.start, "end": self.end, "strand": self.strand}

    @property
    def provenance(self) -> dict[str, str]:
        """How the vectors were made."""
        return {
            "layer": str(self.layer),
            "pool": self.pool,
            "strands": self.strands,
            "model_hash": self.model_hash,
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
    needed = {".parquet": ("pyarrow", "tables"), ".h5ad": ("anndata", "anndata")}.get(suffix)
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

    width = embeddings.shape[1]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.vectors.reshape(-1)), width)
    text = {name: pa.array(column) for name, column in embeddings.columns.items()}
    table = pa.table({**text, "vector": vectors})
    pq.write_table(table.replace_schema_metadata(embeddings.provenance), draft)


def _write_h5ad(embeddings: Embeddings, draft: Path) -> None:
    import anndata
    import pandas as pd

    obs = pd.DataFrame(embeddings.columns)
    obs.index = [str(number) for number in range(len(obs))]  # ids may repeat, an index may not
    anndata.AnnData(X=embeddings.vectors, obs=obs, uns=embeddings.provenance).write_h5ad(draft)
