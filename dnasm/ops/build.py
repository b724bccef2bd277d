"""The libraries of kernels: the CPU half, the CUDA dispatch, and the CUDA kernels of each transform length and dtype.

`compiler` builds and loads them, each on first use; `build_cuda` builds ahead of time, `describe` says what stands.
"""

import platform
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from dnasm.errors import BackendUnavailable
from dnasm.ops.compiler import Library, Unit, cache_folder, ensure, find_tool, library_path, load, tool_version

__all__ = [
    "CUDA_DTYPES",
    "CUDA_PLANS",
    "architecture_of",
    "build_cuda",
    "cache_folder",
    "cpu_library",
    "cuda_kernels",
    "cuda_library",
    "describe",
    "load",
]

TARGET_VERSION = "0x020a000000000000"
"""The stable ABI of torch 2.10, the oldest that dnasm takes: one binding serves every later torch."""
CUDA_PLANS = dict.fromkeys((0, 1), tuple(256 << i for i in range(9)))
"""Transform lengths that csrc/fftconv has objects for, by precision: 0 tensor cores, 1 float32. The last object of each
serves all longer plans. A test holds this against launch.cu."""
CUDA_DTYPES = {"float32": 0, "float16": 1, "bfloat16": 2}
"""Dtypes, numbered as in csrc/fftconv/launch.h; float32 signals take the float32 kernels."""
_TORCH_FLAGS = [f"-DTORCH_TARGET_VERSION={TARGET_VERSION}"]
_LINK = ["-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", "-lc10"]


def _cpu_identity() -> str:
    """The instructions that `-march=native` may use: two machines of a cluster may share a home directory."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def cpu_library() -> Library:
    """The CPU half: the right-angle transform and the short convolution, tuned to this CPU."""
    torch_folder = Path(torch.__file__).parent
    compile_ = ("-std=c++17", "-O3", "-fPIC", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-Wno-psabi")
    kernels = tuple(
        Unit(f"cpu/{name}.cpp", ("g++", *compile_), f"{name}.o") for name in ("fftconv", "plan", "shortconv")
    )
    binding_flags = ("-std=c++17", "-O1", "-fPIC", "-DDNASM_CPU", *_TORCH_FLAGS, f"-I{torch_folder / 'include'}")
    return Library(
        "cpu",
        (*kernels, Unit("bindings.cpp", ("g++", *binding_flags), "bindings.o")),
        ("g++", "-shared", "-pthread", f"-L{torch_folder / 'lib'}", *_LINK),
        (f"torch {torch.__version__}", _cpu_identity()),
        folders=("fftconv", "short"),
        takes="about 15 seconds",
    )


def cuda_library() -> Library:
    """The CUDA half without kernels: binding and dispatch, plain C++."""
    torch_folder = Path(torch.__file__).parent
    flags = ("-std=c++17", "-O1", "-fPIC")
    binding = ("g++", *flags, "-DDNASM_CUDA", *_TORCH_FLAGS, f"-I{torch_folder / 'include'}")
    return Library(
        "cuda",
        (
            Unit("bindings.cpp", binding, "bindings.o"),
            Unit("fftconv/launch.cu", ("g++", *flags, "-x", "c++"), "launch.o"),
            Unit("short/dispatch.cu", ("g++", *flags, "-x", "c++"), "dispatch.o"),
        ),
        ("g++", "-shared", f"-L{torch_folder / 'lib'}", *_LINK),
        (f"torch {torch.__version__}",),
        exports=True,  # kernels announce themselves to the dispatch
        takes="about 10 seconds",
    )


def cuda_kernels(plan: int, dtype: int, precision: int, architecture: str) -> Library:
    """The kernels of one transform length, dtype and precision for one architecture, as `sm_90`."""
    choice: tuple[str, ...] = (f"-DDNASM_LENGTH={plan}", f"-DDNASM_DTYPE={dtype}", f"-DDNASM_PRECISION={precision}")
    if not re.fullmatch(r"sm_(90|100|103)[a-z]?", architecture):
        choice += ("-DDNASM_SHARED_KB=99",)  # what a block has at least from sm_80 on
    name = f"cuda_{architecture}_{plan}_{dtype}_{precision}"
    return _device_library(name, "fftconv/instance.cu", choice, architecture, ("host",))


def cuda_short_kernels(dtype: int, architecture: str) -> Library:
    """The kernels for a few taps: short convolutions, and the long one with a short filter."""
    choice = (f"-DDNASM_DTYPE={dtype}",)
    return _device_library(
        f"cuda_{architecture}_short_{dtype}", "short/short.cu", choice, architecture, ("host", "fftconv")
    )


def _device_library(
    name: str, source: str, choice: tuple[str, ...], architecture: str, folders: tuple[str, ...]
) -> Library:
    _check_cuda_version()
    number = architecture.removeprefix("sm_")
    flags = ("-std=c++17", "-O3", "-Xcompiler", "-fPIC", f"-gencode=arch=compute_{number},code=sm_{number}")
    return Library(
        name,
        (Unit(source, ("nvcc", *flags, *choice), "instance.o"),),
        ("nvcc", "-shared"),
        (f"torch CUDA {torch.version.cuda}", architecture),
        folders=folders,
        takes="about a minute",
        tools=("nvcc", "g++"),
    )


def _check_cuda_version() -> None:
    """Refuse a compiler of another major version than torch's: its runtime would ask for another driver."""
    version = tool_version(find_tool("nvcc"))
    found = re.search(r"release (\d+)\.", version)
    if found is None:
        raise BackendUnavailable(f"{find_tool('nvcc')} does not say its version: {version[:200]!r}")
    if torch.version.cuda and found[1] != torch.version.cuda.split(".")[0]:
        raise BackendUnavailable(
            f"{find_tool('nvcc')} is CUDA {found[1]}, this torch is built for CUDA {torch.version.cuda}: "
            "put an nvcc of the same major version first on PATH"
        )


def build_cuda(
    architectures: Sequence[str], plans: Sequence[int] = (), progress: Callable[[str], None] = print
) -> None:
    """Build every CUDA kernel ahead of time, as on a login node without a GPU; what is built already costs nothing.

    Args:
        architectures: As `sm_90`; empty: of the GPU that is present.
        plans: Transform lengths; empty: all, and the kernels for a few taps.
        progress: Called with a line for each library.

    Raises:
        BackendUnavailable: If one cannot be built.
    """
    if not architectures and not torch.cuda.is_available():
        raise BackendUnavailable("no GPU here to build for: name architectures, as --architectures '[sm_90]'")
    chosen = architectures or [architecture_of(torch.cuda.current_device())]
    for architecture in chosen:
        if not re.fullmatch(r"sm_\d+[a-z]?", architecture):
            raise BackendUnavailable(f"no architecture {architecture!r}; write it as sm_90")
    libraries = [cuda_library()]
    libraries += [cuda_kernels(*which, a) for a in chosen for which in _objects() if not plans or which[0] in plans]
    if not plans:
        libraries += [cuda_short_kernels(dtype, a) for a in chosen for dtype in CUDA_DTYPES.values()]
    for i, library in enumerate(libraries):
        progress(f"[{i + 1}/{len(libraries)}] {ensure(library)}")


def _objects() -> list[tuple[int, int, int]]:
    """Plan, dtype and precision of every object that a call can ask for."""
    return [
        (plan, dtype, precision)
        for precision, plans in CUDA_PLANS.items()
        for plan in plans
        for dtype in CUDA_DTYPES.values()
        if precision or dtype != CUDA_DTYPES["float32"]
    ]


def architecture_of(device: int | None) -> str:
    """Architecture of a GPU, as `sm_90`."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def describe() -> dict[str, str]:
    """What can be built and what is, for `dnasm doctor`: a line for each thing, with a reason where it cannot."""
    found = {"cache": _attempt(lambda: str(cache_folder()))}
    for tool in ("g++", "ninja", "nvcc"):
        found[tool] = _attempt(lambda tool=tool: _version_line(find_tool(tool)))  # type: ignore[misc]
    found["cpu kernels"] = _attempt(lambda: _state(cpu_library()))
    if torch.cuda.is_available():
        architecture = architecture_of(None)
        found["cuda dispatch"] = _attempt(lambda: _state(cuda_library()))
        states = [_attempt(partial(_object_state, which, architecture)) for which in _objects()]
        built = sum(state.startswith("built") for state in states)
        short = [_attempt(lambda n=n: _state(cuda_short_kernels(n, architecture))) for n in CUDA_DTYPES.values()]  # type: ignore[misc]
        found["cuda kernels for a few taps"] = "; ".join(sorted(set(short)))
        found["cuda kernels"] = f"{built} of {len(states)} objects built for {architecture}"
        found |= {f"cuda kernels {w}": state for w, state in zip(_objects(), states, strict=True) if "unav" in state}
    return found


def _object_state(which: tuple[int, int, int], architecture: str) -> str:
    return _state(cuda_kernels(*which, architecture))


def _attempt(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except BackendUnavailable as error:
        return f"unavailable: {error}"


def _version_line(path: str) -> str:
    version = re.search(r"(release )?\d+\.\d+(\.\d+)?", tool_version(path))
    return f"{path} ({version[0] if version else 'unknown version'})"


def _state(library: Library) -> str:
    path = library_path(library, cache_folder())
    return f"built ({path})" if path.exists() else f"not built yet ({library.takes} on first use)"
