"""Compile csrc with g++ or nvcc, objects cached by what they are made of."""

import hashlib
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
HOST_FLAGS = ["-std=c++17", "-O2", "-fPIC", "-mavx2", "-mf16c", "-mfma", "-Wall", "-Wextra", "-Werror"]
EXTRA_FLAGS = os.environ.get("DNASM_HOST_FLAGS", "").split()  # as test_coverage asks for
HOST_FLAGS += ["-ftrivial-auto-var-init=pattern", "-DDNASM_HOST", *EXTRA_FLAGS]
DTYPES = {"float32": 0, "float16": 1, "bfloat16": 2, "float64": 3}


def sources_digest(source: Path, csrc: Path) -> str:
    """One hash over a source and every header it can include: csrc's own, less the CPU backend's."""
    digest = hashlib.sha256()
    beside = [path for path in source.parent.glob("*.*h") if path.suffix in {".h", ".cuh"}]
    if source.name.startswith("short_"):
        beside += csrc.glob("short/*")
    for path in sorted({*csrc.glob("*.cuh"), *csrc.glob("fftconv/*"), *csrc.glob("host/*"), *beside, source}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def compile_object(cache: Path, command: Sequence[str], source: Path, csrc: Path = CSRC) -> tuple[Path, str]:
    """The object and what the compiler said, from the cache where sources and command are unchanged."""
    key = hashlib.sha256("\0".join([sources_digest(source, csrc), *command, source.name]).encode()).hexdigest()[:24]
    cache.mkdir(parents=True, exist_ok=True)
    out, log = cache / f"{key}.o", cache / f"{key}.log"
    if not (out.exists() and log.exists()):
        part = cache / f"{key}.{os.getpid()}.part"
        done = subprocess.run([*command, "-c", str(source), "-o", str(part)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{chr(32).join(command)} {source} failed:\n{(done.stdout + done.stderr)[:3000]}")
        log.write_text(done.stdout + done.stderr)
        part.rename(out)
    return out, log.read_text()


def instance_flags(length: int, dtype: str, precision: int = 0) -> list[str]:
    """Which kernels instance.cu makes; precision 1 is the float32 route."""
    return [f"-DDNASM_LENGTH={length}", f"-DDNASM_DTYPE={DTYPES[dtype]}", f"-DDNASM_PRECISION={precision}"]


def resources(log: str) -> dict[str, tuple[int, int]]:
    """Kernel -> (registers, bytes of spill loads), from ptxas -v."""
    entry = re.compile(r"Compiling entry function '(\w+)'.*?(\d+) bytes spill loads.*?Used (\d+) registers", re.S)
    return {name: (int(registers), int(spills)) for name, spills, registers in entry.findall(log)}


def link_library(out: Path, command: Sequence[str], objects: Sequence[Path]) -> Path:
    part = out.with_suffix(f".{os.getpid()}.part")
    extra = EXTRA_FLAGS if command[0] == "g++" else []
    subprocess.run([*command, *extra, "-shared", *map(str, objects), "-o", str(part)], check=True)
    part.rename(out)
    return out


def host_library(cache: Path, instances: Sequence[tuple[object, ...]], extra: Sequence[str] = ()) -> Path:
    """The emulated kernels of some (plan length, dtype[, precision]) as one shared library."""
    command = ["g++", *HOST_FLAGS, *extra, "-x", "c++"]
    objects = [compile_object(cache, command, CSRC / "fftconv/launch.cu")[0]]
    objects.append(compile_object(cache, command, Path(__file__).with_name("c_api.cpp"))[0])
    for instance in instances:
        flags = instance_flags(*instance)  # type: ignore[arg-type]
        objects.append(compile_object(cache, [*command, *flags], CSRC / "fftconv/instance.cu")[0])
    key = hashlib.sha256("".join(map(str, objects)).encode()).hexdigest()[:24]
    library = cache / f"{key}.so"
    return library if library.exists() else link_library(library, ["g++", *extra], objects)
