"""The CPU backend: the C++ transform where a compiler is at hand, else its plain-torch form."""

from collections import defaultdict
from functools import lru_cache

import torch
from torch import Tensor

from dnasm.errors import BackendUnavailable
from dnasm.ops import build, reference
from dnasm.ops.operands import GRADIENTS, Operands
from dnasm.ops.plan import cpu_radices, packed_length, tile_length

Groups = dict[int, list[tuple[int, int]]]
"""Packed sequences by the length of the plan that transforms them."""


@lru_cache(maxsize=1)
def unavailable() -> str:
    """Why the C++ body cannot run here, empty if it can; builds and loads it when first asked."""
    try:
        build.load(build.cpu_library(), _self_test)
    except BackendUnavailable as error:
        return str(error)
    return ""


def _self_test() -> None:
    """Two channels, one tile and a bit: the definition's numbers, or the library is not used."""
    u, k = torch.sin(torch.arange(2 * 150.0)).view(1, 2, 150), torch.cos(torch.arange(2 * 40.0)).view(2, 40)
    y = forward(Operands(u, k), {64: [(0, 150)]})
    error = (y - reference.fftconv(u, k)).abs().max().item()
    assert error < 1e-4, f"the convolution is off by {error:.2g}"


def _plan(length: int, taps: int, bidirectional: bool) -> int:
    return tile_length(length, taps * (1 + bidirectional))  # tiles hold both sides of a filter


def groups(op: Operands) -> Groups:
    """Choose the plan for each sequence."""
    pieces = op.pieces()
    if op.cu_seqlens is None:
        return {_plan(op.u.shape[-1], op.taps, op.bidirectional): pieces}
    found: Groups = defaultdict(list)
    for start, end in pieces:
        found[packed_length(end - start)].append((start, end))
    return dict(found)


def work(op: Operands, plans: Groups) -> int:
    """Elements that one transform of all rows takes, padding included."""
    tiles = sum(-(-(end - start) // length) * length for length, pieces in plans.items() for start, end in pieces)
    return op.u.shape[0] * op.u.shape[1] * tiles


def _layout(plans: Groups) -> Tensor:
    flat: list[int] = []
    for length, pieces in plans.items():
        radices = cpu_radices(length)
        flat += [length, len(radices), *radices, len(pieces), *(bound for piece in pieces for bound in piece)]
    return torch.tensor(flat, dtype=torch.int64)


def _values(op: Operands, plans: Groups) -> Tensor | None:
    """The caller's spectrum, if it is of the one plan that is used."""
    if op.values is None or len(plans) != 1 or op.values.shape[-1] != 2 * next(iter(plans)):
        return None
    return op.values


def _contiguous(x: Tensor | None) -> Tensor | None:
    # A row whose samples are far apart costs a cache line a sample: one copy for all channels together is cheaper.
    return x if x is None or x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def forward(op: Operands, plans: Groups) -> Tensor:
    """`fftconv` in C++."""
    y = torch.empty(op.u.shape, dtype=op.u.dtype)
    u, in_gate, out_gate = (_contiguous(x) for x in (op.u, op.in_gate, op.out_gate))
    torch.ops.dnasm_cpu.forward(u, op.k, in_gate, out_gate, op.skip, _values(op, plans), _layout(plans), y)
    return y


def backward(op: Operands, dy: Tensor, needs: tuple[bool, ...], plans: Groups) -> list[Tensor | None]:
    """Its gradients in C++: for u, k, in_gate, out_gate and skip, None where not needed."""
    tensors = [getattr(op, name) if need else None for name, need in zip(GRADIENTS, needs, strict=True)]
    grads = [
        None if t is None else torch.zeros(t.shape) if name in ("k", "skip") else torch.empty(t.shape, dtype=t.dtype)
        for name, t in zip(GRADIENTS, tensors, strict=True)
    ]
    dy_, u, in_gate, out_gate = (_contiguous(x) for x in (dy, op.u, op.in_gate, op.out_gate))
    torch.ops.dnasm_cpu.backward(dy_, u, op.k, in_gate, out_gate, op.skip, _values(op, plans), _layout(plans), *grads)
    return [g if g is None or t is None else g.to(t.dtype) for g, t in zip(grads, tensors, strict=True)]


def spectrum(k: Tensor, length: int, bidirectional: bool) -> Tensor:
    """Spectra (d, 2 L) for signals of `length`, as `forward` takes them for its values."""
    plan = _plan(length, k.shape[-1], bidirectional)
    values = torch.empty(k.shape[0], 2 * plan)
    torch.ops.dnasm_cpu.spectrum(k, _layout({plan: [(0, length)]}), values)
    return values
