"""Builds that are killed, raced, broken or not possible: the right answer or a clear error, never a hang.

The compiler is a script that stands before the real one on PATH: it counts, waits or fails as a test wants.
"""

import logging
import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dnasm.errors import BackendUnavailable
from dnasm.ops import build, compiler

SMALL = compiler.Library(
    "small",
    (compiler.Unit("cpu/plan.cpp", ("g++", "-std=c++17", "-O0", "-fPIC"), "plan.o"),),
    ("g++", "-shared"),
    ("a test",),
    takes="a second",
)

CHILD = """
import sys
from dnasm.ops import build, compiler
from tests.ops.test_compiler import SMALL
print(compiler.ensure(SMALL))
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a cache: with $ and 'quotes'"
    monkeypatch.setenv("DNASM_CACHE", str(folder))
    return folder


@pytest.fixture
def gxx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder whose g++ notes each call in `calls` and runs `before.sh`, then the real one."""
    folder, real = tmp_path / "bin", compiler.find_tool("g++")
    folder.mkdir()
    script = folder / "g++"
    script.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] || echo call >> "{folder}/calls"\n'
        f'[ "$1" = --version ] || . "{folder}/before.sh"\nexec {real} "$@"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    (folder / "before.sh").write_text("")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def _calls(gxx: Path) -> int:
    return len((gxx / "calls").read_text().splitlines())


def _child(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD], cwd=root, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def _wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.05)


def test_a_library_is_built_once_and_said_so(cache: Path, gxx: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        path = compiler.ensure(SMALL)
        assert compiler.ensure(SMALL) == path
    assert path.is_file()
    assert _calls(gxx) == 2  # compile and link
    assert len([r for r in caplog.records if "once for this machine" in r.message]) == 1
    assert not [p for p in cache.iterdir() if p.name.startswith(".small")]


def test_a_killed_build_does_not_stop_the_next(cache: Path, gxx: Path, root: Path) -> None:
    (gxx / "before.sh").write_text(f'echo > "{gxx}/started"; sleep 600')
    child = _child(root)
    _wait_for(gxx / "started")
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    assert [p for p in cache.iterdir() if p.name.startswith(".small")], "the killed build left its folder"
    (gxx / "before.sh").write_text("")
    began = time.monotonic()
    assert compiler.ensure(SMALL).is_file()
    assert time.monotonic() - began < 60
    assert not [p for p in cache.iterdir() if p.name.startswith(".small")], "and the next one swept it"


def test_two_processes_build_once(cache: Path, gxx: Path, root: Path) -> None:
    (gxx / "before.sh").write_text("sleep 1")
    children = [_child(root) for _ in range(2)]
    paths = {child.communicate()[0] for child in children}
    assert [child.returncode for child in children] == [0, 0]
    assert len(paths) == 1
    assert _calls(gxx) == 2


def test_a_lock_that_is_held_too_long_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "LOCK_SECONDS", 0.2)
    path = compiler.library_path(SMALL, compiler.cache_folder())
    with compiler._locked(path), pytest.raises(BackendUnavailable, match="another process"):
        compiler.ensure(SMALL)


def test_no_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(BackendUnavailable, match=r"no g\+\+ on PATH"):
        compiler.ensure(SMALL)
    with pytest.raises(BackendUnavailable, match="no ninja on PATH"):
        compiler.find_tool("ninja")


def test_a_compiler_that_fails_shows_its_words(cache: Path, gxx: Path) -> None:
    (gxx / "before.sh").write_text("echo no space for this >&2; exit 1")
    with pytest.raises(BackendUnavailable, match="no space for this"):
        compiler.ensure(SMALL)
    assert not [p for p in cache.iterdir() if p.is_dir()]


def test_a_cache_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DNASM_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(compiler.tempfile, "gettempdir", lambda: str(tmp_path))
    with caplog.at_level(logging.WARNING):
        path = compiler.ensure(SMALL)
    assert path.is_relative_to(tmp_path / f"dnasm-{os.getuid()}")
    assert any("cannot be written" in record.message for record in caplog.records)
    monkeypatch.setattr(compiler.tempfile, "gettempdir", lambda: str(tmp_path / "file"))
    with pytest.raises(BackendUnavailable, match="set DNASM_CACHE"):
        compiler.cache_folder()


def test_a_read_only_cache_serves_what_it_has(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = compiler.ensure(SMALL)
    real = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: Path(p) != cache and real(p, mode))
    monkeypatch.setattr(compiler.tempfile, "gettempdir", lambda: str(tmp_path))
    assert compiler.ensure(SMALL) == path
    other = compiler.ensure(replace(SMALL, identity=("another",)))
    assert not other.is_relative_to(cache)


def test_someone_else_s_folder_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    spare = tmp_path / f"dnasm-{os.getuid() + 1}"
    spare.mkdir()
    monkeypatch.setenv("DNASM_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(compiler.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: spare.stat().st_uid + 1)
    with pytest.raises(BackendUnavailable, match="another user"):
        compiler.cache_folder()


def test_what_shapes_a_build_is_in_its_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = compiler.key(SMALL)
    unit = SMALL.units[0]
    assert compiler.key(replace(SMALL, identity=("another",))) != first
    assert compiler.key(replace(SMALL, link=("g++", "-shared", "-g"))) != first
    assert compiler.key(replace(SMALL, units=(replace(unit, command=(*unit.command, "-g")),))) != first
    assert torch.__version__ in " ".join(build.cpu_library().identity)
    copy = tmp_path / "csrc"
    (copy / "cpu").mkdir(parents=True)
    for source in (compiler.resource("csrc") / "cpu").iterdir():
        (copy / "cpu" / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(compiler, "resource", lambda _: copy)
    before = compiler.key(SMALL)
    (copy / "cpu" / "plan.h").write_text("// changed")
    assert compiler.key(SMALL) != before


def test_a_damaged_library_is_built_again(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = compiler.ensure(SMALL)
    path.write_bytes(b"not a library")
    with caplog.at_level(logging.WARNING):
        assert compiler.load(SMALL, lambda: None) == path
    assert any("compiling it again" in record.message for record in caplog.records)
    assert path.read_bytes()[:4] == b"\x7fELF"


def test_wrong_numbers_are_not_used(cache: Path) -> None:
    def fail() -> None:
        raise AssertionError("off by 3")

    with pytest.raises(BackendUnavailable, match="wrong numbers"):
        compiler.load(SMALL, fail)


def test_torch_headers_are_in_one_file_and_on_the_stable_abi(root: Path) -> None:
    sources = [p for p in (root / "csrc").rglob("*") if p.suffix in {".h", ".cpp", ".cu", ".cuh"}]
    including = [p for p in sources if "#include <torch" in p.read_text() or "#include <ATen" in p.read_text()]
    assert [p.name for p in including] == ["bindings.cpp"]
    headers = [line for line in including[0].read_text().splitlines() if "#include <torch" in line]
    assert all(
        "torch/csrc/stable/" in line or "torch/headeronly/" in line or "aoti_torch/c/" in line for line in headers
    )
