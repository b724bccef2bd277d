"""Sanitizers on small kernels, and faults planted in a copy of the sources: each must be found."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.csrc.toolchain import CSRC, HOST_FLAGS, compile_object

Program = Callable[..., subprocess.CompletedProcess[str]]
THREAD, ADDRESS = ["-fsanitize=thread"], ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def build(objects: Path, length: int, sanitizer: list[str], root: Path = CSRC.parent) -> Path:
    """The driver for one plan; `root` holds csrc and tests/csrc."""
    command = ["g++", *HOST_FLAGS, "-g1", *sanitizer, f"-DDNASM_LENGTH={length}", "-DDNASM_DTYPE=2"]
    made, _ = compile_object(objects, command, root / "tests/csrc/driver.cpp", root / "csrc")
    program = made.with_suffix(".run")
    if not program.exists():
        subprocess.run(["g++", *sanitizer, str(made), "-o", str(program)], check=True)
    return program


def run(program: Path, *arguments: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


# Ragged rows, a batch no multiple of what a block holds, two seeds of the thread order.
@pytest.mark.parametrize(("length", "batch"), [(256, 3), (300, 3), (512, 5), (1000, 2)])
def test_no_race(objects: Path, length: int, batch: int) -> None:
    done = run(build(objects, 256 if length <= 256 else 512 if length <= 512 else 1024, THREAD), length, batch, 1, 1, 2)
    assert done.returncode == 0, done.stderr[:3000]


@pytest.mark.parametrize("length", [512, 301])
def test_no_bad_access_and_no_undefined_behaviour(objects: Path, length: int) -> None:
    done = run(build(objects, 512, ADDRESS), length, 3, 2, 1)
    assert done.returncode == 0, done.stderr[:3000]


@dataclass(frozen=True)
class Fault:
    file: str
    original: str
    planted: str
    says: str  # in what the program prints to stderr
    sanitizer: tuple[str, ...] = ()


FAULTS = {
    "barrier after stage 1": Fault(
        "stage.cuh", "      sync_block();\n      if constexpr (P::kR2 > 1) middle<false>()", "      if constexpr (P::kR2 > 1) middle<false>()",
        "data race", tuple(THREAD)),
    "barrier before the last stage": Fault(
        "stage.cuh", "      sync_block();\n      if constexpr (P::kR2 > 1) middle<true>()", "      if constexpr (P::kR2 > 1) middle<true>()",
        "data race", tuple(THREAD)),
    "barrier of the row's maximum": Fault("io.cuh", "    sync_block();\n", "", "data race", tuple(THREAD)),
    "warp barrier in the inner stages": Fault(
        "stage.cuh", "      sync_warp();  // every lane has read what another one overwrites\n      const DftMatrix", "      const DftMatrix",
        "data race", tuple(THREAD)),
    "a row too little shared memory": Fault(
        "plan.cuh", "kSequences * kSequenceBytes + (kDirect ? 0 : 4 * kWarps);", "kSequences * kSequenceBytes - 16;",
        "heap-buffer-overflow", tuple(ADDRESS)),
    "divergent shuffle": Fault(
        "kernel.cuh", "skip_sum += shuffle_xor(skip_sum, mask);", "if (lane < 16) skip_sum += shuffle_xor(skip_sum, mask);",
        "deadlock: no thread can go on"),
    "a barrier only half of the warps reach": Fault(
        "io.cuh", "    sync_block();\n", "    if (thread_index() < 128) sync_block();\n", "deadlock: no thread can go on"),
    "two operations in one warp": Fault(
        "kernel.cuh", "skip_sum += shuffle_xor(skip_sum, mask);",
        "skip_sum += lane < 16 ? shuffle_xor(skip_sum, mask) : static_cast<float>(warp_max(1));",
        "different operations"),
    "lost input gate": Fault("kernel.cuh", "if (kGated && gate.data) load_times(b, unit, v);", "(void)b;", "y: relative error"),
    "lost output gate": Fault("kernel.cuh", "if (kGated && p.out_gate.data) me.load_times(gate, i, v);", "(void)gate;", "y: relative error"),
    "shift by one": Fault("io.cuh", "+ d * rows.stride_d : nullptr)", "+ d * rows.stride_d + 1 : nullptr)", "y: relative error"),
    "lost conjugate": Fault(
        "kernel.cuh", "multiply<true>(spectrum, me.filter_re(i), me.filter_im(i));", "multiply<false>(spectrum, me.filter_re(i), me.filter_im(i));",
        "du: relative error"),
    "a word that is never written": Fault(
        "stage.cuh", "      store_word(at + offset + 512, x.im[w]);\n    }\n  }\n\n  DNASM_DEVICE void load_last",
        "      if (w < 3) store_word(at + offset + 512, x.im[w]);\n    }\n  }\n\n  DNASM_DEVICE void load_last",
        "y: relative error"),
    "a batch summed twice": Fault("kernel.cuh", "dk.accumulate(i, spectrum, dk_factor, first);", "dk.accumulate(i, spectrum, 2 * dk_factor, first);", "dk: relative error"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(FAULTS))
def test_a_planted_fault_is_found(objects: Path, tmp_path: Path, name: str) -> None:
    fault = FAULTS[name]
    shutil.copytree(CSRC / "fftconv", tmp_path / "csrc/fftconv")
    shutil.copytree(CSRC / "host", tmp_path / "csrc/host")
    shutil.copytree(Path(__file__).parent, tmp_path / "tests/csrc")
    target = tmp_path / "csrc/fftconv" / fault.file
    text = target.read_text()
    assert fault.original in text, f"{name}: the line to break has moved"
    target.write_text(text.replace(fault.original, fault.planted, 1))
    done = run(build(objects, 512, list(fault.sanitizer), tmp_path), 512, 5, 1, 1, 2)
    assert done.returncode != 0
    assert fault.says in done.stderr, done.stderr[:2000]
