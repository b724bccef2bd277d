"""csrc/short through ctypes, for the emulated kernels and a device's."""

import ctypes
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_int64, c_size_t, c_uint64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from tests.csrc.kernels import CODES, KernelError, Kernels, Params, Rows
from tests.csrc.toolchain import CSRC, DTYPES, HOST_FLAGS, compile_object, link_library


class Strided(Structure):
    _fields_ = [("data", c_void_p), ("stride_b", c_int64), ("stride_d", c_int64), ("stride_l", c_int64)]


class ShortParams(Structure):
    _fields_ = [
        *[(name, c_int64) for name in ("batch", "channels", "length")],
        *[(name, c_int) for name in ("streams", "taps", "ahead", "dtype")],
        ("x", Strided),
        ("weight", c_void_p),
        ("bias", c_void_p),
        *[(name, Rows) for name in ("y", "mixed", "dy", "dmixed")],
        ("dx", Strided),
        *[(name, c_void_p) for name in ("dweight", "dbias", "scratch", "stream")],
    ]


def rows(x: Tensor | None) -> Rows:
    return Rows() if x is None else Rows(x.data_ptr(), x.stride(0), x.stride(1))


def strided(x: Tensor) -> Strided:
    return Strided(x.data_ptr(), *x.stride())


def blank(shape: tuple[int, ...] | torch.Size, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.full(shape, torch.nan, dtype=dtype or like.dtype, device=like.device)


class ShortKernels:
    """One built library."""

    def __init__(self, library: Path):
        self.library = ctypes.CDLL(str(library))
        for name in ("forward", "backward"):
            function = getattr(self.library, f"dnasm_short_{name}")
            function.restype, function.argtypes = c_char_p, [POINTER(ShortParams)]
        self.library.dnasm_short_scratch_bytes.restype = c_size_t
        self.library.dnasm_short_scratch_bytes.argtypes = [POINTER(ShortParams)]
        self.library.dnasm_short_params_bytes.restype = c_int64
        assert self.library.dnasm_short_params_bytes() == ctypes.sizeof(ShortParams)

    def seed(self, seed: int) -> None:
        self.library.dnasm_emulator(c_uint64(seed))

    def call(self, name: str, params: ShortParams) -> None:
        text = getattr(self.library, f"dnasm_short_{name}")(byref(params))
        if text is not None:
            raise KernelError(text.decode())

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, streams: int, ahead: int) -> list[Tensor]:
        """One stream's result, or the output gate and the product of the other two."""
        p = short_params(x, weight, bias, streams, ahead)
        shape = (x.shape[0], x.shape[1] // streams, x.shape[2])
        y = [blank(shape, x) for _ in range(2 if streams == 3 else 1)]
        p.y, p.mixed = rows(y[0]), rows(y[1] if streams == 3 else None)
        self.call("forward", p)
        return y

    def backward(
        self, dy: list[Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, streams: int, ahead: int
    ) -> list[Tensor]:
        """Gradients of x, in its layout, weight and bias."""
        p = short_params(x, weight, bias, streams, ahead)
        p.dy, p.dmixed = rows(dy[0]), rows(dy[1] if streams == 3 else None)
        dx = torch.empty_like(x).fill_(torch.nan)
        sums = blank(weight.shape, weight), blank(weight.shape[:1], weight)
        p.dx, p.dweight, p.dbias = strided(dx), sums[0].data_ptr(), sums[1].data_ptr()
        scratch = blank((self.library.dnasm_short_scratch_bytes(byref(p)) // 4 + 1,), weight)
        p.scratch = scratch.data_ptr()
        self.call("backward", p)
        return [dx, *sums]


class DirectKernels(Kernels):
    """The direct product, called as the transforms are."""

    def __init__(self, library: Path):
        self.library = ctypes.CDLL(str(library))
        for name in ("forward", "backward"):
            function = getattr(self.library, f"dnasm_direct_{name}")
            function.restype, function.argtypes = c_char_p, [POINTER(Params)]
        self.library.dnasm_direct_scratch_bytes.restype = c_size_t
        self.library.dnasm_direct_scratch_bytes.argtypes = [POINTER(Params)]
        assert self.library.dnasm_params_bytes() == ctypes.sizeof(Params)

    def seed(self, seed: int, shared_limit: int = 0) -> None:
        self.library.dnasm_emulator(c_uint64(seed))

    def call(self, name: str, params: Params) -> None:
        text = getattr(self.library, f"dnasm_direct_{name}")(byref(params))
        if text is not None:
            raise KernelError(text.decode())

    def spectrum(self, params: Params, device: torch.device) -> Tensor:
        return torch.empty(0)

    def scratch(self, direction: str, params: Params, device: torch.device) -> Tensor:
        size = self.library.dnasm_direct_scratch_bytes(byref(params)) if direction == "backward" else 0
        scratch = self._poisoned(size, device)
        params.scratch = scratch.data_ptr()
        return scratch


def short_params(x: Tensor, weight: Tensor, bias: Tensor | None, streams: int, ahead: int) -> ShortParams:
    p = ShortParams(x.shape[0], x.shape[1] // streams, x.shape[2], streams, weight.shape[1], ahead, CODES[x.dtype])
    p.x, p.weight, p.bias = strided(x), weight.data_ptr(), None if bias is None else bias.data_ptr()
    if x.is_cuda:
        p.stream = torch.cuda.current_stream().cuda_stream
    return p


def short_library(
    cache: Path, dtypes: tuple[str, ...], flags: tuple[str, ...] = (), linking: tuple[str, ...] = ()
) -> Path:
    """The emulated kernels of some dtypes as one shared library."""
    command = ["g++", *HOST_FLAGS, *flags, *linking, "-x", "c++"]
    api = Path(__file__).with_name("short_api.cpp")
    made = [compile_object(cache, command, source)[0] for source in (CSRC / "short/dispatch.cu", api)]
    for dtype in dtypes:
        made.append(compile_object(cache, [*command, f"-DDNASM_DTYPE={DTYPES[dtype]}"], CSRC / "short/short.cu")[0])
    library = cache / f"short-{'-'.join(path.stem[:12] for path in made)}.so"
    return library if library.exists() else link_library(library, ["g++", *linking], made)
