"""Every line of the kernels runs on the CPU: gcov over a selection of the other tests here."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.csrc.toolchain import CSRC, ROOT

FILES = ["one_block", "float32", "long", "short", "direct", "hardware"]
CASES = (
    "white_noise or projection or every_result or every_float_type or parity or mma or ldmatrix or shuffle or half2 or "
    "conversions or both_directions or packed or other_dtypes or odd_addresses or aligned_rows or "
    "(direct and (law or nan or bit or scale))"
)
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
    'fail("threads of one warp stand at different operations");': ENDS,
}
"""Lines that do not run here, and why."""


def is_signature(text: str) -> bool:
    """Whether a line opens a function: where it is inlined, calls are counted on the lines that follow."""
    return text.startswith("DNASM_DEVICE ") and text.endswith("{")


def run_tests(cache: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-o", f"cache_dir={cache}", "-k", CASES]
    files = [f"tests/csrc/test_{name}.py" for name in FILES]
    environment = os.environ | {"DNASM_HOST_FLAGS": "-O1 -fno-inline --coverage", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *files], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


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
@pytest.mark.skipif(os.environ.get("DNASM_ALL_KERNELS") != "1", reason="minutes of a core: DNASM_ALL_KERNELS=1")
def test_every_line_of_the_kernels_runs(objects: Path, tmp_path: Path) -> None:
    sources = sorted([*CSRC.glob("**/*"), *Path(__file__).parent.glob("*")])
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources if path.is_file())).hexdigest()
    kept = objects / f"lines-run-{digest[:24]}.json"  # half a minute: once for each state of kernels and tests
    if not kept.exists():
        run_tests(tmp_path / "cache")
        kept.write_text(json.dumps(lines_run(tmp_path / "cache/d/csrc")))
    counts = json.loads(kept.read_text())
    headers = {str(path.relative_to(CSRC)) for path in CSRC.glob("**/*.cuh")}
    assert counts.keys() == headers
    idle = []
    for name, lines in counts.items():
        text = (CSRC / name).read_text().splitlines()
        found = ((number, text[int(number) - 1].strip()) for number, count in lines.items() if not count)
        idle += [f"{name}:{n}: {line}" for n, line in found if line not in EXCEPTIONS and not is_signature(line)]
    assert not idle, "\n".join(idle)
