"""The CUDA backend: tensor-core kernels for bfloat16 and float16, and float32 kernels where they are asked for.

Kernels are compiled for one transform length, dtype and architecture each, when they are first needed.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from dnasm.errors import BackendUnavailable
from dnasm.ops import build, reference
from dnasm.ops.operands import GRADIENTS, Operands, bits

FAST, FLOAT32, DIRECT = 0, 1, 2
DIRECT_TAPS = {False: ((8192, 512), (4096, 256), (512, 128)), True: ((32769, 512), (32768, 256), (8192, 128))}
"""From which length on how many taps, of both sides together, are multiplied out faster than transformed, for the
convolution and for its gradient (H200, docs/fftconv-notes.md)."""
ONE_BLOCK = 16384
"""Longest sequence that can share a launch with others of its row."""
SIGNAL_GRADIENTS = ("u", "in_gate", "out_gate")
routes: dict[tuple[Any, ...], int] = {}
"""Kinds of calls that have run on the kernels, and at which precision: what `eager` need not ask again."""
_DTYPES = {getattr(torch, name): number for name, number in build.CUDA_DTYPES.items()}


def longest(op: Operands) -> int:
    """Length of the longest sequence; reads the bounds of packed ones unless the caller promised it."""
    if op.cu_seqlens is None:
        return op.u.shape[-1]
    if op.max_seqlen is not None:
        return min(op.max_seqlen, op.u.shape[-1])
    return max(end - start for start, end in op.pieces())


def _precision(op: Operands, length: int) -> int:
    """Tensor cores for 16-bit signals as far as their plans reach, else float32, by dtype, in words or by length."""
    if op.precision == "float32" or op.u.dtype == torch.float32:
        return FLOAT32
    if direct(op):
        return DIRECT
    return FAST if plan(length, FAST) else FLOAT32


def direct(op: Operands) -> bool:
    """Whether the filter is so short that its taps are multiplied out."""
    wanted = op.cu_seqlens is None and op.precision is None and op.u.dtype in (torch.bfloat16, torch.float16)
    few = wanted and _taps(op.u, op.k) <= _most_taps(op.u.shape[-1], back=False)
    return few and not short_unavailable(op.u.dtype, op.u.device.index)


def _taps(u: Tensor, k: Tensor) -> int:
    return min(k.shape[-1], u.shape[-1]) * (k.dim() - 1)


def _most_taps(length: int, *, back: bool) -> int:
    return next((taps for least, taps in DIRECT_TAPS[back] if length >= least), 0)


def way_back(u: Tensor, k: Tensor, precision: int) -> int:
    """Precision of the gradient of a call that ran at `precision`: a transform pays from fewer taps on there."""
    if precision != DIRECT or _taps(u, k) <= _most_taps(u.shape[-1], back=True):
        return precision
    other = FAST if plan(u.shape[-1], FAST) else FLOAT32
    return DIRECT if _load(u.shape[-1], u.dtype, other, u.device.index) else other


def precision_of(op: Operands) -> int:
    """Precision of a call, of its longest sequence if it is packed."""
    return _precision(op, longest(op))


def unavailable(op: Operands) -> str:
    """Why the kernels cannot take this call, empty if they can; builds and loads them when first asked."""
    if op.u.device.type != "cuda":
        return f"u is on {op.u.device}: pass u.cuda()"
    if op.u.dtype not in _DTYPES:
        return f"u is {op.u.dtype}: pass u.float()"
    if why := _dispatch():
        return why
    reasons = (_load(n, op.u.dtype, _precision(op, n), op.u.device.index) for n in _lengths(op))
    return next(filter(None, reasons), "")


def remember(op: Operands, backend: str) -> None:
    """Note that calls like this one, asked of `backend`, run on the kernels."""
    if len(routes) > 4096:
        routes.clear()
    kind = (op.u.shape[-1:], op.k.shape[-1:], op.u.dtype, op.k.dtype, op.u.device.index, op.precision, backend)
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
    return 0 if precision == DIRECT else torch.ops.dnasm_cuda.plan_length(length, precision)


@lru_cache(maxsize=4096)
def _load(length: int, dtype: torch.dtype, precision: int, device: int) -> str:
    if precision == DIRECT:
        return short_unavailable(dtype, device)
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


@lru_cache(maxsize=64)
def short_unavailable(dtype: torch.dtype, device: int) -> str:
    """Why the kernels for a few taps cannot run, empty if they can; builds and loads them when first asked."""
    if dtype not in _DTYPES:
        return f"the signal is {dtype}: pass a float32 one"
    if (why := _dispatch()) or torch.ops.dnasm_cuda.has_short(_DTYPES[dtype]):
        return why
    try:
        library = build.cuda_short_kernels(_DTYPES[dtype], build.architecture_of(device))
        build.load(library, partial(_short_self_test, dtype, device))
    except BackendUnavailable as error:
        return str(error)
    return ""


def _short_self_test(dtype: torch.dtype, device: int) -> None:
    x = torch.sin(torch.arange(2 * 300, device=f"cuda:{device}")).view(1, 2, 300).to(dtype)
    weight = torch.tensor([[0.5, -2.0, 1.0], [3.0, 0.0, -1.0]], device=x.device)
    y = torch.ops.dnasm_cuda.short_convolve(x, weight, None, 1, 0)[0].float()
    error = (y - reference.short_conv(x.float(), weight)).abs().max().item()
    assert error < 0.05, f"the short convolution is off by {error:.2g}"


def _self_test(plan: int, dtype: torch.dtype, precision: int, device: int) -> None:
    numbers = torch.arange(4 * plan, device=f"cuda:{device}", dtype=torch.float64).view(2, 2, plan)
    noise = torch.sin(numbers * 12.9898) * 43758.5453 % 1 - 0.5  # pure tones would leave a result of rounding alone
    u, k = noise[:1].to(dtype), noise[1].float()
    y = _forward(Operands(u, k, precision="float32" if precision else None)).float()
    expected = reference.fftconv(u.float(), k)
    error = ((y - expected).norm() / expected.norm()).item()
    assert error < 0.02, f"the convolution of length {plan} is off by {error:.2g}"


def plan_length(op: Operands, *, back: bool = False) -> int:
    """Length of the longest transform of a call that the kernels can take, or of its gradient."""
    precision = precision_of(op)
    return plan(longest(op), way_back(op.u, op.k, precision) if back else precision)


def spectrum(k: Tensor, length: int) -> Tensor | None:
    """Spectra for bfloat16 or float16 signals of `length` in the kernels' own order, if there are kernels for it."""
    op = Operands(torch.empty(1, 1, 1, dtype=torch.bfloat16, device=k.device).expand(1, k.shape[0], length), k)
    if unavailable(op) or direct(op):
        return None
    return torch.ops.dnasm_cuda.spectrum(k, length, _DTYPES[op.u.dtype], precision_of(op))


def _forward(op: Operands) -> Tensor:
    number = precision_of(op)
    return torch.ops.dnasm_cuda.convolve(op.u, op.k, op.in_gate, op.out_gate, op.skip, op.values, number)[0]


def _backward(op: Operands, dy: Tensor, needs: tuple[bool, ...]) -> list[Tensor | None]:
    inputs = op.u, op.k, op.in_gate, op.out_gate, op.skip, op.values
    return list(torch.ops.dnasm_cuda.gradients(dy, *inputs, way_back(op.u, op.k, precision_of(op)), bits(needs)))


def _lengths(op: Operands) -> list[int]:
    """A sequence's length for each plan."""
    if op.cu_seqlens is None:
        return [op.u.shape[-1]]
    groups, alone = _split(op)
    return [group.longest for group in groups] + [at.stop - at.start for at in alone]


def work(op: Operands, *, back: bool = False) -> int:
    """Elements that one transform of all rows takes, padding included."""
    if op.cu_seqlens is None:
        samples = plan_length(op, back=back) or op.u.shape[-1]
    else:
        groups, alone = _split(op)
        samples = sum(group.starts.numel() * plan(group.longest, group.precision) for group in groups)
        samples += sum(plan_length(_cut(op, at)) or at.stop - at.start for at in alone)
    return op.u.shape[0] * op.u.shape[1] * samples


@dataclass(frozen=True, slots=True)
class _Packed:
    """Sequences that the kernels take together, by their bounds on the device."""

    starts: Tensor
    ends: Tensor
    longest: int
    precision: int

    def call(self, operator: Callable[..., Any], op: Operands, *before: Tensor) -> Callable[..., Any]:
        bounds = (self.starts, self.ends, self.longest, self.precision)
        return partial(operator, *before, op.u, op.k, op.in_gate, op.out_gate, op.skip, *bounds)


def _split(op: Operands) -> tuple[list[_Packed], list[slice]]:
    """Packed sequences by plan, and those too long to share a launch. Reads their bounds, unless `longest` is known."""
    assert op.cu_seqlens is not None
    if op.max_seqlen is not None and longest(op) <= ONE_BLOCK:
        bounds = op.cu_seqlens.long()
        return [_Packed(bounds[:-1], bounds[1:], longest(op), precision_of(op))], []
    by_plan = defaultdict(list)
    for start, end in op.pieces():
        by_plan[plan(min(end - start, ONE_BLOCK + 1), _precision(op, end - start))].append((start, end))
    groups, alone = [], []
    for length, pieces in by_plan.items():
        if length > ONE_BLOCK:
            alone += [slice(start, end) for start, end in pieces]
            continue
        starts, ends = torch.tensor(list(zip(*pieces, strict=True)), device=op.u.device)
        most = max(end - start for start, end in pieces)
        groups.append(_Packed(starts, ends, most, _precision(op, most)))
    return groups, alone


def _cut(op: Operands, at: slice) -> Operands:
    u, in_gate, out_gate = (None if x is None else x[..., at] for x in (op.u, op.in_gate, op.out_gate))
    assert u is not None
    return replace(op, u=u, in_gate=in_gate, out_gate=out_gate, cu_seqlens=None, values=None, max_seqlen=None)


def _blank(like: Tensor, op: Operands) -> Tensor:
    """For results of packed sequences. One that is longer than promised shows: what it has beyond is never written."""
    y = torch.empty_like(like, memory_format=torch.contiguous_format)
    return y if op.max_seqlen is None else y.fill_(torch.nan)


def forward(op: Operands) -> Tensor:
    """`fftconv` by the kernels."""
    if op.cu_seqlens is None:
        return _forward(op)
    y = _blank(op.u, op)
    groups, alone = _split(op)
    for group in groups:
        group.call(torch.ops.dnasm_cuda.convolve_packed, op)(y)
    for at in alone:
        y[..., at] = _forward(_cut(op, at))
    return y


def backward(op: Operands, dy: Tensor, needs: tuple[bool, ...]) -> list[Tensor | None]:
    """Its gradients by the kernels: for u, k, in_gate, out_gate and skip, None where not needed."""
    if op.cu_seqlens is None:
        return _backward(op, dy, needs)
    tensors = {name: getattr(op, name) for name, need in zip(GRADIENTS, needs, strict=True) if need}
    there = {name: t for name, t in tensors.items() if t is not None}
    signals = {name: _blank(t, op) for name, t in there.items() if name in SIGNAL_GRADIENTS}
    sums = {name: torch.zeros(t.shape, device=t.device) for name, t in there.items() if name not in signals}
    groups, alone = _split(op)
    for group in groups:
        call = group.call(torch.ops.dnasm_cuda.gradients_packed, op, dy)
        for name, found in zip(("k", "skip"), call(bits(needs), *map(signals.get, SIGNAL_GRADIENTS)), strict=True):
            if found is not None:
                sums[name] += found
    for at in alone:
        for name, found in zip(GRADIENTS, _backward(_cut(op, at), dy[..., at], needs), strict=True):
            if found is not None and name in sums:
                sums[name] += found
            elif found is not None:
                signals[name][..., at] = found
    grads = signals | {name: total.to(there[name].dtype) for name, total in sums.items()}
    return [grads.get(name) for name in GRADIENTS]
