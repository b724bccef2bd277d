"""The whole CUDA route on the CPU: public function, both ways to the kernels, binding, emulated kernels.

A program of its own, since libraries of kernels announce themselves to the one dispatch of a process:
`python -m tests.ops.emulated FOLDER`, where FOLDER keeps compiled objects.
"""

import ctypes
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dnasm.ops import backends, build, cuda, eager, fftconv, record_calls
from dnasm.ops.operands import Operands
from tests.csrc.toolchain import CSRC, HOST_FLAGS, compile_object, instance_flags, link_library
from tests.parity.checks import FLOAT32, Case, Engine, assert_right, noise, row_errors

KERNELS = Engine("cuda", "native")
INTERNAL, FILTER = 7e-4, 1.5e-3
INSTANCES: list[tuple[Any, ...]] = [
    (256, "bfloat16"),
    (512, "bfloat16"),
    (512, "float16"),
    (256, "float32", 1),
    (512, "float32", 1),
]


def prepare(cache: Path) -> None:
    """Load binding and emulated kernels, and let calls on CPU tensors take them as on a device."""
    build.load(build.cuda_library(), lambda: None)
    command = ["g++", *HOST_FLAGS, "-x", "c++"]
    for instance in INSTANCES:
        made, _ = compile_object(cache, [*command, *instance_flags(*instance)], CSRC / "fftconv/instance.cu")
        library = made.with_suffix(".alone.so")
        ctypes.CDLL(str(library if library.exists() else link_library(library, ["g++"], [made])))
    for dtype in (1, 2):
        made, _ = compile_object(cache, [*command, f"-DDNASM_DTYPE={dtype}"], CSRC / "short/short.cu")
        library = made.with_suffix(".alone.so")
        ctypes.CDLL(str(library if library.exists() else link_library(library, ["g++"], [made])))
    backends.choose = lambda op, name: "cuda"
    cuda.unavailable = lambda op: ""


def both_ways(case: Case, *accuracy: float) -> None:
    """The first call of its kind goes through the dispatcher, the second straight: both right, and the same bits."""
    cuda.routes.clear()
    found = []
    for _ in range(2):
        assert_right(lambda c: found.append(KERNELS(c)) or found[-1], case, *accuracy)
    assert len(cuda.routes) == 1
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def check_operands() -> None:
    for gates, skip, bidirectional in (("", False, False), ("i", True, False), ("o", False, True), ("io", True, False)):
        case = noise(3, 2, 500, 300, gates=gates, skip=skip, bidirectional=bidirectional, dtype=torch.bfloat16)
        both_ways(case, INTERNAL, FILTER)


def check_float16() -> None:
    for length in (512, 401):
        case = noise(3, 2, length, length, dtype=torch.float16)
        both_ways(Case(case.u, case.k / length, case.dy, case.in_gate, case.out_gate, case.skip), INTERNAL, FILTER)


def check_short_filters() -> None:
    """Few taps are multiplied out, whatever the length, also past every transform; a named precision is not."""
    for length, taps, dtype in ((512, 7, torch.bfloat16), (512, 90, torch.float16), (70_000, 33, torch.bfloat16)):
        case = noise(2, 2, length, taps, dtype=dtype, bidirectional=taps == 33)
        both_ways(
            Case(case.u, case.k / 4, case.dy, case.in_gate, case.out_gate, case.skip, case.bidirectional),
            INTERNAL,
            FILTER,
        )
        assert list(cuda.routes.values()) == [cuda.DIRECT]
    u, k = case.u[..., :512].clone().requires_grad_(), case.k.clone()
    with record_calls() as calls:
        fftconv(u, k, bidirectional=True).sum().backward()  # a gradient is transformed from fewer taps on
        fftconv(u.float(), k, bidirectional=True)
    assert [(c.plan, c.work) for c in calls] == [(0, 2048), (512, 2048), (512, 2048)]


def check_float32() -> None:
    both_ways(noise(2, 2, 500, 600), FLOAT32)


def check_what_is_kept_of_a_filter() -> None:
    """Its spectrum, if that is small or at most half of what the call keeps anyway: with gates here, not without."""
    case = noise(1, 64, 512, 512, dtype=torch.bfloat16)
    small = eager._SMALL
    for least, gates, wanted in (
        (small, {}, True),
        (0, {}, False),
        (0, {"in_gate": case.in_gate, "out_gate": case.out_gate}, True),
    ):
        eager._SMALL = least
        u = case.u.clone().requires_grad_()
        y = [fftconv(u, case.k, **gates) for _ in range(2)][1]
        assert (y.grad_fn.saved_tensors[-1] is not None) is wanted
    eager._SMALL = small


def check_filters_of_other_types() -> None:
    case = noise(2, 3, 500, 300, dtype=torch.bfloat16)
    assert case.skip is not None
    y = fftconv(case.u, case.k.bfloat16(), skip=case.skip.half())
    right = backends.reference.fftconv(case.u.double(), case.k.bfloat16().double(), skip=case.skip.half().double())
    assert row_errors(y, right).max() < 2.2e-3
    k = case.k.bfloat16().requires_grad_()
    assert torch.autograd.grad(fftconv(case.u, k).sum(), k)[0].dtype == torch.bfloat16


def check_views() -> None:
    """Rows of a projection (b, 3 d, l) are read in place, columns of one (b, l, 3 d) by a copy; both are right."""
    generator = torch.Generator().manual_seed(1)
    k = torch.randn(3, 500, generator=generator)
    for dtype in (torch.bfloat16, torch.float16):
        rows = torch.randn(2, 9, 500, generator=generator).to(dtype).split(3, 1)
        columns = tuple(x.mT for x in torch.randn(2, 500, 9, generator=generator).to(dtype).split(3, 2))
        for u, in_gate, out_gate in (rows, columns):
            dense = fftconv(u.contiguous(), k / 500, in_gate=in_gate.contiguous(), out_gate=out_gate.contiguous())
            assert torch.equal(fftconv(u, k / 500, in_gate=in_gate, out_gate=out_gate), dense)
    assert not torch.equal(rows[0], rows[1])


def check_packed() -> None:
    """Bounds read on the host or, under a promised length, by the kernels alone."""
    bounds = [0, 1, 1, 8, 300, 301, 812, 1000]
    for dtype, accuracy in ((torch.bfloat16, (INTERNAL, FILTER)), (torch.float32, (FLOAT32,))):
        for bidirectional in (False, True):
            case = noise(2, 3, 1000, 400, bounds=bounds, dtype=dtype, bidirectional=bidirectional)
            assert_right(KERNELS, case, *accuracy)
            found = KERNELS(case)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Operands, "pieces", None)
                promised = KERNELS(replace(case, max_seqlen=511))
                longer = KERNELS(replace(case, max_seqlen=512))
            assert all(torch.equal(promised[name], longer[name]) for name in found)
            assert_right(lambda _, found=promised: found, case, *accuracy)


def check_a_broken_promise_shows() -> None:
    u, k = torch.randn(1, 2, 700).bfloat16(), torch.randn(2, 300)
    bounds = torch.tensor([0, 100, 500, 700], dtype=torch.int32)
    right = fftconv(u, k, cu_seqlens=bounds)
    found = fftconv(u, k, cu_seqlens=bounds, max_seqlen=300)
    wrong = found.isnan()
    assert wrong[..., 400:500].all()
    assert wrong.sum() == 200
    torch.testing.assert_close(found[~wrong], right[~wrong], rtol=0.02, atol=0.1)
    for outside in ([0, 800], [-5, 700], [900, 100]):  # no wait for the device, so no error, but no wild access either
        assert fftconv(u, k, cu_seqlens=torch.tensor(outside), max_seqlen=300).isnan().all()


def check_work_of_packed_sequences() -> None:
    u, k = torch.randn(1, 2, 10_000).bfloat16(), torch.randn(2, 100)
    bounds = torch.arange(0, 10_001, 100, dtype=torch.int32)
    with record_calls() as calls:
        fftconv(u, k, cu_seqlens=bounds, max_seqlen=100)
        fftconv(u, k, cu_seqlens=bounds)
    assert [(call.plan, call.work) for call in calls] == [(256, 2 * 100 * 256)] * 2


def leaves_of(case: Case) -> dict[str, Tensor]:
    return {name: x.clone().requires_grad_() for name, x in case.operands().items()}


def check_short_convolutions() -> None:
    """The binding's operators for a few taps: one stream, and three with the gate between two of them."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 130, 6, generator=generator).bfloat16().mT
    weight, bias = torch.randn(6, 3, generator=generator), torch.randn(6, generator=generator)
    for streams in (1, 3):
        wide = [t.double().requires_grad_() for t in (x, weight, bias)]
        y = backends.reference.short_conv(*wide, ahead=1)
        x0, x1, v = y.chunk(3, 1)
        right = [y] if streams == 1 else [x0, x1 * v]
        found = torch.ops.dnasm_cuda.short_convolve(x, weight, bias, streams, 1)[: len(right)]
        dy = [torch.randn(r.shape, generator=generator).bfloat16().mT.contiguous().mT for r in right]
        expected = torch.autograd.grad(right, wide, [d.double() for d in dy])
        dx = torch.empty_like(x)
        sums = torch.ops.dnasm_cuda.short_gradients(
            dy[0], dy[1] if streams == 3 else None, x, weight, bias, streams, 1, dx
        )
        for got, want in zip((*found, dx, *sums), (*right, *expected), strict=True):
            assert (got.double() - want).norm() < 3e-3 * want.norm()


def check_second_derivative() -> None:
    """A gradient of a gradient leaves the straight way and is what the definition says."""
    case = noise(1, 2, 500, 500, gates="i", skip=False, dtype=torch.bfloat16)
    found = []
    for conv in (fftconv, backends.reference.fftconv):
        leaves = leaves_of(case)
        y = conv(**leaves)
        (dk,) = torch.autograd.grad(y, leaves["k"], case.dy, create_graph=True)
        found.append(torch.autograd.grad(dk.square().sum(), leaves["u"])[0].double())
    assert row_errors(*found).max() < 1e-2, row_errors(*found).max()


def check_autocast() -> None:
    case = noise(1, 2, 500, 500, dtype=torch.bfloat16)
    assert case.in_gate is not None
    plain = fftconv(case.u, case.k, in_gate=case.in_gate)
    with torch.autocast("cpu", torch.bfloat16), torch.autocast("cuda", torch.bfloat16):
        assert torch.equal(fftconv(case.u, case.k, in_gate=case.in_gate), plain)
        assert torch.equal(fftconv(case.u.float(), case.k, in_gate=case.in_gate), plain)


def check_what_the_straight_way_refuses() -> None:
    """Wrong calls of a kind that has run before meet the same words as first calls."""
    u, k = torch.zeros(2, 3, 500, dtype=torch.bfloat16), torch.zeros(3, 4)
    fftconv(u, k)
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"k": torch.zeros(4, 4)}, ValueError, "k has shape"),
        ({"k": torch.zeros(3, 2, 4)}, ValueError, "bidirectional=True"),
        ({"bidirectional": True}, ValueError, "the past with lag 0"),
        ({"in_gate": u[:1]}, ValueError, "expand the gate"),
        ({"out_gate": u.half()}, TypeError, r"out_gate.to\(u.dtype\)"),
        ({"skip": torch.zeros(2)}, ValueError, "skip has shape"),
        ({"k": k.to("meta")}, ValueError, "k is on meta"),
        ({"backend": "gpu"}, ValueError, "no backend"),
        ({"precision": "float16"}, ValueError, "no precision"),
    ]
    for change, error, words in wrong:
        with pytest.raises(error, match=words):
            fftconv(**({"u": u, "k": k} | change))


def check_what_goes_the_long_way() -> None:
    u, k = torch.randn(1, 2, 500).bfloat16(), torch.randn(2, 500)
    expected = fftconv(u, k)
    options = (None, None, None, None, False, None, "auto")
    assert eager.fftconv(u, k, *options) is not None

    class Own(Tensor):
        pass

    assert eager.fftconv(u.as_subclass(Own), k, *options) is None
    with torch.utils._python_dispatch.TorchDispatchMode():
        assert eager.fftconv(u, k, *options) is None

    def transformed(x: Tensor) -> Tensor:
        assert eager.fftconv(u, k, *options) is None
        return x

    torch.func.vmap(transformed)(torch.zeros(2))
    with record_calls() as calls:
        assert torch.equal(fftconv(u, k), expected)
    assert [(c.backend, c.body, c.plan) for c in calls] == [("cuda", "native", 512)]


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
    for name, check in [(n, f) for n, f in globals().items() if n.startswith("check_")]:
        check()
        print(name, flush=True)
