"""Which backend `auto` takes, told from the shape and the device alone."""

import logging
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dnasm.ops import backends, cuda
from dnasm.ops.operands import Operands


def _operands(device: str, length: int, dtype: torch.dtype = torch.bfloat16, k: tuple[int, ...] = ()) -> Operands:
    with FakeTensorMode():  # a tensor on a GPU that need not be there
        u = torch.empty(1, 1, length, dtype=dtype, device=device)
        return Operands(u, torch.empty(1, *(k or (length,)), device=device), bidirectional=len(k) == 2)


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_said", set())
    monkeypatch.setattr(backends, "_preferred", "auto")


@pytest.mark.parametrize(
    ("device", "length", "dtype", "chosen"),
    [
        ("cpu", 1 << 20, torch.float32, "cpu"),
        ("cuda", 1 << 24, torch.bfloat16, "cuda"),
        ("cuda", 1 << 20, torch.float32, "cuda"),
        ("cuda", (1 << 24) + 1, torch.bfloat16, "reference"),
        ("cuda", 1024, torch.float64, "reference"),
    ],
)
def test_auto(device: str, length: int, dtype: torch.dtype, chosen: str) -> None:
    assert backends.choose(_operands(device, length, dtype), "auto") == chosen


def test_few_taps_need_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "short_unavailable", lambda dtype, device: "")
    monkeypatch.setattr(cuda, "plan", lambda length, precision: 0 if precision == cuda.DIRECT else length)
    monkeypatch.setattr(cuda, "_load", lambda length, dtype, precision, device: "")
    few = _operands("cuda", 1 << 30, k=(512,))
    assert backends.choose(few, "auto") == "cuda"
    assert cuda.precision_of(few) == cuda.DIRECT
    assert not cuda.direct(replace(few, precision="float32"))
    assert not cuda.direct(_operands("cuda", 1 << 30, k=(513,)))
    assert not cuda.direct(_operands("cuda", 1 << 30, k=(2, 512)))


def test_a_gradient_transforms_from_fewer_taps_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "short_unavailable", lambda dtype, device: "")
    monkeypatch.setattr(cuda, "plan", lambda length, precision: length)
    monkeypatch.setattr(cuda, "_load", lambda length, dtype, precision, device: "")

    def ways(length: int, taps: int) -> tuple[int, int]:
        op = _operands("cuda", length, k=(taps,))
        return cuda.precision_of(op), cuda.way_back(op.u, op.k, cuda.precision_of(op))

    assert ways(8192, 512) == ways(4096, 128) == ways(32768, 257) == (cuda.DIRECT, cuda.FAST)
    assert ways(8192, 128) == ways(32768, 256) == ways(1 << 20, 512) == (cuda.DIRECT, cuda.DIRECT)
    assert ways(8192, 513) == ways(4096, 257) == ways(511, 3) == (cuda.FAST, cuda.FAST)
    monkeypatch.setattr(cuda, "_load", lambda length, dtype, precision, device: "no compiler")
    assert ways(8192, 512) == (cuda.DIRECT, cuda.DIRECT)


def test_a_named_backend_is_never_exchanged() -> None:
    assert backends.choose(_operands("cuda", 1 << 20), "cuda") == "cuda"


def test_leaving_the_kernels_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            backends.choose(_operands("cuda", 20_000_000), "auto")
    assert len(caplog.records) == 1
    assert "16,777,216" in caplog.text
