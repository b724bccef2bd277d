"""The CPU backend: the C++ transform where a compiler is at hand, else its plain-torch form."""

from collections import defaultdict
from functools import lru_cache

import torch
from torch import Tensor

from dnasm.errors import BackendUnavailable
from dnasm.ops import build, reference
from dnasm.ops.operands import Operands, bits
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


def forward(op: Operands, plans: Groups) -> Tensor:
    """`fftconv` in C++."""
    return torch.ops.dnasm_cpu.convolve(op.u, op.k, op.in_gate, op.out_gate, op.skip, op.values, _layout(plans))[0]


def backward(op: Operands, dy: Tensor, needs: tuple[bool, ...], plans: Groups) -> list[Tensor | None]:
    """Its gradients in C++: for u, k, in_gate, out_gate and skip, None where not needed."""
    inputs = op.u, op.k, op.in_gate, op.out_gate, op.skip, op.values
    return list(torch.ops.dnasm_cpu.gradients(dy, *inputs, _layout(plans), bits(needs)))


def spectrum(k: Tensor, length: int, bidirectional: bool) -> Tensor:
    """Spectra for signals of `length`, as `forward` takes them for its values."""
    layout = _layout({_plan(length, k.shape[-1], bidirectional): [(0, length)]})
    return torch.ops.dnasm_cpu.spectrum(k, length, 0, layout)  # 0: signals of any dtype
