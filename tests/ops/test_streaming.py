"""Chunk by chunk is the same as at once, and costs the same at every chunk."""

import pytest
import torch

from dnasm.ops import fftconv, fftconv_step, record_calls


@pytest.mark.parametrize("chunks", [[1] * 30, [64] * 4, [5, 1, 200, 3, 91], [300]])
@pytest.mark.parametrize("taps", [1, 7, 100, 500])
def test_chunks_join_to_the_whole(chunks: list[int], taps: int) -> None:
    u, k = torch.randn(2, 3, sum(chunks)), torch.randn(3, taps)
    state, found = None, []
    for chunk in u.split(chunks, -1):
        y, state = fftconv_step(chunk, k, state)
        assert y.shape == chunk.shape
        found.append(y)
    torch.testing.assert_close(torch.cat(found, -1), fftconv(u, k), atol=1e-4, rtol=1e-4)


def test_the_hundredth_chunk_costs_what_the_second_does() -> None:
    k, state, costs = torch.randn(2, 1000), None, []
    for _ in range(100):
        with record_calls() as calls:
            _, state = fftconv_step(torch.randn(1, 2, 64), k, state)
        costs.append(sum(call.work for call in calls))
    assert costs[99] <= 1.2 * costs[1]


def test_the_filters_spectrum_is_kept_between_equal_chunks() -> None:
    k = torch.randn(2, 50)
    _, first = fftconv_step(torch.randn(1, 2, 10), k)
    _, second = fftconv_step(torch.randn(1, 2, 10), k, first)
    assert second.spectrum is first.spectrum
    _, third = fftconv_step(torch.randn(1, 2, 11), k, second)
    assert third.spectrum is not second.spectrum


def test_gradients_flow_through_the_steps() -> None:
    u = torch.randn(1, 2, 40, dtype=torch.float64, requires_grad=True)
    k = torch.randn(2, 15, dtype=torch.float64, requires_grad=True)
    first, state = fftconv_step(u[..., :25], k)
    second, _ = fftconv_step(u[..., 25:], k, state)
    dy = torch.randn(1, 2, 40, dtype=torch.float64)
    found = torch.autograd.grad(torch.cat((first, second), -1), (u, k), dy)
    for got, want in zip(found, torch.autograd.grad(fftconv(u, k), (u, k), dy), strict=True):
        torch.testing.assert_close(got, want)
