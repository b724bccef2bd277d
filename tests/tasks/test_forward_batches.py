"""Batches: sizes, padding, order, and what happens when a device is full."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dnasm import vocabulary
from dnasm.errors import ConfigError
from dnasm.tasks.forward_batches import BatchRunner, check_choice
from dnasm.vocabulary import Tokens

from .scoring import Composition


def _sequences(*lengths: int) -> list[Tokens]:
    return [np.full(length, vocabulary.A, dtype=np.uint8) for length in lengths]


def _lengths(runner: BatchRunner, sequences: list[Tokens]) -> tuple[list[int], list[tuple[int, ...]]]:
    """Bases of each sequence as computed from its row, and the shapes of the batches."""
    shapes: list[tuple[int, ...]] = []

    def compute(tokens: Tensor) -> Tensor:
        shapes.append(tuple(tokens.shape))
        return (tokens == vocabulary.A).sum(1, keepdim=True)

    return [int(row[0]) for row in runner.run(sequences, compute)], shapes


def test_sequences_of_one_length_share_batches_and_keep_their_order() -> None:
    values, shapes = _lengths(BatchRunner(Composition(), 2), _sequences(5, 9, 5, 5, 9))
    assert values == [5, 9, 5, 5, 9]
    assert shapes == [(2, 5), (1, 5), (2, 9)]


def test_padding_joins_lengths_and_follows_from_the_length_alone() -> None:
    values, shapes = _lengths(BatchRunner(Composition(), 10, pad=True), _sequences(1, 8, 100, 97, 1000))
    assert values == [1, 8, 100, 97, 1000]
    assert shapes == [(2, 8), (2, 104), (1, 1024)]


def test_padding_never_passes_the_longest_input() -> None:
    class Limited(nn.Module):
        class config:
            max_length = 1001

    assert _lengths(BatchRunner(Limited(), 10, pad=True), _sequences(1000))[1] == [(1, 1001)]


def test_auto_fits_the_device() -> None:
    runner = BatchRunner(Composition())
    assert runner.size(1024) == 8
    assert runner.size(100_000) == 1


def test_a_full_device_halves_the_batch_and_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    runner = BatchRunner(Composition(), 8)
    sizes = []

    def compute(tokens: Tensor) -> Tensor:
        sizes.append(len(tokens))
        if len(tokens) > 3:
            raise torch.OutOfMemoryError("full")
        return tokens.sum(1, keepdim=True)

    assert len(runner.run(_sequences(*[6] * 9), compute)) == 9
    assert sizes == [8, 4, 2, 2, 2, 2, 1]
    assert capsys.readouterr().err.count("halving the batch until it fits") == 1


def test_a_sequence_that_fits_in_no_batch_is_an_error() -> None:
    def compute(tokens: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(ConfigError, match="no room for a single sequence of 6 bases"):
        BatchRunner(Composition(), 1).run(_sequences(6), compute)


def test_a_setting_that_is_none_of_its_values_is_refused() -> None:
    with pytest.raises(ConfigError, match="strands is 'both'; it must be one of forward, mean"):
        check_choice("strands", "both", ("forward", "mean"))
