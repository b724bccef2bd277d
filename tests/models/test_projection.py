"""The linear layer behind a convolution: the same numbers, and a gradient that need not be turned."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dnasm.models.mixers.projection import from_channels


class _Seen(torch.autograd.Function):
    """Returns what it is given, and remembers how the gradient lies."""

    strides: tuple[int, ...] = ()

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:  # type: ignore[override]
        _Seen.strides = dy.stride()
        return dy


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("narrow", [False, True])
def test_positions_of_the_gradient_lie_side_by_side(batch: int, narrow: bool) -> None:
    torch.manual_seed(0)
    linear, y = nn.Linear(6, 4), torch.randn(batch, 6, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        out, plain = from_channels(linear, _Seen.apply(y)), linear(y.transpose(1, 2))
    close = {"atol": 0.05, "rtol": 0.02} if narrow else {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(out, plain, **close)
    weight = torch.randn(out.shape)
    (found, wanted) = (torch.autograd.grad((x.float() * weight).sum(), [y, *linear.parameters()]) for x in (out, plain))
    torch.testing.assert_close(found, wanted, **close)
    assert _Seen.strides[2] == 1
