"""What a convolution is asked for, checked once: every backend reads the same `Operands`."""

from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

SIGNALS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
BACKENDS = ("auto", "cuda", "cpu", "reference")
PRECISIONS = (None, "float32")
GRADIENTS = ("u", "k", "in_gate", "out_gate", "skip")


def bits(needs: tuple[bool, ...]) -> int:
    """Which of `GRADIENTS` are needed, as the kernels' operators take it."""
    return sum(need << i for i, need in enumerate(needs))


@dataclass(frozen=True, slots=True, eq=False)
class Operands:
    """The inputs of one call, after the checks; the fields are the arguments of `dnasm::fftconv`, in their order."""

    u: Tensor
    k: Tensor
    in_gate: Tensor | None = None
    out_gate: Tensor | None = None
    skip: Tensor | None = None
    cu_seqlens: Tensor | None = None
    values: Tensor | None = None
    """k's spectrum, if the caller has it already."""
    bidirectional: bool = False
    max_seqlen: int | None = None
    """Length of the longest packed sequence, if the caller promises one."""
    precision: str | None = None
    _pieces: list[tuple[int, int]] = field(default_factory=list, init=False)

    @property
    def taps(self) -> int:
        """Taps of the filter, of the longer side if there are two."""
        return self.k.shape[-1]

    def pieces(self) -> list[tuple[int, int]]:
        """Start and end of each packed sequence but empty ones; reads `cu_seqlens` once, on the host, and checks it."""
        length = self.u.shape[-1]
        if self.cu_seqlens is None:
            return [(0, length)]
        if self._pieces:
            return self._pieces
        bounds = self.cu_seqlens.tolist()
        if bounds[0] != 0 or bounds[-1] != length or any(i > j for i, j in pairwise(bounds)):
            raise ValueError(
                f"cu_seqlens must rise from 0 to the length of u, {length}; got {bounds[:4]} ... {bounds[-1]}"
            )
        self._pieces.extend((i, j) for i, j in pairwise(bounds) if j > i)
        longest = max(j - i for i, j in self._pieces)
        if self.max_seqlen is not None and longest > self.max_seqlen:
            raise ValueError(f"cu_seqlens holds a sequence of {longest}, longer than max_seqlen={self.max_seqlen}")
        return self._pieces


def check(op: Operands, *, autocast: bool = False) -> None:
    """Refuse what no backend can compute.

    Args:
        op: The inputs as the caller gave them.
        autocast: Whether u and the gates are about to be cast to one dtype anyway.

    Raises:
        TypeError: If a dtype does not fit.
        ValueError: If a shape or a device does not fit.
    """
    for name in ("in_gate", "out_gate", "skip", "cu_seqlens"):
        require_tensor(name, getattr(op, name), optional=True)
    if op.max_seqlen is not None and (op.cu_seqlens is None or op.max_seqlen < 1):
        raise ValueError(f"max_seqlen={op.max_seqlen}: at least 1, and only beside cu_seqlens, whose longest it bounds")
    _check_types(op, autocast)
    _check_shapes(op)
    for name in ("k", "in_gate", "out_gate", "skip", "cu_seqlens"):
        tensor = getattr(op, name)
        if tensor is not None and tensor.device != op.u.device:
            raise ValueError(f"{name} is on {tensor.device}, u on {op.u.device}; move it: {name}.to(u.device)")


def require_tensor(name: str, value: object, *, optional: bool = False) -> None:
    """Refuse a number, a list or an array where a tensor is wanted."""
    if not isinstance(value, Tensor) and not (optional and value is None):
        raise TypeError(f"{name} is a {type(value).__name__}; it must be a tensor: torch.as_tensor({name})")


def _check_types(op: Operands, autocast: bool) -> None:
    if op.u.dtype not in SIGNALS:
        raise TypeError(f"u is {op.u.dtype}; fftconv takes float32, bfloat16, float16 or float64: u.float()")
    for name in ("k", "skip"):
        tensor = getattr(op, name)
        if tensor is not None and tensor.dtype not in SIGNALS:
            raise TypeError(f"{name} is {tensor.dtype}; it must be floating point: {name}.float()")
    for name in ("in_gate", "out_gate"):
        tensor = getattr(op, name)
        if tensor is not None and tensor.dtype != op.u.dtype and not autocast:
            raise TypeError(f"{name} is {tensor.dtype}, u is {op.u.dtype}; give both one dtype: {name}.to(u.dtype)")
    if op.cu_seqlens is not None and op.cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"cu_seqlens is {op.cu_seqlens.dtype}; it must be int32: cu_seqlens.int()")


def _check_shapes(op: Operands) -> None:
    if op.u.dim() != 3:
        raise ValueError(f"u has shape {tuple(op.u.shape)}; fftconv takes (batch, channels, length)")
    d, length = op.u.shape[1:]
    if length == 0:
        raise ValueError(f"u has shape {tuple(op.u.shape)}: no positions to convolve; leave empty sequences out")
    shape = (d, 2) if op.bidirectional else (d,)
    if op.k.dim() != len(shape) + 1 or op.k.shape[:-1] != shape or op.k.shape[-1] == 0:
        wanted = (
            "(channels, 2, taps): the past with lag 0, the future from lag 1"
            if op.bidirectional
            else ("(channels, taps); for (channels, 2, taps) pass bidirectional=True")
        )
        raise ValueError(f"k has shape {tuple(op.k.shape)} for {d} channels; it must be {wanted}")
    for name in ("in_gate", "out_gate"):
        tensor = getattr(op, name)
        if tensor is not None and tensor.shape != op.u.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, u {tuple(op.u.shape)}: expand the gate to u's")
    if op.skip is not None and op.skip.shape != (d,):
        raise ValueError(f"skip has shape {tuple(op.skip.shape)}; it takes one number a channel: ({d},)")
    if op.cu_seqlens is not None and (op.cu_seqlens.dim() != 1 or op.cu_seqlens.shape[0] < 2):
        raise ValueError(f"cu_seqlens has shape {tuple(op.cu_seqlens.shape)}; it must be (sequences + 1,), from 0 to l")
