"""Every line of the kernels runs on the CPU: gcov over the cases of every_line.py."""

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from filelock import FileLock

from tests.csrc.toolchain import CSRC, ROOT

ENDS = "says what went wrong and ends the process, and with it gcov's counts; test_faults reads what it says"
EXCEPTIONS = {
    "[[noreturn]] inline void fail(const char* what) {": ENDS,
    'fprintf(stderr, "emulator: %s in block %lld\\n", what, static_cast<long long>(emulator.block_index));': ENDS,
    "for (int t = 0; t < emulator.threads; ++t)": ENDS,
    "if (emulator.fibres[t].waits_at)": ENDS,
    'fprintf(stderr, "  warp %d lane %2d waits at %s\\n", t / 32, t % 32, emulator.fibres[t].waits_at);': ENDS,
    "fflush(stderr);": ENDS,
    "_exit(86);": ENDS,
    'fail("a finished thread was resumed");': "a finished thread is never resumed",
    "e.fibres[e.running].waits_at = operation;": ENDS,
    "Pair factors[4];": "a declaration: gcov counts what fills it where that is read",
    'fail("threads of one warp stand at different operations");': ENDS,
}
"""Lines that do not run here, and why."""


def is_signature(text: str) -> bool:
    """Whether a line opens a function: where it is inlined, calls are counted on the lines that follow."""
    return text.startswith("DNASM_DEVICE ") and text.endswith("{")


def lines_run(folder: Path) -> dict[str, dict[int, int]]:
    """File -> line -> how often it ran, in whichever instantiation ran it most."""
    command = ["gcov", "--json-format", "--stdout", *map(str, sorted(folder.glob("*.gcda")))]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    counts: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for report in map(json.loads, said.splitlines()):
        for file in report["files"]:
            path = Path(report["current_working_directory"], file["file"]).resolve()
            if path.suffix == ".cuh" and path.is_relative_to(CSRC):
                lines = counts[str(path.relative_to(CSRC))]
                for line in file["lines"]:
                    lines[line["line_number"]] = max(lines[line["line_number"]], line["count"])
    return counts


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcov") is None, reason="no gcov beside g++")
def test_every_line_of_the_kernels_runs(objects: Path) -> None:
    folder = objects / "counted"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        for old in folder.glob("*.gcda"):  # a run adds to the counts of the one before
            old.unlink()
        command = [sys.executable, "-m", "tests.csrc.every_line", str(folder)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        counts = lines_run(folder)
    assert counts.keys() == {str(path.relative_to(CSRC)) for path in CSRC.glob("**/*.cuh")}
    idle = []
    for name, lines in counts.items():
        text = (CSRC / name).read_text().splitlines()
        found = ((number, text[number - 1].strip()) for number, count in lines.items() if not count)
        idle += [f"{name}:{n}: {line}" for n, line in found if line not in EXCEPTIONS and not is_signature(line)]
    assert not idle, "\n".join(idle)
