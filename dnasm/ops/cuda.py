"""The CUDA backend: tensor-core kernels for bfloat16 and float16, and float32 kernels where they are asked for.

Kernels are compiled for one transform length, dtype and architecture each, when they are first needed.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from dnasm.errors import BackendUnavailable
from dnasm.ops import build, reference
from dnasm.ops.operands import GRADIENTS, Operands

FAST, FLOAT32 = 0, 1
routes: dict[tuple[Any, ...], int] = {}
"""Kinds of calls that have run on the kernels, and at which precision: what `eager` need not ask again."""
_DTYPES = {getattr(torch, name): number for name, number in build.CUDA_DTYPES.items()}


def _longest(op: Operands) -> int:
    return op.u.shape[-1] if op.cu_seqlens is None else max(end - start for start, end in op.pieces())


def precision_of(op: Operands) -> int:
    """Tensor cores for 16-bit signals as far as their plans reach, else float32, by dtype, in words or by length."""
    if op.precision == "float32" or op.u.dtype == torch.float32:
        return FLOAT32
    return FAST if plan(_longest(op), FAST) else FLOAT32


def unavailable(op: Operands) -> str:
    """Why the kernels cannot take this call, empty if they can; builds and loads them when first asked."""
    if op.u.device.type != "cuda":
        return f"u is on {op.u.device}: pass u.cuda()"
    if op.u.dtype not in _DTYPES:
        return f"u is {op.u.dtype}: pass u.float()"
    return _dispatch() or _load(_longest(op), op.u.dtype, precision_of(op), op.u.device.index)


def remember(op: Operands, backend: str) -> None:
    """Note that calls like this one, asked of `backend`, run on the kernels."""
    if len(routes) > 4096:
        routes.clear()
    kind = (op.u.shape[-1:], op.u.dtype, op.k.dtype, op.u.device.index, op.precision, backend)
    routes[kind] = precision_of(op)


@lru_cache(maxsize=1)
def _dispatch() -> str:
    try:
        build.load(build.cuda_library(), lambda: None)
    except BackendUnavailable as error:
        return str(error)
    return ""


@lru_cache(maxsize=4096)
def plan(length: int, precision: int) -> int:
    """Length of the transform for signals of `length`, 0 where there is none."""
    return torch.ops.dnasm_cuda.plan_length(length, precision)


@lru_cache(maxsize=4096)
def _load(length: int, dtype: torch.dtype, precision: int, device: int) -> str:
    made_for = min(plan(length, precision), build.CUDA_PLANS[precision][-1])
    if made_for == 0:
        return f"no kernel covers length {length}"
    number = _DTYPES[dtype]
    if torch.ops.dnasm_cuda.has_kernels(made_for, number, precision):
        return ""
    try:
        library = build.cuda_kernels(made_for, number, precision, build.architecture_of(device))
        build.load(library, partial(_self_test, made_for, dtype, precision, device))
    except BackendUnavailable as error:
        return str(error)
    return ""


def _self_test(plan: int, dtype: torch.dtype, precision: int, device: int) -> None:
    angles = torch.arange(2 * plan, device=f"cuda:{device}").view(1, 2, plan)
    u, k = torch.sin(angles * 1.7).to(dtype), torch.cos(angles[0] * 0.9) / plan
    y = _forward(Operands(u, k, precision="float32" if precision else None)).float()
    expected = reference.fftconv(u.float(), k)
    error = ((y - expected).norm() / expected.norm()).item()
    assert error < 0.02, f"the convolution of length {plan} is off by {error:.2g}"


def plan_length(op: Operands) -> int:
    """Length of the longest transform of a call that the kernels can take."""
    return plan(_longest(op), precision_of(op))


def spectrum(k: Tensor, length: int) -> Tensor | None:
    """Spectra for bfloat16 or float16 signals of `length` in the kernels' own order, if there are kernels for it."""
    op = Operands(torch.empty(1, 1, 1, dtype=torch.bfloat16, device=k.device).expand(1, k.shape[0], length), k)
    if unavailable(op):
        return None
    return torch.ops.dnasm_cuda.spectrum(k, length, _DTYPES[op.u.dtype], precision_of(op))


def _forward(op: Operands) -> Tensor:
    return torch.ops.dnasm_cuda.convolve(op.u, op.k, op.in_gate, op.out_gate, op.skip, op.values, precision_of(op))[0]


def _backward(op: Operands, dy: Tensor, needs: tuple[bool, ...]) -> list[Tensor | None]:
    return list(
        torch.ops.dnasm_cuda.gradients(
            dy, op.u, op.k, op.in_gate, op.out_gate, op.skip, op.values, precision_of(op), bits(needs)
        )
    )


def bits(needs: tuple[bool, ...]) -> int:
    """Which of `GRADIENTS` are needed, as the kernels' operator takes it."""
    return sum(need << i for i, need in enumerate(needs))


def _groups(op: Operands) -> Iterator[tuple[Tensor, Tensor]]:
    """Packed sequences by plan: places (sequences, longest) of their samples, and which of them are real."""
    by_plan, precision = defaultdict(list), precision_of(op)
    for start, end in op.pieces():
        by_plan[plan(end - start, precision)].append((start, end))
    for pieces in by_plan.values():
        bounds = torch.tensor(pieces, device=op.u.device)
        first, size = bounds[:, :1], bounds.diff(dim=1)
        steps = torch.arange(max(end - begin for begin, end in pieces), device=op.u.device)
        yield (first + steps).clamp(max=op.u.shape[-1] - 1), steps < size


def _gather(x: Tensor | None, places: Tensor, real: Tensor) -> Tensor | None:
    """Packed sequences as rows of a batch, zero behind their ends."""
    if x is None:
        return None
    picked = torch.where(real, x[..., places], 0)  # (b, d, sequences, longest)
    return picked.transpose(1, 2).reshape(-1, x.shape[1], places.shape[1])


def _scatter(rows: Tensor, places: Tensor, real: Tensor, to: Tensor) -> None:
    picked = rows.view(to.shape[0], places.shape[0], to.shape[1], places.shape[1]).transpose(1, 2)
    to[..., places[real]] = picked[..., real]


def _part(op: Operands, places: Tensor, real: Tensor) -> Operands:
    u, in_gate, out_gate = (_gather(x, places, real) for x in (op.u, op.in_gate, op.out_gate))
    assert u is not None
    precision = "float32" if precision_of(op) == FLOAT32 else None
    return replace(op, u=u, in_gate=in_gate, out_gate=out_gate, cu_seqlens=None, values=None, precision=precision)


def forward(op: Operands) -> Tensor:
    """`fftconv` by the kernels; packed sequences become a batch for each transform length."""
    if op.cu_seqlens is None:
        return _forward(op)
    y = torch.empty_like(op.u, memory_format=torch.contiguous_format)
    for places, real in _groups(op):
        _scatter(_forward(_part(op, places, real)), places, real, y)
    return y


def backward(op: Operands, dy: Tensor, needs: tuple[bool, ...]) -> list[Tensor | None]:
    """Its gradients by the kernels: for u, k, in_gate, out_gate and skip, None where not needed."""
    if op.cu_seqlens is None:
        return _backward(op, dy, needs)
    tensors = [getattr(op, name) if need else None for name, need in zip(GRADIENTS, needs, strict=True)]
    grads = [None if t is None else torch.zeros_like(t, memory_format=torch.contiguous_format) for t in tensors]
    for places, real in _groups(op):
        rows = _gather(dy, places, real)
        assert rows is not None
        for name, grad, found in zip(GRADIENTS, grads, _backward(_part(op, places, real), rows, needs), strict=True):
            if grad is not None and found is not None:
                grad.add_(found) if name in ("k", "skip") else _scatter(found, places, real, grad)
    return grads
