"""Scores by shards: ranges of the input that are finished one by one, so that a killed run goes on and ranks share.

Each finished shard is a file in a folder beside the output. A later run of the same command, or another rank of this
one, finds it there; when all are there, they are joined in the order of the input and the folder goes.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from dnasm.errors import OutputError
from dnasm.tasks.new_file import new_file
from dnasm.tasks.score_table import ScoreTable

Item = TypeVar("Item")
_POLL = 0.2  # seconds between two looks for what other ranks have finished


@dataclass(frozen=True)
class Rank:
    """One of several processes that share the work, as torchrun starts them."""

    number: int = 0
    count: int = 1

    @classmethod
    def from_environment(cls) -> "Rank":
        """Read RANK and WORLD_SIZE, which torchrun sets."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    def owns(self, shard: int, shards: int) -> bool:
        """Whether a shard is this rank's: each has one stretch of the input."""
        return shard * self.count // shards == self.number


class Parts:
    """The finished shards of one output."""

    def __init__(self, out: str, what: Mapping[str, Any]) -> None:
        """Name the folder; nothing is made yet.

        Args:
            out: The output.
            what: All that the scores depend on. Parts of something else are never used.
        """
        target = Path(out)
        text = json.dumps(what, sort_keys=True, default=str)
        self.folder = target.with_name(f".{target.name}.parts-{hashlib.sha256(text.encode()).hexdigest()[:16]}")
        self._others = f".{target.name}.parts-*"

    def clear(self, *, others: bool = False) -> None:
        """Remove the folder; with `others` also those of other commands with the same output."""
        for folder in self.folder.parent.glob(self._others) if others else [self.folder]:
            shutil.rmtree(folder, ignore_errors=True)

    def done(self, shard: int) -> bool:
        """Whether a shard is finished."""
        return self._path(shard).is_file()

    def save(self, shard: int, table: ScoreTable) -> None:
        """Write a finished shard; it is there as a whole or not at all."""
        self.folder.mkdir(exist_ok=True)
        with new_file(self._path(shard)) as draft:
            draft.write_text(json.dumps(table.to_lists()), encoding="utf-8")

    def load(self, shard: int, method: str = "llr") -> ScoreTable:
        """Read a finished shard, every number as it was."""
        return ScoreTable.from_lists(json.loads(self._path(shard).read_text(encoding="utf-8")), method)

    def wait(self, shards: int) -> None:
        """Wait until every shard is finished, by whichever rank.

        Raises:
            OutputError: If a rank says that it failed.
        """
        for shard in range(shards):
            while not self.done(shard):
                for note in self.folder.glob("failed-*"):
                    raise OutputError(f"{note.name.replace('failed-', 'rank ')} stopped: {note.read_text()}")
                time.sleep(_POLL)

    @contextmanager
    def telling(self, rank: Rank) -> Iterator[None]:
        """Leave a note for the other ranks if the work in the block fails; alone, leave no empty folder."""
        note = self.folder / f"failed-{rank.number}"
        note.unlink(missing_ok=True)
        try:
            yield
        except Exception as error:
            if rank.count > 1:
                self.folder.mkdir(exist_ok=True)
                note.write_text(str(error), encoding="utf-8")
            elif self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()
            raise

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:08d}.json"


def split(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut a stream into shards."""
    stream = iter(items)
    while shard := list(islice(stream, size)):
        yield shard
