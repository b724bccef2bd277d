"""A backend that is wrong in the ways that kernels are wrong fails the checker that the right ones pass."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dnasm.ops import reference
from tests.parity.checks import Case, Engine, assert_right, exact, noise

Outputs = dict[str, Tensor]


def _narrowed(case: Case, outputs: Outputs) -> Outputs:
    return {n: v.to((case.u if n == "y" else getattr(case, n)).dtype) for n, v in outputs.items()}


def _right(case: Case) -> Outputs:
    return _narrowed(case, exact(case))


def _wrapped(case: Case) -> Outputs:
    """Circular: what a transform without room for the tail gives."""
    length = case.u.shape[-1]
    x = case.u.double() * case.in_gate.double()
    spectrum = torch.fft.rfft(case.k.double()[..., :length], length)
    y = torch.fft.irfft(torch.fft.rfft(x) * spectrum, length) + case.skip.double()[:, None] * x
    return {**_right(case), "y": (y * case.out_gate.double()).to(case.u.dtype)}


def _without(name: str) -> Callable[[Case], Outputs]:
    def run(case: Case) -> Outputs:
        left = _right(replace(case, **{name: None}))
        return {**_right(case), **left}

    return run


MUTANTS: dict[str, Callable[[Case], Outputs]] = {
    "zeros": lambda case: {n: torch.zeros_like(v) for n, v in _right(case).items()},
    "shifted by one": lambda case: {n: v.roll(1, -1) for n, v in _right(case).items()},
    "wraps round": _wrapped,
    "no in_gate": _without("in_gate"),
    "no out_gate": _without("out_gate"),
    "no skip": _without("skip"),
    "last sample lost": lambda case: {
        n: torch.cat((v[..., :-1], 0 * v[..., -1:]), -1) for n, v in _right(case).items()
    },
    "rows swapped": lambda case: {n: v.flip(0) for n, v in _right(case).items()},
    "gradient of one row only": lambda case: {**_right(case), "k": _right(replace(case, **_row(case)))["k"]},
    "filter's gradient reversed": lambda case: {**_right(case), "k": _right(case)["k"].flip(-1)},
    "nan": lambda case: {n: v.index_fill(-1, torch.tensor([0]), float("nan")) for n, v in _right(case).items()},
    "a thousandth too large": lambda case: {n: v * 1.001 for n, v in _right(case).items()},
}


def _row(case: Case) -> dict[str, Tensor]:
    return {n: getattr(case, n)[:1] for n in ("u", "dy", "in_gate", "out_gate")}


@pytest.mark.parametrize("name", list(MUTANTS))
def test_a_wrong_backend_fails(name: str) -> None:
    case = noise(2, 3, 500, 500)
    with pytest.raises(AssertionError):
        assert_right(MUTANTS[name], case)


@pytest.mark.parametrize("name", [n for n in MUTANTS if n != "a thousandth too large"])
def test_a_wrong_backend_fails_in_bfloat16_too(name: str) -> None:
    case = noise(2, 3, 500, 500, dtype=torch.bfloat16)
    with pytest.raises(AssertionError):
        assert_right(MUTANTS[name], case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_right_answer_passes(dtype: torch.dtype) -> None:
    assert_right(_right, noise(2, 3, 500, 500, dtype=dtype))


def test_another_backend_than_the_named_one_fails() -> None:
    with pytest.raises(AssertionError):
        assert_right(Engine("cpu", "no such body"), noise(1, 1, 10, 10))


def test_the_definition_is_the_sum_that_it_says() -> None:
    case = noise(2, 3, 40, 50, bidirectional=True)
    x = case.u.double() * case.in_gate.double()
    y = case.skip.double()[:, None] * x
    for t in range(40):
        for s in range(40):
            y[..., t] += (case.k[:, 0, t - s] if s <= t else case.k[:, 1, s - t - 1]).double() * x[..., s]
    found = reference.fftconv(
        case.u.double(),
        case.k,
        in_gate=case.in_gate,
        out_gate=case.out_gate,
        skip=case.skip,
        bidirectional=True,
    )
    torch.testing.assert_close(found, y * case.out_gate.double())
