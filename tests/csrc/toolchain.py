"""Compile csrc with g++ or nvcc, objects cached by what they are made of."""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
HOST_FLAGS = ["-std=c++17", "-O1", "-fPIC", "-mavx2", "-mf16c", "-mfma", "-Wall", "-Wextra", "-Werror"]
HOST_FLAGS += ["-ftrivial-auto-var-init=pattern", "-DDNASM_HOST"]
DTYPES = {"float32": 0, "float16": 1, "bfloat16": 2, "float64": 3}


def sources_digest(source: Path, defines: Sequence[str] = ()) -> str:
    """One hash over a source and the headers that it includes with these -D flags; the system's are left out."""
    command = ["g++", "-std=c++17", "-MM", "-x", "c++", *defines, str(source)]
    rule = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256()
    for path in sorted({Path(name).resolve() for name in rule.split(":", 1)[1].replace("\\\n", " ").split()}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def compile_object(cache: Path, command: Sequence[str], source: Path) -> tuple[Path, str]:
    """The object and what the compiler said, from the cache where sources and command are unchanged."""
    digest = sources_digest(source, [flag for flag in command if flag.startswith("-D")])
    key = hashlib.sha256("\0".join([digest, *command, source.name]).encode()).hexdigest()[:24]
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


def compile_program(cache: Path, flags: Sequence[str], source: Path, linking: Sequence[str] = ()) -> Path:
    """A program of one emulated source; `linking` are flags that the linker wants too, a sanitizer's."""
    made, _ = compile_object(cache, ["g++", *HOST_FLAGS, "-Wno-error", *flags, *linking], source)
    program = made.with_suffix(".run")
    if not program.exists():
        link(program, ["g++", *linking], [made])
    return program


def plant(root: Path, file: str, original: str, planted: str) -> None:
    """A copy of the sources below `root`, csrc and tests/csrc, with one line of csrc/`file` broken."""
    for folder in ("csrc/fftconv", "csrc/host", "csrc/short", "tests/csrc"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    target = root / "csrc" / file
    text = target.read_text()
    assert original in text, f"the line to break has moved: {original}"
    target.write_text(text.replace(original, planted, 1))


def instance_flags(length: int, dtype: str, precision: int = 0) -> list[str]:
    """Which kernels instance.cu makes; precision 1 is the float32 route."""
    return [f"-DDNASM_LENGTH={length}", f"-DDNASM_DTYPE={DTYPES[dtype]}", f"-DDNASM_PRECISION={precision}"]


def resources(log: str) -> dict[str, tuple[int, int]]:
    """Kernel -> (registers, bytes of spill loads), from ptxas -v."""
    entry = re.compile(r"Compiling entry function '(\w+)'.*?(\d+) bytes spill loads.*?Used (\d+) registers", re.S)
    return {name: (int(registers), int(spills)) for name, spills, registers in entry.findall(log)}


def link(out: Path, command: Sequence[str], objects: Sequence[Path]) -> Path:
    part = out.with_suffix(f".{os.getpid()}.part")
    subprocess.run([*command, *map(str, objects), "-o", str(part)], check=True)
    part.rename(out)
    return out


def link_library(out: Path, command: Sequence[str], objects: Sequence[Path]) -> Path:
    return link(out, [*command, "-shared"], objects)


def host_library(
    cache: Path,
    instances: Sequence[tuple[object, ...]],
    flags: Sequence[str] = (),
    linking: Sequence[str] = (),
    root: Path = ROOT,
) -> Path:
    """The emulated kernels of some (plan length, dtype[, precision]) as one shared library."""
    command = ["g++", *HOST_FLAGS, *flags, *linking, "-x", "c++"]
    made = [
        compile_object(cache, command, root / source)[0]
        for source in ("csrc/fftconv/launch.cu", "tests/csrc/c_api.cpp")
    ]
    for instance in instances:
        chosen = instance_flags(*instance)  # type: ignore[arg-type]
        made.append(compile_object(cache, [*command, *chosen], root / "csrc/fftconv/instance.cu")[0])
    key = hashlib.sha256("".join(map(str, made)).encode()).hexdigest()[:24]
    library = cache / f"{key}.so"
    return library if library.exists() else link_library(library, ["g++", *linking], made)
