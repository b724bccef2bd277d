from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import Tensor

from dnasm.config import DataConfig
from dnasm.datasets.corpus import Corpus
from dnasm.datasets.datamodule import BatchStream, PretrainingData, TrainingLoader
from dnasm.datasets.dataset import Batch, TrainingBatches, ValidationBatches
from dnasm.errors import ConfigError


def same(one: list[Batch], other: list[Batch]) -> bool:
    assert len(one) == len(other)
    return all(
        a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in zip(one, other, strict=True)
    )


def epochs(loader: TrainingLoader, count: int) -> list[Batch]:
    return [batch for _ in range(count) for batch in loader]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")  # on a machine with 2 cores
def test_batches_do_not_depend_on_the_number_of_workers(config: DataConfig) -> None:
    read = {}
    for workers in (0, 1, 3):
        data = PretrainingData(replace(config, num_workers=workers), seed=5)
        read[workers] = (epochs(data.train_dataloader(), 2), list(data.val_dataloader()))
    assert len(read[0][0]) == 14
    for workers in (1, 3):
        assert same(read[workers][0], read[0][0])
        assert same(read[workers][1], read[0][1])


def test_a_batch_has_what_training_expects(config: DataConfig) -> None:
    batch = TrainingBatches(Corpus(config, quiet=True))[0]
    assert {name: (value.dtype, tuple(value.shape)) for name, value in batch.items()} == {
        "tokens": (torch.uint8, (8, 64)),
        "weights": (torch.uint8, (8, 64)),
        "windows": (torch.int64, (8, 5)),
        "samples": (torch.int64, (8, 2)),
    }
    assert batch["samples"].tolist() == [[0, i] for i in range(8)]
    assert TrainingBatches(Corpus(config, quiet=True))[8]["samples"].tolist() == [[1, i] for i in range(8, 16)]


def test_an_epoch_has_each_sample_once_and_epochs_differ(config: DataConfig) -> None:
    batches = TrainingBatches(Corpus(config, quiet=True))
    first, second = (torch.cat([batches[epoch * 7 + i]["windows"] for i in range(7)]) for epoch in (0, 1))
    assert batches.batches_per_epoch == 7
    assert len(first) == len(second) == 50
    assert len(batches[6]["tokens"]) == 2  # what is left of 50
    assert (first[:, 2] == second[:, 2]).float().mean() < 0.1


def test_samples_do_not_depend_on_the_batch_size(config: DataConfig) -> None:
    corpus = Corpus(config, quiet=True)
    other = Corpus(replace(config, batch_size=25), quiet=True)
    small = torch.cat([TrainingBatches(corpus)[i]["tokens"] for i in range(7)])
    large = torch.cat([TrainingBatches(other)[i]["tokens"] for i in range(2)])
    assert torch.equal(small, large)


def test_seeds_differ(config: DataConfig) -> None:
    one, other = (TrainingBatches(Corpus(config, seed=seed, quiet=True))[0] for seed in (0, 1))
    assert not torch.equal(one["tokens"], other["tokens"])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("consumed", [3, 7, 10])
def test_a_loader_resumes_at_any_batch(config: DataConfig, workers: int, consumed: int) -> None:
    data = PretrainingData(replace(config, num_workers=workers), seed=1)
    undisturbed = epochs(data.train_dataloader(), 3)

    def endless(loader: TrainingLoader) -> Iterator[Batch]:
        while True:
            yield from loader

    killed = data.train_dataloader()
    before = list(islice(endless(killed), consumed))  # workers have read further by now
    resumed = data.train_dataloader()
    resumed.load_state_dict(killed.state_dict())
    after = list(islice(endless(resumed), 21 - consumed))
    assert same(before + after, undisturbed)


def test_ranks_share_one_stream(config: DataConfig) -> None:
    streams = [BatchStream(7, rank=rank, world_size=3) for rank in range(3)]
    read = [list(stream) for stream in streams]
    assert [len(stream) for stream in streams] == [2, 2, 2]
    assert sorted(i for numbers in read for i in numbers) == list(range(6))
    for stream in streams:
        stream.position = 2
    assert [next(iter(stream)) for stream in streams] == [6, 7, 8]  # no batch is left out between epochs


def test_validation_reads_its_windows_in_order(config: DataConfig) -> None:
    corpus = Corpus(config, quiet=True)
    batches = ValidationBatches(corpus)
    loader = PretrainingData(config, corpus=corpus).val_dataloader()
    read: list[Tensor] = [batch["windows"] for batch in loader]
    assert torch.equal(torch.cat(read), torch.from_numpy(corpus.validation.table))
    assert len(read) == len(batches)
    with pytest.raises(IndexError):
        batches[len(batches)]


@pytest.mark.parametrize("name", ["batch_size", "windows_per_epoch"])
def test_sizes_below_one_are_refused(config: DataConfig, name: str) -> None:
    with pytest.raises(ConfigError, match=f"data.{name} is 0"):
        TrainingBatches(Corpus(replace(config, **{name: 0}), quiet=True))
