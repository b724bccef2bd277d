"""Pooling piece by piece is pooling at once."""

from typing import get_args

import pytest
import torch

from dnasm.tasks.pooling import Pool, pool_pieces, pool_states


@pytest.mark.parametrize("pool", [pool for pool in get_args(Pool) if pool != "none"])
@pytest.mark.parametrize("size", [1, 7, 10, 33])
def test_pieces_are_the_whole(pool: Pool, size: int) -> None:
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(4, 33, 5, generator=draw)
    tokens = torch.randint(7, 12, (4, 33), generator=draw).to(torch.uint8)  # 11 is N
    tokens[1, 20:], tokens[2] = 4, 11
    rows = [pool_pieces(iter(h.split(size)), t.numpy(), pool) for h, t in zip(hidden, tokens, strict=True)]
    pooled = torch.stack([torch.from_numpy(row) for row in rows])
    torch.testing.assert_close(pooled, pool_states(hidden, tokens, pool), equal_nan=True, rtol=1e-6, atol=1e-7)
    assert pooled.isnan().all(1).tolist() == [False, False, True, False]
    chosen = hidden[1, :20][tokens[1, :20] < 11]
    expected = {
        "mean": chosen.mean(0),
        "max": chosen.amax(0),
        "last": chosen[-1],
        "centre": chosen[len(chosen) // 2],
    }[pool]
    torch.testing.assert_close(pooled[1], expected)
