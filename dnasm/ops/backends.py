"""Which code runs a convolution, why, and a record of it that tests can read."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dnasm.errors import BackendUnavailable
from dnasm.ops import cpu, cuda, reference, rightangle
from dnasm.ops.operands import BACKENDS, GRADIENTS, Operands

CUDA_LENGTH = 1 << 24
"""Longest sequence that the CUDA kernels transform."""

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
    """Which code of it: `native` (our kernels) or `torch`."""
    direction: str
    """`forward` or `backward`; `short` for the short convolution."""
    work: int
    """Elements transformed, padding included: rows times tiles times the plan's length."""
    plan: int = 0
    """Length of the longest transform, where the backend chooses one; 0 where taps are multiplied out."""


@contextmanager
def record_calls() -> Iterator[list[Call]]:
    """Collect a `Call` for every convolution that runs inside the `with` block."""
    calls: list[Call] = []
    _records.append(calls)
    try:
        yield calls
    finally:
        _records[:] = [other for other in _records if other is not calls]


def recording() -> bool:
    """Whether anyone wants to hear of runs."""
    return bool(_records)


def note(call: Call) -> None:
    """Tell the open records about a run."""
    for calls in _records:
        calls.append(call)


def set_backend(name: str) -> None:
    """Choose what `backend="auto"` means in this process: `auto`, or one backend that then never falls back."""
    global _preferred
    _preferred = check_name(name)
    cuda.routes.clear()


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
        if torch.float64 in (op.u.dtype, op.k.dtype):
            return "reference"
        if device not in ("cpu", "cuda"):
            say_once(f"fftconv runs its definition on {device}, for which there are no kernels")
            return "reference"
        if device == "cuda" and cuda.longest(op) > CUDA_LENGTH and not cuda.direct(op):
            say_once(
                f"fftconv runs its definition (torch's FFT) past {CUDA_LENGTH:,} positions on a GPU: "
                "the kernels' longest transform"
            )
            return "reference"
        return device
    if name in ("cpu", "cuda") and name != device:
        raise BackendUnavailable(f"backend {name!r} was asked for, but u is on {op.u.device}: move u, or pass 'auto'")
    return name


def forward(op: Operands, backend: str) -> Tensor:
    """Run the convolution on the backend that was asked for."""
    chosen, body = _body(op, backend)
    if op.u.numel() == 0:
        return torch.empty_like(op.u, memory_format=torch.contiguous_format)
    _note_run(op, chosen, body, "forward")
    if chosen == "reference":
        return reference.fftconv(op.u, op.k, in_gate=op.in_gate, out_gate=op.out_gate, skip=op.skip, **_options(op))
    if body == "torch":
        return rightangle.forward(op)
    return cpu.forward(op, cpu.groups(op)) if chosen == "cpu" else cuda.forward(op)


def backward(op: Operands, dy: Tensor, needs: tuple[bool, ...], backend: str) -> list[Tensor | None]:
    """Run its gradient: for u, k, in_gate, out_gate and skip, None where not needed."""
    chosen, body = _body(op, backend)
    if op.u.numel() == 0:
        tensors = (getattr(op, name) for name in GRADIENTS)
        return [torch.zeros_like(t) if need and t is not None else None for t, need in zip(tensors, needs, strict=True)]
    _note_run(op, chosen, body, "backward")
    if chosen == "reference":
        grads = reference.fftconv_backward(dy, op.u, op.k, op.in_gate, op.out_gate, op.skip, **_options(op))
        return [grad if need else None for grad, need in zip(grads, needs, strict=True)]
    if body == "torch":
        return rightangle.backward(op, dy, needs)
    return cpu.backward(op, dy, needs, cpu.groups(op)) if chosen == "cpu" else cuda.backward(op, dy, needs)


def _body(op: Operands, requested: str) -> tuple[str, str]:
    """Backend and body: a device's own kernels, or the right-angle transform in plain torch."""
    chosen = choose(op, requested)
    if chosen == "reference" or op.u.numel() == 0:
        return chosen, "torch"
    if chosen == "cpu":
        if torch.float64 in (op.u.dtype, op.k.dtype, None if op.skip is None else op.skip.dtype):
            return chosen, "torch"  # the C++ kernels compute in float32
        if why := cpu.unavailable():
            say_once(f"fftconv runs without its C++ kernels, more slowly: {why}")
        return chosen, "torch" if why else "native"
    why = cuda.unavailable(op)
    if why and "cuda" in (requested, _preferred):
        raise BackendUnavailable(f"backend 'cuda' was asked for and its kernels cannot run: {why}")
    if why:
        say_once(f"fftconv runs through torch's FFT on {op.u.device}, more slowly: {why}")
    elif op.cu_seqlens is None:
        cuda.remember(op, requested)
    return chosen, "torch" if why else "native"


def _note_run(op: Operands, chosen: str, body: str, direction: str) -> None:
    if not _records:
        return
    plan, work = 0, op.u.numel()
    if body == "native" and chosen == "cpu":
        plans = cpu.groups(op)
        plan, work = max(plans), cpu.work(op, plans)
    elif body == "native":
        back = direction == "backward"
        plan, work = cuda.plan_length(op, back=back), cuda.work(op, back=back)
    note(Call(chosen, body, direction, work, plan))


def _options(op: Operands) -> dict[str, Any]:
    return {"bidirectional": op.bidirectional, "cu_seqlens": op.cu_seqlens}
