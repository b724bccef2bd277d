"""Which code runs a convolution, why, and a record of it that tests can read."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dnasm.errors import BackendUnavailable
from dnasm.ops import cpu, reference, rightangle
from dnasm.ops.operands import BACKENDS, GRADIENTS, Operands

_log = logging.getLogger(__name__)
_said: set[str] = set()
_records: list[list["Call"]] = []
_preferred = "auto"


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a convolution: what a test asserts on."""

    backend: str
    """`reference`, `cpu` or `cuda`."""
    body: str
    """Which code of that backend: `torch`, `native`."""
    direction: str
    """`forward` or `backward`; `short` for the short convolution."""
    work: int
    """Elements transformed, padding included: rows times tiles times the plan's length."""
    plan: int = 0
    """Length of the longest transform, where the backend chooses one."""


@contextmanager
def record_calls() -> Iterator[list[Call]]:
    """Collect a `Call` for every convolution that runs inside the `with` block."""
    calls: list[Call] = []
    _records.append(calls)
    try:
        yield calls
    finally:
        _records[:] = [other for other in _records if other is not calls]


def note(call: Call) -> None:
    """Tell the open records about a run."""
    for calls in _records:
        calls.append(call)


def set_backend(name: str) -> None:
    """Choose what `backend="auto"` means in this process: `auto`, or one backend that then never falls back."""
    global _preferred
    _preferred = check_name(name)


def check_name(name: str) -> str:
    """Return a backend's name if it is one."""
    if name not in BACKENDS:
        raise ValueError(f"no backend {name!r}; there are {', '.join(BACKENDS)}")
    return name


def say_once(message: str) -> None:
    """Log a warning the first time that it comes up in this process."""
    if message not in _said:
        _said.add(message)
        _log.warning(message)


def choose(op: Operands, name: str) -> str:
    """Turn a requested backend into the one that runs.

    Raises:
        BackendUnavailable: If a backend was named and cannot take these tensors.
    """
    name = _preferred if name == "auto" else name
    device = op.u.device.type
    if name == "auto":
        if device == "cpu":
            return "reference" if torch.float64 in (op.u.dtype, op.k.dtype) else "cpu"
        if device == "cuda":
            say_once("fftconv runs the reference on cuda: this build has no CUDA kernels")
        return "reference"
    if name == "cpu" and device != "cpu":
        raise BackendUnavailable(f"backend 'cpu' was asked for, but u is on {op.u.device}: pass u.cpu() or 'auto'")
    if name == "cuda":
        raise BackendUnavailable("backend 'cuda' was asked for, but this build has no CUDA kernels: pass 'auto'")
    return name


def forward(op: Operands, backend: str) -> Tensor:
    """Run the convolution on the backend that was asked for."""
    chosen = choose(op, backend)
    if op.u.numel() == 0:
        return torch.empty_like(op.u, memory_format=torch.contiguous_format)
    if chosen == "cpu":
        return _cpu_forward(op)
    note(Call(chosen, "torch", "forward", op.u.numel()))
    return reference.fftconv(op.u, op.k, in_gate=op.in_gate, out_gate=op.out_gate, skip=op.skip, **_options(op))


def backward(op: Operands, dy: Tensor, needs: tuple[bool, ...], backend: str) -> list[Tensor | None]:
    """Run its gradient: for u, k, in_gate, out_gate and skip, None where not needed."""
    chosen = choose(op, backend)
    if op.u.numel() == 0:
        tensors = (getattr(op, name) for name in GRADIENTS)
        return [torch.zeros_like(t) if need and t is not None else None for t, need in zip(tensors, needs, strict=True)]
    if chosen == "cpu":
        return _cpu_backward(op, dy, needs)
    note(Call(chosen, "torch", "backward", op.u.numel()))
    grads = reference.fftconv_backward(dy, op.u, op.k, op.in_gate, op.out_gate, op.skip, **_options(op))
    return [grad if need else None for grad, need in zip(grads, needs, strict=True)]


def _has_native(op: Operands) -> bool:
    if torch.float64 in (op.u.dtype, op.k.dtype, None if op.skip is None else op.skip.dtype):
        return False  # the C++ kernels compute in float32
    why = cpu.unavailable()
    if why:
        say_once(f"fftconv runs without its C++ kernels, more slowly: {why}")
    return not why


def _cpu_forward(op: Operands) -> Tensor:
    if not _has_native(op):
        note(Call("cpu", "torch", "forward", op.u.numel()))
        return rightangle.forward(op)
    plans = cpu.groups(op)
    note(Call("cpu", "native", "forward", cpu.work(op, plans), max(plans)))
    return cpu.forward(op, plans)


def _cpu_backward(op: Operands, dy: Tensor, needs: tuple[bool, ...]) -> list[Tensor | None]:
    if not _has_native(op):
        note(Call("cpu", "torch", "backward", op.u.numel()))
        return rightangle.backward(op, dy, needs)
    plans = cpu.groups(op)
    note(Call("cpu", "native", "backward", cpu.work(op, plans), max(plans)))
    return cpu.backward(op, dy, needs, plans)


def _options(op: Operands) -> dict[str, Any]:
    return {"bidirectional": op.bidirectional, "cu_seqlens": op.cu_seqlens}
