import math

import pytest
import torch
from torch import Tensor

from dnasm.training.loss import MAX_POSITION_BINS, ValidationTally, next_base_loss
from dnasm.vocabulary import NUM_ROWS, PAD, A, C, G, N, T


def tokens_of(*rows: list[int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.uint8)


def weights_of(tokens: Tensor) -> Tensor:
    return ((tokens >= A) & (tokens <= T)).to(torch.uint8)


def test_uniform_logits_have_the_entropy_of_four_bases() -> None:
    tokens = tokens_of([A, C, G, T, N, PAD])
    loss = next_base_loss(torch.zeros(1, 6, NUM_ROWS), tokens, weights_of(tokens))
    assert loss.item() == pytest.approx(math.log(4), abs=1e-6)


def test_special_rows_do_not_change_the_loss() -> None:
    tokens = tokens_of([A, C, G, T])
    logits = torch.randn(1, 4, NUM_ROWS)
    loud = logits.clone()
    loud[..., :A] += 50
    loud[..., N:] += 50
    weights = weights_of(tokens)
    assert torch.equal(next_base_loss(logits, tokens, weights), next_base_loss(loud, tokens, weights))


def test_position_i_predicts_position_i_plus_1() -> None:
    tokens = tokens_of([A, C, G, T])
    right, wrong = torch.zeros(1, 4, NUM_ROWS), torch.zeros(1, 4, NUM_ROWS)
    for i, (here, following) in enumerate(zip([A, C, G], [C, G, T], strict=True)):
        right[0, i, following] = 30
        wrong[0, i, here] = 30
    assert next_base_loss(right, tokens, weights_of(tokens)).item() < 1e-6
    assert next_base_loss(wrong, tokens, weights_of(tokens)).item() == pytest.approx(30, abs=1e-3)


def test_weights_count_targets_by_hand() -> None:
    tokens = tokens_of([A, C, G], [T, T, A])
    logits = torch.randn(2, 3, NUM_ROWS)
    weights = torch.tensor([[9, 0.5, 1], [9, 0, 0.25]], dtype=torch.float16)  # the first of a row is never a target
    log_p = logits[..., A : T + 1].double().log_softmax(-1)
    terms = [(0.5, log_p[0, 0, C - A]), (1, log_p[0, 1, G - A]), (0.25, log_p[1, 1, A - A])]
    expected = -sum(w * value.item() for w, value in terms) / 1.75
    assert next_base_loss(logits, tokens, weights).item() == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_targets_has_loss_and_gradient_zero() -> None:
    tokens = tokens_of([N, N, PAD])
    logits = torch.randn(1, 3, NUM_ROWS, requires_grad=True)
    loss = next_base_loss(logits, tokens, weights_of(tokens))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_half_precision_logits_are_summed_in_float32() -> None:
    tokens = tokens_of([A, C] * 500)
    logits = torch.randn(1, 1000, NUM_ROWS).bfloat16()
    loss = next_base_loss(logits, tokens, weights_of(tokens))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(next_base_loss(logits.double(), tokens, weights_of(tokens)).item(), rel=1e-5)


def tally(*batches: tuple[Tensor, Tensor, Tensor, Tensor], genomes: int = 2) -> ValidationTally:
    sums = ValidationTally(genomes, batches[0][1].shape[1], torch.device("cpu"))
    for batch in batches:
        sums.add(*batch)
    return sums


def test_tally_agrees_with_the_loss_over_any_batches() -> None:
    tokens = torch.randint(A, N + 1, (6, 40), dtype=torch.uint8)  # some are N
    weights, logits, genome = weights_of(tokens), torch.randn(6, 40, NUM_ROWS), torch.tensor([0, 1, 0, 0, 1, 0])
    whole = tally((logits, tokens, weights, genome)).result(lambda sums: sums)
    parts = tally(*((logits[i : i + 2], tokens[i : i + 2], weights[i : i + 2], genome[i : i + 2]) for i in (0, 2, 4)))
    assert parts.result(lambda sums: sums).nats == pytest.approx(whole.nats, rel=1e-12)
    assert whole.nats == pytest.approx(next_base_loss(logits, tokens, weights).item(), rel=1e-5)
    assert whole.targets == int(weights[:, 1:].sum()) == sum(whole.genome_targets)
    for number in (0, 1):
        rows = genome == number
        expected = next_base_loss(logits[rows], tokens[rows], weights[rows]).item()
        assert whole.genome_nats[number] == pytest.approx(expected, rel=1e-5)
    assert whole.bits_per_base == pytest.approx(whole.nats / math.log(2))


def test_tally_by_position_by_hand() -> None:
    tokens = tokens_of([A, C, G], [A, N, T])
    logits = torch.randn(2, 3, NUM_ROWS)
    result = tally((logits, tokens, weights_of(tokens), torch.tensor([0, 0])), genomes=1).result(lambda sums: sums)
    log_p = logits[..., A : T + 1].double().log_softmax(-1)
    (s1, e1, n1, first), (s2, e2, n2, second) = result.positions
    assert (s1, e1, n1, s2, e2, n2) == (1, 2, 1, 2, 3, 2)
    assert first == pytest.approx(-log_p[0, 0, C - A].item(), rel=1e-5)
    assert second == pytest.approx(-(log_p[0, 1, G - A] + log_p[1, 1, T - A]).item() / 2, rel=1e-5)


def test_long_windows_are_binned_without_losing_targets() -> None:
    window = 3 * MAX_POSITION_BINS + 5
    tokens = torch.full((2, window), A, dtype=torch.uint8)
    logits = torch.zeros(2, window, NUM_ROWS)
    result = tally((logits, tokens, weights_of(tokens), torch.tensor([0, 0])), genomes=1).result(lambda sums: sums)
    assert len(result.positions) <= MAX_POSITION_BINS
    assert sum(row[2] for row in result.positions) == result.targets == 2 * (window - 1)
    assert result.positions[-1][1] == window


def test_a_genome_without_targets_has_no_value() -> None:
    tokens = tokens_of([A, C])
    result = tally((torch.zeros(1, 2, NUM_ROWS), tokens, weights_of(tokens), torch.tensor([1]))).result(lambda s: s)
    assert math.isnan(result.genome_nats[0])
    assert result.genome_targets == [0, 1]
    assert result.nats == pytest.approx(math.log(4))
