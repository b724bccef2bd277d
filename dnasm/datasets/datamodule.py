"""The windows of a pretraining run as a Lightning data module."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Sampler

from dnasm.config import DataConfig
from dnasm.datasets.corpus import Corpus
from dnasm.datasets.dataset import Batch, TrainingBatches, ValidationBatches


class BatchStream(Sampler[int]):
    """Numbers of the batches that one rank reads: `position`, and on from there for one epoch's worth.

    The next iteration goes on where the consumer stopped, so that the stream runs through epochs and restarts without
    a seam; nothing but `position` has to be kept.
    """

    def __init__(self, batches_per_epoch: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.position = 0
        self._length = max(1, batches_per_epoch // world_size)
        self._rank, self._world_size = rank, world_size

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        first = self.position
        return (i * self._world_size + self._rank for i in range(first, first + self._length))


class TrainingLoader(DataLoader[Batch]):
    """A loader that can be saved and resumed at any batch: it counts the batches that it handed out.

    Workers read ahead of the consumer; what they read ahead is not counted, and read again after a restart.
    """

    def __init__(self, dataset: TrainingBatches, stream: BatchStream, **options: Any) -> None:
        super().__init__(dataset, batch_size=None, sampler=stream, **options)
        self.stream = stream

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # a generator serves as well as torch's iterator
        for batch in super().__iter__():
            self.stream.position += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How far the stream has been read; Lightning keeps it in its checkpoints."""
        return {"position": self.stream.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the batches that were read when the state was saved."""
        self.stream.position = state["position"]


class PretrainingData(LightningDataModule):
    """Training and validation windows; the same batches in the same order for any number of workers.

    The trainer must be told `use_distributed_sampler=False`: each rank reads its own batches of the one stream.
    """

    def __init__(self, config: DataConfig, *, seed: int = 0, corpus: Corpus | None = None) -> None:
        """Take the settings.

        Args:
            config: Which genomes, regions, windows, and how many workers.
            seed: Seed of the training windows.
            corpus: The genomes, if they are open already.
        """
        super().__init__()
        self.config, self.seed = config, seed
        self._corpus = corpus

    @property
    def corpus(self) -> Corpus:
        """The opened genomes; opened on first use."""
        if self._corpus is None:
            self._corpus = Corpus(self.config, seed=self.seed)
        return self._corpus

    def prepare_data(self) -> None:
        """Build the token stores, in one process of a node."""
        _ = self.corpus

    def train_dataloader(self) -> TrainingLoader:
        dataset = TrainingBatches(self.corpus)
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        stream = BatchStream(dataset.batches_per_epoch, rank=rank, world_size=world_size)
        return TrainingLoader(dataset, stream, **self._options())

    def val_dataloader(self) -> DataLoader[Batch]:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        dataset = ValidationBatches(self.corpus)
        return DataLoader(dataset, batch_size=None, sampler=range(rank, len(dataset), world_size), **self._options())

    def _options(self) -> dict[str, Any]:
        workers = self.config.num_workers
        return {
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": torch.cuda.is_available(),
            # A loader draws a seed for its workers; from torch's global generator it would shift the model's dropout.
            "generator": torch.Generator(),
        }
