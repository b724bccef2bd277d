"""Batches of windows as torch datasets: an item is a whole batch, so that no Python runs for each window."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dnasm.datasets.corpus import Corpus
from dnasm.datasets.windows import Windows
from dnasm.errors import ConfigError

Batch = dict[str, Tensor]
"""`tokens` uint8 (b, window); `weights` uint8 or float16 (b, window): what `tokens[:, i]` counts in the loss as a
target; `windows` int64 (b, 5): genome, contig, start, length and reverse, the columns of `Windows`; `samples` int64
(b, 2): epoch and index, of which everything random about a sample is a function."""

VALIDATION_EPOCH = -1
"""What stands for the epoch of validation windows, which are the same in every validation."""

WINDOWS_AT_ONCE = 4096
"""Windows placed together: to place one takes about as long as to place a hundred."""


def make_batch(corpus: Corpus, windows: Windows, epoch: int, first: int) -> Batch:
    """Read windows into tensors; the first of them is sample `first` of its epoch."""
    tokens, weights = corpus.read(windows)
    index = torch.arange(first, first + len(windows))
    return {
        "tokens": torch.from_numpy(tokens),
        "weights": torch.from_numpy(weights),
        "windows": torch.from_numpy(windows.table.copy()),
        "samples": torch.stack([torch.full_like(index, epoch), index], 1),
    }


class TrainingBatches(Dataset[Batch]):
    """Batch `i` of an endless stream: a pure function of the corpus, its seed and i.

    An epoch has `batches_per_epoch` batches, the last of which is smaller where the batch size does not divide the
    windows of an epoch; batch i belongs to epoch i // batches_per_epoch. So an epoch needs no state in any worker.
    """

    def __init__(self, corpus: Corpus) -> None:
        config = corpus.config
        for name in ("batch_size", "windows_per_epoch"):
            if getattr(config, name) < 1:
                raise ConfigError(f"data.{name} is {getattr(config, name)}; it is at least 1")
        self.corpus = corpus
        self.batches_per_epoch = -(-config.windows_per_epoch // config.batch_size)
        self._block_size = max(1, WINDOWS_AT_ONCE // config.batch_size) * config.batch_size
        self._block: tuple[tuple[int, int], Windows] | None = None

    def __getitem__(self, index: int) -> Batch:
        epoch, batch = divmod(index, self.batches_per_epoch)
        size = self.corpus.config.batch_size
        block, first = divmod(batch * size, self._block_size)
        return make_batch(self.corpus, self._place(epoch, block)[first : first + size], epoch, batch * size)

    def _place(self, epoch: int, block: int) -> Windows:
        """Place a block of windows; the last one is kept, as the next batch is likely to lie in it."""
        if self._block is None or self._block[0] != (epoch, block):
            first = block * self._block_size
            indices = np.arange(first, min(first + self._block_size, self.corpus.config.windows_per_epoch))
            self._block = (epoch, block), self.corpus.sampler.sample(self.corpus.seed, epoch, indices)
        return self._block[1]


class ValidationBatches(Dataset[Batch]):
    """The fixed windows of a validation, in order."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus

    def __len__(self) -> int:
        return -(-len(self.corpus.validation) // self.corpus.config.batch_size)

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < len(self):
            raise IndexError(f"validation batch {index} of {len(self)}")
        size = self.corpus.config.batch_size
        windows = self.corpus.validation[index * size : (index + 1) * size]
        return make_batch(self.corpus, windows, VALIDATION_EPOCH, index * size)
