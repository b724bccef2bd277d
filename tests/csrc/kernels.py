"""launch.h through ctypes: the same calls for the emulated kernels (CPU tensors) and a device's (CUDA tensors)."""

import ctypes
from ctypes import POINTER, Structure, byref, c_bool, c_char_p, c_int, c_int64, c_size_t, c_uint64, c_void_p
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

CODES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float64: 3}


class Rows(Structure):
    _fields_ = [("data", c_void_p), ("stride_b", c_int64), ("stride_d", c_int64)]


ROWS = ("u", "in_gate", "out_gate", "y", "dy", "du", "din_gate", "dout_gate")


class Params(Structure):
    _fields_ = [
        ("batch", c_int64),
        ("channels", c_int64),
        ("length", c_int64),
        ("filter", c_void_p),
        ("filter_length", c_int64),
        ("filter_dtype", c_int),
        ("bidirectional", c_bool),
        ("dtype", c_int),
        ("precision", c_int),
        *[(name, Rows) for name in ROWS],
        ("skip", c_void_p),
        ("dk", c_void_p),
        ("dskip", c_void_p),
        ("starts", c_void_p),
        ("ends", c_void_p),
        ("segments", c_int64),
        ("packed_length", c_int64),
        ("spectrum", c_void_p),
        ("scratch", c_void_p),
        ("stream", c_void_p),
    ]


@dataclass
class Gradients:
    du: Tensor
    din_gate: Tensor | None
    dout_gate: Tensor | None
    dk: Tensor
    dskip: Tensor


class KernelError(RuntimeError):
    pass


class Kernels:
    """One built library."""

    def __init__(self, library: Path):
        self.library = ctypes.CDLL(str(library))
        for name in ("filter_spectrum", "forward", "backward"):
            function = getattr(self.library, f"dnasm_{name}")
            function.restype, function.argtypes = c_char_p, [POINTER(Params)]
        for name in ("spectrum_bytes", "forward_scratch_bytes", "backward_scratch_bytes"):
            function = getattr(self.library, f"dnasm_{name}")
            function.restype, function.argtypes = c_size_t, [POINTER(Params)]
        self.library.dnasm_params_bytes.restype = c_int64
        self.library.dnasm_plan_length.restype = c_int64
        self.library.dnasm_plan_length.argtypes = [c_int64, c_int]
        assert self.library.dnasm_params_bytes() == ctypes.sizeof(Params)

    def seed(self, seed: int, shared_limit: int = 0) -> None:
        self.library.dnasm_emulator(c_uint64(seed), c_size_t(shared_limit))

    def call(self, name: str, params: Params) -> None:
        text = getattr(self.library, f"dnasm_{name}")(byref(params))
        if text is not None:
            raise KernelError(text.decode())

    def _poisoned(self, size: int, device: torch.device) -> Tensor:
        """At least `size` bytes of NaNs, 256-byte aligned."""
        whole = torch.full((size + 256,), 0xFF, dtype=torch.uint8, device=device)
        skew = -whole.data_ptr() % 256
        return whole[skew : skew + size]

    def scratch(self, direction: str, params: Params, device: torch.device) -> Tensor:
        """What forward or backward asks for, set in params; keep it alive."""
        scratch = self._poisoned(getattr(self.library, f"dnasm_{direction}_scratch_bytes")(byref(params)), device)
        params.scratch = scratch.data_ptr()
        return scratch

    def spectrum(self, params: Params, device: torch.device) -> Tensor:
        buffer = self._poisoned(self.library.dnasm_spectrum_bytes(byref(params)), device)
        params.spectrum = buffer.data_ptr()
        self.call("filter_spectrum", params)
        return buffer

    def forward(self, params: Params, u: Tensor) -> Tensor:
        y = torch.full(u.shape, torch.nan, dtype=u.dtype, device=u.device)
        set_rows(params, y=y)
        scratch = self.scratch("forward", params, u.device)
        self.call("forward", params)
        del scratch
        return y

    def backward(self, params: Params, u: Tensor, k: Tensor, dy: Tensor) -> Gradients:
        def blank(wanted: bool) -> Tensor | None:
            return torch.full(u.shape, torch.nan, dtype=u.dtype, device=u.device) if wanted else None

        out = Gradients(
            torch.full(u.shape, torch.nan, dtype=u.dtype, device=u.device),
            blank(bool(params.in_gate.data)),
            blank(bool(params.out_gate.data)),
            torch.full(k.shape, torch.nan, device=u.device),
            torch.full(u.shape[1:2], torch.nan, device=u.device),
        )
        set_rows(params, dy=dy, du=out.du, din_gate=out.din_gate, dout_gate=out.dout_gate)
        params.dk, params.dskip = out.dk.data_ptr(), out.dskip.data_ptr()
        scratch = self.scratch("backward", params, u.device)
        self.call("backward", params)
        del scratch
        return out


def set_rows(params: Params, **tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        assert tensor.stride(-1) == 1 or tensor.shape[-1] == 1
        setattr(params, name, Rows(tensor.data_ptr(), tensor.stride(0), tensor.stride(1)))


def make_params(u: Tensor, k: Tensor, *, in_gate: Tensor | None = None, out_gate: Tensor | None = None,
                skip: Tensor | None = None, bidirectional: bool = False, precision: int = 0) -> Params:  # fmt: skip
    """Params that point into the tensors: keep them alive."""
    params = Params(*u.shape, k.data_ptr(), k.shape[-1], CODES[k.dtype], bidirectional, CODES[u.dtype], precision)
    set_rows(params, u=u, in_gate=in_gate, out_gate=out_gate)
    if skip is not None:
        params.skip = skip.data_ptr()
    if u.is_cuda:
        params.stream = torch.cuda.current_stream().cuda_stream
    return params


def pack(params: Params, bounds: Tensor) -> None:
    """Make the params' rows hold packed sequences; keep `bounds`, int64, alive."""
    params.starts, params.ends = bounds.data_ptr(), bounds[1:].data_ptr()
    params.segments, params.packed_length = len(bounds) - 1, params.length
    params.batch, params.length = params.batch * params.segments, int(bounds.diff().max())
