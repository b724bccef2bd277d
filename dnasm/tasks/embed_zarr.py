"""Vectors streamed to a Zarr folder as they are computed; it appears whole or not at all."""

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dnasm.errors import DnasmError, OutputError
from dnasm.tasks.embed_regions import Region
from dnasm.tasks.embedder import Rows

MARKER = ".zgroup"
"""A file that every such folder holds."""
_CHUNK_NUMBERS = 1 << 20  # of a chunk of an array: 4 MB


class ZarrSink:
    """Appends rows to `vectors` and, at the end, says what they are of."""

    def __init__(self, group: Any, *, single: bool, ragged: bool) -> None:
        self._group = group
        self._single, self._ragged = single, ragged
        self._regions: list[Region] = []
        self._offsets = [0]
        self._vectors: Any = None

    def write(self, regions: Sequence[Region], rows: Sequence[Rows]) -> None:
        """Take the next rows."""
        if not rows:
            return
        block = np.concatenate(rows) if self._ragged else np.stack(rows)
        if self._single:
            block = block[:, 0]
        if self._vectors is None:
            self._vectors = self._make(block.shape[1:])
        self._vectors.append(block)
        self._regions += regions
        self._offsets += (self._offsets[-1] + np.cumsum([len(row) for row in rows])).tolist()

    def finish(self, width: Sequence[int], provenance: Mapping[str, str]) -> None:
        """Write the columns and how the vectors were made.

        Args:
            width: Shape of a row, for a file without any.
            provenance: Attributes of the group.
        """
        if self._vectors is None:
            self._make(width)
        text = {
            "id": [region.name for region in self._regions],
            "chrom": [region.contig for region in self._regions],
            "strand": [region.strand for region in self._regions],
        }
        columns: dict[str, Any] = {name: np.array(values, dtype=np.str_) for name, values in text.items()}
        columns["start"] = np.array([region.start for region in self._regions], dtype=np.int64)
        columns["end"] = np.array([region.end for region in self._regions], dtype=np.int64)
        if self._ragged:
            columns["offsets"] = np.array(self._offsets, dtype=np.int64)
        for name, column in columns.items():
            self._group.create_array(name, data=column)
        self._group.attrs.update(provenance)

    def _make(self, width: Sequence[int]) -> Any:
        rows = max(1, _CHUNK_NUMBERS // max(1, int(np.prod(width))))
        return self._group.create_array("vectors", shape=(0, *width), chunks=(rows, *width), dtype="float32")


@contextmanager
def zarr_sink(out: str, *, single: bool, ragged: bool) -> Iterator[ZarrSink]:
    """Open a sink beside its place; the folder takes its name at the end, or is removed if an error comes by.

    Args:
        out: Folder, which `check_new_folder` has allowed to make or replace.
        single: Whether rows have no axis of layers.
        ragged: Whether every position has a row.

    Raises:
        OutputError: If the disk is full or the folder cannot be written.
    """
    import zarr

    target = Path(out)
    draft = target.with_name(f".{os.getpid()}.{secrets.token_hex(4)}.tmp.{target.name}")
    try:
        # Format 2: its text columns are specified, those of format 3 are not yet.
        yield ZarrSink(zarr.open_group(str(draft), mode="w", zarr_format=2), single=single, ragged=ragged)
        if target.exists():
            shutil.rmtree(target)
        os.replace(draft, target)
    except OSError as error:
        if isinstance(error, DnasmError) or error.errno is None:
            raise
        raise OutputError(f"{target} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
