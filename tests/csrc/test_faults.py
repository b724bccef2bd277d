"""Sanitizers on small kernels, and faults planted in a copy of the sources: each must be found."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.csrc.toolchain import ROOT, compile_program, plant

THREAD, ADDRESS = ("-fsanitize=thread",), ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def build(objects: Path, plan: int, full: bool, sanitizer: tuple[str, ...], root: Path = ROOT) -> Path:
    """The driver for one plan; `root` holds csrc and tests/csrc."""
    flags = ["-O0", "-g1", f"-DDNASM_LENGTH={plan}", f"-DDNASM_FULL={int(full)}"]
    return compile_program(objects, flags, root / "tests/csrc/driver.cpp", sanitizer)


def run(program: Path, *arguments: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


# Ragged rows, a batch no multiple of what a block holds, two seeds of the thread order.
@pytest.mark.parametrize(
    ("plan", "length", "batch", "seeds"),
    [(256, 256, 16, 2), (256, 201, 3, 2), (512, 512, 8, 2), (1024, 1024, 4, 2), (1024, 999, 5, 2), (8192, 8192, 1, 1)],
)
def test_no_race(objects: Path, plan: int, length: int, batch: int, seeds: int) -> None:
    done = run(build(objects, plan, plan == length, THREAD), length, batch, 1, *range(1, 1 + seeds))
    assert done.returncode == 0, done.stderr[:3000]


@pytest.mark.parametrize("length", [1024, 601])
def test_no_bad_access_and_no_undefined_behaviour(objects: Path, length: int) -> None:
    done = run(build(objects, 1024, length == 1024, ADDRESS), length, 4, 2, 1)
    assert done.returncode == 0, done.stderr[:3000]


def test_fibres_switch_by_ucontext_too(objects: Path) -> None:
    """As on CPUs for which there is no switch of our own."""
    done = run(build(objects, 256, True, ("-DDNASM_UCONTEXT",)), 256, 8, 1, 1)
    assert done.returncode == 0, done.stderr[:3000]


@dataclass(frozen=True)
class Fault:
    file: str
    original: str
    planted: str
    says: str  # in what the program prints to stderr
    sanitizer: tuple[str, ...] = ()
    plan: int = 1024


RACE: dict[str, Any] = {"says": "data race", "sanitizer": THREAD}
OUTSIDE: dict[str, Any] = {"says": "heap-buffer-overflow", "sanitizer": ADDRESS}
FAULTS = {
    "barrier after stage 1": Fault(
        "stage.cuh",
        "      sync_team();\n      if constexpr (P::kR2 > 1) middle<false>()",
        "      if constexpr (P::kR2 > 1) middle<false>()",
        **RACE,
    ),
    "barrier after the middle stage": Fault(
        "stage.cuh", "middle<false>(), sync_team();", "middle<false>();", **RACE, plan=8192
    ),
    "barrier before the last stage": Fault(
        "stage.cuh", "prepare(0, 0), prepare(1, 1);\n      sync_team();", "prepare(0, 0), prepare(1, 1);", **RACE
    ),
    "barrier of the row's maximum": Fault("io.cuh", "    sync_block();\n", "", **RACE),
    "warp barrier in the inner stages": Fault(
        "stage.cuh",
        "      sync_warp();  // every lane has read what another one overwrites\n      const DftMatrix",
        "      const DftMatrix",
        **RACE,
    ),
    "a row too little shared memory": Fault(
        "plan.cuh", "kWordsAt + (kParkedInScratch ? 0 : kParkedBytes);", "kWordsAt - 16;", **OUTSIDE
    ),
    "divergent shuffle": Fault(
        "kernel.cuh",
        "skip_sum += shuffle_xor(skip_sum, mask);",
        "if (lane < 16) skip_sum += shuffle_xor(skip_sum, mask);",
        "deadlock: no thread can go on",
    ),
    "a barrier that half of the warps skip": Fault(
        "io.cuh", "    sync_block();\n", "    if (thread_index() < 64) sync_block();\n", "deadlock: no thread can go on"
    ),
    "two operations in one warp": Fault(
        "kernel.cuh",
        "skip_sum += shuffle_xor(skip_sum, mask);",
        "skip_sum += lane < 16 ? shuffle_xor(skip_sum, mask) : static_cast<float>(warp_max(1));",
        "different operations",
    ),
    "lost input gate": Fault("kernel.cuh", "      if (gated) multiply_by(v, factors);\n", "", "y: relative error"),
    "lost output gate": Fault("kernel.cuh", "if (gated) me.multiply_by(v, factors[k]);", "", "y: relative error"),
    "shift by one": Fault(
        "io.cuh",
        "return *reinterpret_cast<const Pair*>(at + n);",
        "return E::join(at[n + 1], at[n + 2]);",
        "y: relative error",
    ),
    "lost conjugate": Fault(
        "kernel.cuh", "multiply_filter<true>(i, spectrum)", "multiply_filter<false>(i, spectrum)", "du: relative error"
    ),
    "a word that is never written": Fault(
        "stage.cuh",
        "      store_word(at + offset + 512, x.im[w]);\n    }\n  }\n\n  DNASM_DEVICE void load_last",
        "      if (w < 3) store_word(at + offset + 512, x.im[w]);\n    }\n  }\n\n  DNASM_DEVICE void load_last",
        "y: relative error",
    ),
    "the filter's gradient twice as large": Fault(
        "kernel.cuh", "x_exponents[P::row_of(i)])", "x_exponents[P::row_of(i)] + 1)", "dk: relative error"
    ),
    "zeros": Fault(
        "kernel.cuh", "v[j] = v[j] * factor + passed[j];", "v[j] = 0 * factor + 0 * passed[j];", "y: relative error"
    ),
}


@pytest.mark.parametrize("name", list(FAULTS))
def test_a_planted_fault_is_found(objects: Path, tmp_path: Path, name: str) -> None:
    fault = FAULTS[name]
    plant(tmp_path, f"fftconv/{fault.file}", fault.original, fault.planted)
    batch, seeds = (4, (1, 2)) if fault.plan < 8192 else (1, (1,))
    done = run(build(objects, fault.plan, True, fault.sanitizer, tmp_path), fault.plan, batch, 1, *seeds)
    assert done.returncode != 0
    assert fault.says in done.stderr, done.stderr[:2000]
