"""The short convolution's kernels, run on the CPU by the emulator, against float64."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dnasm.ops import reference
from tests.csrc.kernels import KernelError
from tests.csrc.short_kernels import ShortKernels, short_library

BF16, LIMITS = torch.bfloat16, {torch.float32: 2e-6, torch.float16: 5e-4, torch.bfloat16: 2.4e-3}


@pytest.fixture(scope="module")
def kernels(objects: Path) -> ShortKernels:
    return ShortKernels(short_library(objects, ("float32", "float16", "bfloat16")))


def projection(b: int, d: int, length: int, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """As a linear layer leaves it, or as torch's conv1d wants it; inside a larger tensor, at odd addresses."""
    generator = torch.Generator().manual_seed(length)
    if channels_last:
        return torch.randn(b, length + 2, d, generator=generator).to(dtype)[:, 1:-1].transpose(1, 2)
    return torch.randn(b, d, length + 3, generator=generator).to(dtype)[..., 1:-2]


def operator(x: Tensor, weight: Tensor, bias: Tensor | None, streams: int, ahead: int) -> list[Tensor]:
    y = reference.short_conv(x, weight, bias, ahead=ahead)
    if streams == 1:
        return [y]
    gate, left, right = y.chunk(3, 1)
    return [gate, left * right]


def check(kernels: ShortKernels, x: Tensor, taps: int, streams: int, ahead: int, with_bias: bool = True) -> None:
    generator = torch.Generator().manual_seed(taps)
    weight = torch.randn(x.shape[1], taps, generator=generator)
    bias = torch.randn(x.shape[1], generator=generator) if with_bias else None
    wide = [t.detach().double().requires_grad_() for t in (x, weight, bias) if t is not None]
    right = operator(wide[0], wide[1], wide[2] if with_bias else None, streams, ahead)
    dy = [torch.randn(y.shape, generator=generator).to(x.dtype) for y in right]
    expected = torch.autograd.grad(right, wide, [d.double() for d in dy])
    found = kernels.forward(x, weight, bias, streams, ahead)
    gradients = kernels.backward(dy, x, weight, bias, streams, ahead)
    assert gradients[0].stride() == torch.empty_like(x).stride()
    for got, want in zip([*found, *gradients], [*right, *expected], strict=False):
        allowed = LIMITS[x.dtype] if got.dtype == x.dtype else 3e-6
        error = (got.double() - want).norm() / want.norm()
        assert error <= allowed, f"{tuple(got.shape)}: {error:.2e}"


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize(
    ("b", "d", "length", "taps", "ahead", "dtype"),
    [
        (1, 1, 1, 1, 0, torch.float32),
        (3, 35, 130, 3, 0, BF16),  # a ragged tile of channels and of positions
        (1, 32, 64, 3, 1, torch.float32),
        (2, 33, 65, 4, 0, torch.float16),
        (3, 5, 129, 7, 3, torch.float32),
        (1, 64, 63, 8, 7, BF16),
        (2, 3, 2, 7, 0, torch.float32),  # shorter than the taps
    ],
)
def test_parity(
    kernels: ShortKernels, b: int, d: int, length: int, taps: int, ahead: int, dtype: torch.dtype, streams: int,
    channels_last: bool,
) -> None:  # fmt: skip
    check(kernels, projection(b, streams * d, length, dtype, channels_last), taps, streams, ahead, with_bias=d != 5)


@pytest.mark.parametrize("taps", [3, 6])
def test_whole_tiles_of_aligned_rows(kernels: ShortKernels, taps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    check(kernels, torch.randn(2, 96, 260, generator=generator).to(BF16), taps, 3, 0)
    check(kernels, torch.randn(1, 260, 96, generator=generator).to(BF16).transpose(1, 2), taps, 3, 1)
    check(kernels, torch.randn(64, 2, 34, generator=generator).permute(1, 2, 0)[..., ::2], taps, 1, 0)


def test_sums_do_not_depend_on_the_order_of_threads(kernels: ShortKernels) -> None:
    x = projection(5, 6, 300, BF16, True)
    weight, dy = torch.randn(6, 3), [torch.randn(5, 2, 300).to(BF16) for _ in range(2)]
    kernels.seed(1)
    first = kernels.backward(dy, x, weight, None, 3, 0)
    kernels.seed(2)
    again = kernels.backward(dy, x, weight, None, 3, 0)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_nan_stays_within_reach_of_the_taps(kernels: ShortKernels) -> None:
    x = projection(1, 2, 200, torch.float32, False).clone()
    x[0, 1, 70] = torch.nan
    y = kernels.forward(x, torch.ones(2, 3), None, 1, 0)[0]
    assert y[0, 1].isnan().nonzero().flatten().tolist() == [70, 71, 72]
    assert not y[0, 0].isnan().any()


def test_what_is_not_possible_is_said(kernels: ShortKernels) -> None:
    x = torch.zeros(1, 1, 4)
    with pytest.raises(KernelError, match="1 to 8 taps"):
        kernels.forward(x, torch.zeros(1, 9), None, 1, 0)
    with pytest.raises(KernelError, match="ahead"):
        kernels.forward(x, torch.zeros(1, 3), None, 1, 3)
    with pytest.raises(KernelError, match="dtype"):
        kernels.forward(x.double(), torch.zeros(1, 3), None, 1, 0)
