"""fftconv as a torch operator: derivatives, tracing, compiling, autocast, and what it refuses."""

import inspect
import logging
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from dnasm.errors import BackendUnavailable
from dnasm.ops import backends, cpu, fftconv, record_calls, reference, set_backend, spectrum


def _operands(dtype: torch.dtype = torch.float64, length: int = 6, d: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    signal = (2, d, length)
    return {"u": draw(*signal), "k": draw(d, 4), "in_gate": draw(*signal), "out_gate": draw(*signal), "skip": draw(d)}


def _positional(tensors: dict[str, Tensor], bidirectional: bool = False, backend: str = "auto") -> tuple[Any, ...]:
    return (*tensors.values(), None, None, bidirectional, None, None, backend)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_first_and_second_derivatives(backend: str, bidirectional: bool) -> None:
    tensors = _operands()
    if bidirectional:
        tensors["k"] = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    bounds = torch.tensor([0, 2, 6], dtype=torch.int32)

    def run(*args: Tensor) -> Tensor:
        options = {"bidirectional": bidirectional, "backend": backend, "cu_seqlens": bounds}
        return fftconv(**dict(zip(tensors, args, strict=True)), **options)

    assert torch.autograd.gradcheck(run, tuple(tensors.values()), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, tuple(tensors.values()), fast_mode=True)


@pytest.mark.parametrize("without", ["in_gate", "out_gate", "skip"])
def test_second_derivatives_without_an_operand(without: str) -> None:
    tensors = {name: value for name, value in _operands().items() if name != without}

    def run(*args: Tensor) -> Tensor:
        return fftconv(**dict(zip(tensors, args, strict=True)))

    assert torch.autograd.gradgradcheck(run, tuple(tensors.values()), fast_mode=True)


def test_third_derivative() -> None:
    u = torch.randn(1, 1, 3, dtype=torch.float64, requires_grad=True)
    k = torch.randn(1, 2, dtype=torch.float64, requires_grad=True)

    def cube(conv: Any) -> Tensor:
        value = (conv(u, k) ** 3).sum()
        for _ in range(3):
            value = torch.autograd.grad(value, u, create_graph=True)[0].sum()
        return value

    torch.testing.assert_close(cube(fftconv), cube(reference.fftconv))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype: torch.dtype) -> None:
    tensors = _operands(dtype)
    dy = torch.randn(2, 3, 6, dtype=dtype)
    for needs in ([True] * 5, [True, True, False, True, False]):
        torch.library.opcheck(torch.ops.dnasm.fftconv_backward.default, (dy, *_positional(tensors), needs))
    torch.library.opcheck(torch.ops.dnasm.fftconv.default, _positional(tensors))
    bounds = torch.tensor([0, 2, 6], dtype=torch.int32)
    packed = (*list(tensors.values())[:2], None, None, None, bounds, None, False, 4, None, "auto")
    torch.library.opcheck(torch.ops.dnasm.fftconv.default, packed)


_COMPILED = """
import torch
from dnasm.ops import fftconv, short_conv
torch.manual_seed(0)
signal = lambda: torch.randn(2, 3, 64, requires_grad=True)
u, x1, x2 = signal(), signal(), signal()
k, skip, taps = (torch.randn(*s, requires_grad=True) for s in ((3, 50), (3,), (3, 3)))
bounds = torch.tensor([0, 20, 64], dtype=torch.int32)
def layer(u, k, x1, x2, skip, taps, bounds):
    y = fftconv(short_conv(u, taps), k, in_gate=x1, out_gate=x2, skip=skip)
    return fftconv(y * 2, k, cu_seqlens=bounds)
compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
leaves = (u, k, x1, x2, skip, taps)
for autocast in (False, True):
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected, found = layer(*leaves, bounds), compiled(*leaves, bounds)
    torch.testing.assert_close(found, expected)
    for got, want in zip(torch.autograd.grad(found.sum(), leaves), torch.autograd.grad(expected.sum(), leaves)):
        torch.testing.assert_close(got, want)
"""


def test_compiles_without_a_graph_break() -> None:
    """In a process of its own: the type checker of the tests cannot be compiled."""
    result = subprocess.run([sys.executable, "-c", _COMPILED], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_shapes_are_known_without_computing() -> None:
    with record_calls() as calls:
        y = fftconv(torch.empty(2, 3, 10**9, device="meta"), torch.empty(3, 5, device="meta"))
    assert y.shape == (2, 3, 10**9)
    assert not calls


def test_autocast_casts_signals_and_keeps_the_filter() -> None:
    tensors = _operands(torch.float32)
    with torch.autocast("cpu", torch.bfloat16), record_calls():
        y = fftconv(**{**tensors, "in_gate": tensors["in_gate"].bfloat16()})
    assert y.dtype == torch.bfloat16
    grads = torch.autograd.grad(y.float().sum(), list(tensors.values()))
    assert [g.dtype for g in grads] == [torch.float32] * 5
    k = torch.full((1, 1), 1.00390625)  # would be 1 in bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert fftconv(torch.full((1, 1, 1), 128.0), k).item() == 128.5 or k.bfloat16().item() != k.item()
    with torch.autocast("cpu", torch.bfloat16):
        assert fftconv(tensors["u"].double(), tensors["k"]).dtype == torch.float64


def test_float64_takes_the_definition() -> None:
    with record_calls() as calls:
        fftconv(torch.randn(1, 1, 5, dtype=torch.float64), torch.randn(1, 5))
    assert calls[0].backend == "reference"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"u": torch.zeros(3, 6)}, ValueError, "u has shape"),
        ({"u": torch.zeros(2, 3, 0)}, ValueError, "no positions"),
        ({"u": torch.zeros(2, 3, 6, dtype=torch.int64)}, TypeError, r"u\.float\(\)"),
        ({"u": torch.zeros(2, 3, 6, dtype=torch.complex64)}, TypeError, "u is torch.complex64"),
        ({"k": torch.zeros(4, 6)}, ValueError, "k has shape"),
        ({"k": torch.zeros(3, 0)}, ValueError, "k has shape"),
        ({"k": torch.zeros(3, 2, 4)}, ValueError, "bidirectional=True"),
        ({"k": torch.zeros(3, 4), "bidirectional": True}, ValueError, "the past with lag 0"),
        ({"k": torch.zeros(3, 4, dtype=torch.int32)}, TypeError, "k is torch.int32"),
        ({"in_gate": torch.zeros(2, 3, 5)}, ValueError, "in_gate has shape"),
        ({"in_gate": torch.zeros(2, 1, 6)}, ValueError, "expand the gate"),
        ({"out_gate": torch.zeros(2, 3, 6, dtype=torch.bfloat16)}, TypeError, r"out_gate.to\(u.dtype\)"),
        ({"skip": torch.zeros(4)}, ValueError, "skip has shape"),
        ({"skip": torch.zeros(3, dtype=torch.bool)}, TypeError, "skip is torch.bool"),
        ({"k": torch.zeros(3, 4, device="meta")}, ValueError, "k is on meta"),
        ({"cu_seqlens": torch.tensor([0.0, 6.0])}, TypeError, "cu_seqlens"),
        ({"cu_seqlens": torch.tensor([6])}, ValueError, "cu_seqlens has shape"),
        ({"cu_seqlens": torch.tensor([0, 5])}, ValueError, "from 0 to the length"),
        ({"cu_seqlens": torch.tensor([1, 6])}, ValueError, "from 0 to the length"),
        ({"cu_seqlens": torch.tensor([0, 4, 2, 6])}, ValueError, "from 0 to the length"),
        ({"cu_seqlens": torch.tensor([0, 2**33, 6])}, ValueError, "from 0 to the length"),
        ({"backend": "gpu"}, ValueError, "no backend 'gpu'"),
        ({"precision": "float16"}, ValueError, "no precision"),
    ],
)
def test_hostile_arguments_are_named(change: dict[str, Any], error: type[Exception], words: str) -> None:
    arguments: dict[str, Any] = {"u": torch.zeros(2, 3, 6), "k": torch.zeros(3, 4)}
    with pytest.raises(error, match=words):
        inspect.unwrap(fftconv)(**(arguments | change))  # the type checker of the tests would object first


def test_cuda_by_name_never_falls_back() -> None:
    with pytest.raises(BackendUnavailable, match="cuda"):
        fftconv(torch.zeros(1, 1, 4), torch.zeros(1, 4), backend="cuda")


def test_the_preferred_backend_is_what_auto_means() -> None:
    u, k = torch.randn(1, 1, 5), torch.randn(1, 5)
    try:
        set_backend("reference")
        with record_calls() as calls:
            fftconv(u, k)
            fftconv(u, k, backend="cpu")
        assert [c.backend for c in calls] == ["reference", "cpu"]
        with pytest.raises(ValueError, match="no backend"):
            set_backend("tpu")
    finally:
        set_backend("auto")


def test_without_a_compiler_the_answer_is_right_and_the_reason_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpu, "unavailable", lambda: "no g++ on PATH")
    monkeypatch.setattr(backends, "_said", set())
    u, k = torch.randn(2, 3, 100), torch.randn(3, 100)
    with caplog.at_level(logging.WARNING), record_calls() as calls:
        found = [fftconv(u, k) for _ in range(3)]
    torch.testing.assert_close(found[2], reference.fftconv(u, k), atol=1e-4, rtol=1e-4)
    assert {c.body for c in calls} == {"torch"}
    assert len([r for r in caplog.records if "no g++ on PATH" in r.message]) == 1


def test_a_spectrum_is_refused_where_it_does_not_fit() -> None:
    k = torch.randn(3, 4)
    kept = spectrum(k, 10)
    with pytest.raises(ValueError, match="bidirectional=True"):
        fftconv(torch.randn(1, 3, 10), kept, bidirectional=True)
    k += 1
    with pytest.raises(ValueError, match="changed in place"):
        fftconv(torch.randn(1, 3, 10), kept)
    for bad, length, error in ((torch.zeros(3), 4, ValueError), (k, 0, ValueError), (k.long(), 4, TypeError)):
        with pytest.raises(error):
            spectrum(bad, length)


def test_the_definitions_gradient_is_its_derivative() -> None:
    for bidirectional in (False, True):
        tensors = _operands(length=40)
        tensors["k"] = torch.randn(3, *([2] * bidirectional), 50, dtype=torch.float64, requires_grad=True)
        bounds = torch.tensor([0, 1, 17, 17, 40], dtype=torch.int32)
        dy = torch.randn(2, 3, 40, dtype=torch.float64)
        options = {"bidirectional": bidirectional, "cu_seqlens": bounds}
        expected = torch.autograd.grad(reference.fftconv(**tensors, **options), list(tensors.values()), dy)
        found = reference.fftconv_backward(dy, *tensors.values(), **options)
        for got, want in zip(found, expected, strict=True):
            torch.testing.assert_close(got, want)
