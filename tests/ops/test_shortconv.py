"""The short convolution: C++ and torch against the definition in float64."""

import inspect

import pytest
import torch
from torch import Tensor

from dnasm.ops import cpu, record_calls, reference, short_conv


def _case(b: int, d: int, length: int, taps: int, strided: bool, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    x = torch.randn(b, length, d, generator=generator).transpose(1, 2)
    x = (x if strided else x.contiguous()).to(dtype)
    return [
        x.requires_grad_(),
        torch.randn(d, taps, generator=generator, requires_grad=True),
        torch.randn(d, generator=generator, requires_grad=True),
    ]


def _check(tensors: list[Tensor], body: str, ahead: int = 0) -> None:
    wide = [t.detach().double().requires_grad_() for t in tensors]
    right = reference.short_conv(*wide, ahead=ahead)
    dy = torch.randn(right.shape, generator=torch.Generator().manual_seed(1)).to(tensors[0].dtype)
    expected = [right, *torch.autograd.grad(right, wide, dy.double())]
    with record_calls() as calls:
        y = short_conv(*tensors, ahead=ahead)
    assert [(c.body, c.direction) for c in calls] == [(body, "short")]
    for got, want in zip([y, *torch.autograd.grad(y, tensors, dy)], expected, strict=True):
        narrow = got.dtype in (torch.bfloat16, torch.float16)
        assert (got.double() - want).norm() <= (3e-3 if narrow else 2e-6) * want.norm()
        assert torch.isfinite(got).all()


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("length", [1, 2, 5, 100, 1023, 1024, 1025, 3000])
@pytest.mark.parametrize("taps", [1, 3, 4, 7, 64])
def test_native(length: int, taps: int, strided: bool) -> None:
    _check(_case(2, 19, length, taps, strided), "native")


@pytest.mark.parametrize(("taps", "ahead"), [(3, 1), (7, 3), (4, 3), (3, 2)])
@pytest.mark.parametrize("length", [2, 511, 513, 1500])
def test_native_with_taps_that_look_ahead(length: int, taps: int, ahead: int) -> None:
    _check(_case(2, 19, length, taps, length > 600), "native", ahead)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("strided", [False, True])
def test_native_narrow(dtype: torch.dtype, strided: bool) -> None:
    _check(_case(2, 19, 1500, 3, strided, dtype), "native")


@pytest.mark.parametrize("taps", [3, 100])
def test_torch_where_the_kernels_do_not_reach(taps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if taps == 3:
        monkeypatch.setattr(cpu, "unavailable", lambda: "no compiler in this test")
    _check(_case(2, 5, 200, taps, False), "torch")
    _check(_case(2, 5, 200, taps, False), "torch", ahead=1)


def test_without_a_bias_and_with_a_gradient_in_x_s_layout() -> None:
    x, weight, _ = _case(2, 19, 300, 3, True)
    y = short_conv(x, weight)
    torch.testing.assert_close(y, reference.short_conv(x, weight))
    assert y.is_contiguous()
    dx = torch.autograd.grad(y.sum(), x)[0]
    assert dx.stride() == x.stride()


def test_derivatives_and_the_operators_contract() -> None:
    x, weight, bias = (t.detach().double().requires_grad_() for t in _case(2, 3, 7, 3, True))
    assert torch.autograd.gradcheck(short_conv, (x, weight, bias), fast_mode=True)
    assert torch.autograd.gradgradcheck(short_conv, (x, weight, bias), fast_mode=True)
    assert torch.autograd.gradgradcheck(short_conv, (x, weight), fast_mode=True)
    torch.library.opcheck(torch.ops.dnasm.short_conv.default, (x, weight, bias, 0))
    torch.library.opcheck(torch.ops.dnasm.short_conv_backward.default, (x.detach(), x, weight, bias, 1))


def test_a_shift_or_a_lost_tap_would_be_seen() -> None:
    x, weight, bias = _case(2, 19, 300, 3, False)
    right = reference.short_conv(x, weight, bias)
    lost = torch.cat((torch.zeros(19, 1), weight[:, 1:]), 1)
    for wrong in (right.roll(1, -1), reference.short_conv(x, lost, bias), reference.short_conv(x, weight)):
        assert (wrong - right).norm() > 0.01 * right.norm()


def test_autocast() -> None:
    x, weight, bias = _case(2, 5, 30, 3, False)
    with torch.autocast("cpu", torch.bfloat16):
        assert short_conv(x, weight, bias).dtype == torch.bfloat16


def test_bad_arguments_are_named() -> None:
    x, weight = torch.zeros(2, 3, 9), torch.zeros(3, 3)
    plain = inspect.unwrap(short_conv)  # the type checker of the tests would object first
    with pytest.raises(ValueError, match="weight"):
        plain(x, torch.zeros(4, 3))
    with pytest.raises(ValueError, match="bias has shape"):
        plain(x, weight, torch.zeros(2))
    with pytest.raises(ValueError, match="ahead is 3 for 3 taps"):
        plain(x, weight, ahead=3)
    with pytest.raises(ValueError, match="weight is on meta"):
        plain(x, weight.to("meta"))
    with pytest.raises(TypeError, match=r"x\.float"):
        plain(x.long(), weight)
