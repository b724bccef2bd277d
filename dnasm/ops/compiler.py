"""Compiling and loading the C++ and CUDA halves of the kernels: once per machine, then from a cache.

The cache is `$DNASM_CACHE`, else `~/.cache/dnasm`. A library's folder is named by a hash of all that shapes it:
sources, flags, compiler, torch, CUDA, architectures, and for a build that is tuned to this CPU, the CPU. It is built in
a temporary folder beside it under a lock that dies with its process, and published by one rename: a killed build leaves
nothing that a later one could trip over.
"""

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from dnasm.errors import BackendUnavailable
from dnasm.resources import resource

_log = logging.getLogger(__name__)

LOCK_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Unit:
    """One object file: a source below `csrc/` and how to compile it."""

    source: str
    command: tuple[str, ...]
    name: str


@dataclass(frozen=True, slots=True)
class Library:
    """What to build: the objects, how to link them, and what beside the sources tells two builds apart."""

    name: str
    units: tuple[Unit, ...]
    link: tuple[str, ...]
    identity: tuple[str, ...]
    folders: tuple[str, ...] = ()
    """Folders below `csrc/` whose headers the units include, beside their own."""
    exports: bool = False
    """Whether libraries that are loaded later may use its symbols."""
    takes: str = ""
    tools: tuple[str, ...] = ("g++",)


def cache_folder() -> Path:
    """Folder that builds are kept in: `$DNASM_CACHE`, else `~/.cache/dnasm`, or a private temporary one.

    The last only where the first cannot be written and does not exist yet, with a warning.
    """
    chosen = os.environ.get("DNASM_CACHE")
    folder = Path(chosen) if chosen else Path.home() / ".cache" / "dnasm"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return _spare_folder(folder, error)
    return folder


def _spare_folder(folder: Path, error: OSError) -> Path:
    spare = Path(tempfile.gettempdir()) / f"dnasm-{os.getuid()}"
    try:
        spare.mkdir(mode=0o700, exist_ok=True)
    except OSError as second:
        raise BackendUnavailable(
            f"no place for compiled kernels: {folder} ({error.strerror}), {spare} ({second.strerror}); set DNASM_CACHE"
        ) from second
    if spare.stat().st_uid != os.getuid():  # another user could leave code there for us to load
        raise BackendUnavailable(f"{folder} cannot be written and {spare} is another user's; set DNASM_CACHE")
    _log.warning("%s cannot be written (%s): compiled kernels go to %s", folder, error.strerror, spare)
    return spare


def find_tool(name: str) -> str:
    """Path of a compiler or of ninja: on PATH, beside this Python, or in one of NVIDIA's folders or packages.

    Raises:
        BackendUnavailable: If there is none.
    """
    places = [Path(sys.executable).parent]
    if name == "nvcc":
        places += [Path(os.environ[key]) / "bin" for key in ("CUDA_HOME", "CUDA_PATH") if key in os.environ]
        places += [Path("/usr/local/cuda/bin"), *sorted(Path(torch.__file__).parents[1].glob("nvidia/*/bin"))]
    for found in (shutil.which(name), *(str(place / name) for place in places)):
        if found is not None and os.access(found, os.X_OK):
            return found
    advice = "install the CUDA toolkit, or: pip install nvidia-cuda-nvcc" if name == "nvcc" else "install it"
    raise BackendUnavailable(f"no {name} on PATH, which compiling the kernels needs; {advice}")


@lru_cache
def tool_version(path: str) -> str:
    """What a tool says to `--version`, in one line."""
    result = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return result.stdout.strip().replace("\n", " ")


def key(library: Library) -> str:
    """Hash of everything that shapes a library; not of the Python that loads it."""
    digest = hashlib.sha256()
    root = resource("csrc")
    folders = {root / Path(unit.source).parent for unit in library.units} | {root / name for name in library.folders}
    for folder in sorted(folders):
        for path in sorted(folder.glob("*")):
            if path.suffix in {".h", ".cpp", ".cuh", ".cu"}:
                digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    for unit in library.units:
        digest.update(" ".join((unit.source, *unit.command, unit.name)).encode())
    for text in (*library.link, *library.identity, *(tool_version(find_tool(tool)) for tool in library.tools)):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:20]


def library_path(library: Library, folder: Path) -> Path:
    """Where a built library stands in a cache."""
    return folder / f"{library.name}-{key(library)}" / f"libdnasm_{library.name}.so"


def ensure(library: Library) -> Path:
    """Path of a library, built now if this cache lacks it.

    Raises:
        BackendUnavailable: If it has to be built and cannot be.
    """
    folder = cache_folder()
    path = library_path(library, folder)
    if path.exists():
        return path
    if not os.access(folder, os.W_OK):
        folder = _spare_folder(folder, PermissionError(13, "not writable"))
        path = library_path(library, folder)
    with _locked(path):
        if not path.exists():
            _build(library, path.parent)
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(path.parent.with_suffix(".lock"), timeout=LOCK_SECONDS)  # flock: gone with the process that held it
    try:
        with lock:
            yield
    except Timeout as error:
        raise BackendUnavailable(
            f"another process has been building {path.parent.name} for {LOCK_SECONDS} s; see {lock.lock_file}"
        ) from error


def _build(library: Library, target: Path) -> None:
    """Compile in a folder beside the target, then rename it: called under the lock, so older leftovers are dead."""
    for dead in target.parent.glob(f".{target.name}.*"):
        shutil.rmtree(dead, ignore_errors=True)
    _log.warning("compiling the %s kernels, once for this machine (%s) ...", library.name, library.takes)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        output = work / f"libdnasm_{library.name}.so"
        (work / "build.ninja").write_text(ninja_file(library, output.name))
        result = subprocess.run([find_tool("ninja"), "-C", str(work)], capture_output=True, text=True, check=False)
        if result.returncode != 0 or not output.exists():
            tail = (result.stdout + result.stderr).strip()[-2000:]
            raise BackendUnavailable(f"compiling the {library.name} kernels failed:\n{tail}")
        (work / "build.log").write_text(result.stdout)
        for leftover in work.glob("*.o"):
            leftover.unlink()
        os.replace(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def ninja_file(library: Library, output: str) -> str:
    """The build as ninja reads it."""
    root = resource("csrc").resolve()

    def quote(text: str) -> str:  # ninja's own escapes in paths; the shell's in commands
        return text.replace("$", "$$").replace(" ", "$ ").replace(":", "$:")

    def shell(words: tuple[str, ...] | list[str]) -> str:
        return " ".join("'" + word.replace("'", "'\\''") + "'" for word in words).replace("$", "$$")

    lines = []
    for unit in library.units:
        compiler, *flags = unit.command
        command = shell([find_tool(compiler), *flags, f"-I{root}", "-c"])
        lines += [f"rule {unit.name}", f"  command = {command} $in -o $out"]
        lines += [f"build {unit.name}: {unit.name} {quote(str(root / unit.source))}"]
    linker, *flags = library.link
    objects = " ".join(unit.name for unit in library.units)
    lines += ["rule link", f"  command = {shell([find_tool(linker)])} $in {shell(flags)} -o $out"]
    lines += [f"build {output}: link {objects}", ""]
    return "\n".join(lines)


def load(library: Library, self_test: Callable[[], None]) -> Path:
    """Load a library into torch, building it if need be, and try it on numbers with a known answer.

    Raises:
        BackendUnavailable: If it cannot be built or loaded, or computes wrong numbers.
    """
    path, mode = ensure(library), ctypes.RTLD_GLOBAL if library.exports else ctypes.RTLD_LOCAL
    try:
        ctypes.CDLL(str(path), mode=mode)
    except OSError as error:  # a damaged file: build it again, once
        _log.warning("%s cannot be loaded (%s): compiling it again", path, error)
        with _locked(path):
            shutil.rmtree(path.parent, ignore_errors=True)
            _build(library, path.parent)
        try:
            ctypes.CDLL(str(path), mode=mode)
        except OSError as second:
            raise BackendUnavailable(f"{path} was compiled and cannot be loaded: {second}") from second
    try:
        self_test()
    except AssertionError as error:
        raise BackendUnavailable(f"{path} computes wrong numbers here ({error}); set DNASM_CACHE elsewhere") from error
    return path
