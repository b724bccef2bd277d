"""`dnasm doctor`: what works here, and what to do about the rest."""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from dnasm.config import DoctorConfig
from dnasm.errors import BackendUnavailable, ConfigError, DnasmError
from dnasm.ops import fftconv, record_calls
from dnasm.ops.build import build_cuda, cache_folder, describe
from dnasm.tasks.run_record import versions

OK, MISSING, BROKEN = "ok", "missing", "broken"
_ENOUGH_BYTES = 5_000_000_000
_EXTRAS = {
    "tables": ("pyarrow", "pandas"),
    "anndata": ("anndata", "zarr"),
    "bigwig": ("pyBigWig",),
    "hub": ("huggingface_hub",),
    "lora": ("peft",),
    "tasks": ("sklearn",),
}
_ADVICE = {
    "cache": "set DNASM_CACHE to a folder of yours",
    "g++": "the fast CPU kernels need it: install your system's g++, as in apt install g++",
    "ninja": "compiling kernels needs it: pip install ninja",
    "nvcc": "only GPU kernels need it: install the CUDA toolkit of torch's major version",
}


class BrokenInstallation(DnasmError):
    """Something that every user needs does not work."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: str
    """`ok`, `missing` (something is possible without it) or `broken`."""
    found: str
    advice: str = ""
    """What to do, if anything."""


def run(config: DoctorConfig) -> None:
    """Build what was asked for, then print what was found, as a table or as JSON.

    Raises:
        BackendUnavailable: If a build was asked for and cannot be made.
        BrokenInstallation: If something does not work that every user needs.
    """
    if config.build:
        build_cuda(config.architectures, progress=lambda line: print(line, file=sys.stderr, flush=True))
    elif config.architectures:
        raise ConfigError("--architectures says what to build for; it needs --build")
    findings = list(examine())
    if config.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print("\n".join(map(_line, findings)))
    broken = [finding.what for finding in findings if finding.state == BROKEN]
    if broken:
        raise BrokenInstallation(f"{', '.join(broken)}: broken here; what to do stands beside each")


def examine() -> Iterator[Finding]:
    """Look at everything, one finding at a time."""
    for name, found in versions().items():
        there = found != "not installed"
        yield Finding(name, OK if there else BROKEN, found, "" if there else f"pip install {name}")
    yield _gpu()
    for name, text in describe().items():
        unavailable = text.startswith("unavailable")
        yield Finding(name, MISSING if unavailable else OK, text, _ADVICE.get(name, "") if unavailable else "")
    yield _convolution("cpu")
    yield _convolution("cuda")
    for extra, modules in _EXTRAS.items():
        absent = [module for module in modules if find_spec(module) is None]
        advice = f"pip install 'dnasm[{extra}]'" if absent else ""
        found = f"lacks {', '.join(absent)}" if absent else ", ".join(modules)
        yield Finding(f"[{extra}]", MISSING if absent else OK, found, advice)
    yield _disk(Path.cwd())


def _line(finding: Finding) -> str:
    text = f"{finding.state:<8} {finding.what:<20} {finding.found}"
    return f"{text}\n{'':<29} -> {finding.advice}" if finding.advice else text


def _gpu() -> Finding:
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding("GPU", OK, f"{', '.join(names)}; CUDA {torch.version.cuda}")
    if torch.version.cuda is None:
        return Finding("GPU", MISSING, "this torch was built for the CPU", "install a CUDA build of torch to use a GPU")
    return Finding("GPU", MISSING, "torch sees none", "look at nvidia-smi: is there a driver for this GPU?")


def _convolution(backend: str) -> Finding:
    """Run a small convolution on a backend and compare it with the definition; this builds its library if need be."""
    what = f"fftconv {backend}"
    if backend == "cuda" and not torch.cuda.is_available():
        return Finding(what, MISSING, "needs a GPU")
    u, k = torch.randn(1, 2, 300, device=backend), torch.randn(2, 300, device=backend)
    try:
        with record_calls() as calls, torch.no_grad():
            y = fftconv(u, k, backend=backend)
    except BackendUnavailable as error:
        return Finding(what, MISSING, str(error), "without it `auto` runs the reference in plain PyTorch, more slowly")
    exact = fftconv(u.double(), k.double(), backend="reference")
    wrong = ((y - exact).norm() / exact.norm()).item()
    body = calls[-1].body if calls else "torch"
    if not wrong < 1e-2:  # half-precision operands stay below 2e-3
        return Finding(what, BROKEN, f"{body}, wrong by {wrong:.1e}", f"delete {cache_folder()} and try again")
    advice = "" if body == "native" else "the compiled kernels did not run, the reason is in the warning above"
    return Finding(what, OK, f"{body}, relative error {wrong:.1e}", advice)


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    if free >= _ENOUGH_BYTES:
        return Finding("disk", OK, f"{free / 1e9:.0f} GB free at {folder}")
    advice = "a run writes 40 bytes a parameter, a token store 1 byte a base: make room"
    return Finding("disk", MISSING, f"{free / 1e9:.1f} GB free at {folder}", advice)
