"""Sanitizers on the kernels for few taps, and faults planted in a copy of their sources: each must be found."""

from pathlib import Path

import pytest

from tests.csrc.test_faults import ADDRESS, THREAD, run
from tests.csrc.toolchain import ROOT, compile_program, plant


def build(objects: Path, direct: bool, sanitizer: tuple[str, ...], root: Path = ROOT) -> Path:
    flags = ["-O0", "-g1", f"-DDNASM_DIRECT={int(direct)}"]
    return compile_program(objects, flags, root / "tests/csrc/short_driver.cpp", sanitizer)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("sanitizer", [THREAD, ADDRESS], ids=["thread", "address"])
def test_no_race_and_no_bad_access(objects: Path, direct: bool, sanitizer: tuple[str, ...]) -> None:
    done = run(build(objects, direct, sanitizer), 1, *([2] if sanitizer == THREAD else []))
    assert done.returncode == 0, done.stderr[:3000]


RACE, OUTSIDE = ("data race", THREAD), ("heap-buffer-overflow", ADDRESS)
NOTHING: tuple[str, ...] = ()
FAULTS = {
    "barrier behind the taps": ("direct.cuh", "  sync_block();\n  int guess", "  int guess", *RACE),
    "barrier before the filter's gradient": (
        "direct_gradient.cuh",
        "    sync_block();\n    for (int w = 0",
        "    for (int w = 0",
        *RACE,
    ),
    "no room for the second warp": (
        "direct.cuh",
        "/ 16 * 16 + kForwardWarps * work","/ 16 * 16 + work",
        *OUTSIDE,
    ),
    "lost gate": ("direct.cuh", "for (int j = 0; j < 8; ++j) v[j] *= factor[j];", "", "y: relative error", NOTHING),
    "shift by one": ("direct.cuh", "const int s = top +", "const int s = top + 1 +", "y: relative error", NOTHING),
    "a filter that is not turned": ("direct.cuh", "tap(turned ? -s : s)", "tap(s)", "du: relative error", NOTHING),
    "zeros": ("direct.cuh", "sums[t][i / 4][i % 4] *= factor.most", "sums[t][i / 4][i % 4] *= 0", "y: ", NOTHING),
    "barrier before results go back": (
        "shortconv.cuh",
        "sync_block();\n    DNASM_UNROLL\n    for (int i = 0; i < kRun; ++i) {  // back",
        "DNASM_UNROLL\n    for (int i = 0; i < kRun; ++i) {  // back",
        *RACE,
    ),
    "barrier behind the tile": (
        "shortconv.cuh",
        "me.past, p.ahead);\n    sync_block();",
        "me.past, p.ahead);",
        *RACE,
    ),
    "barrier before the next tile": ("shortconv.cuh", "grid.spans);\n    sync_block();", "grid.spans);", *RACE),
    "a lost tap": ("shortconv.cuh", "if (j >= p.taps) break;", "if (j + 1 >= p.taps) break;", "y: ", NOTHING),
    "both factors the same": ("shortconv.cuh", "d * right[i]", "d * left[i]", "dx: relative", NOTHING),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FAULTS))
def test_a_planted_fault_is_found(objects: Path, tmp_path: Path, name: str) -> None:
    file, original, planted, says, sanitizer = FAULTS[name]
    plant(tmp_path, f"short/{file}", original, planted)
    done = run(build(objects, file.startswith("direct"), sanitizer, tmp_path), 1, 2)
    assert done.returncode != 0
    assert says in done.stderr, done.stderr[:2000]
