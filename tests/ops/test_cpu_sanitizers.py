"""The CPU kernels under the sanitizers: no stray access, no undefined behaviour, no two threads at one word."""

import subprocess
from pathlib import Path

import pytest

FLAGS = ["-std=c++17", "-O1", "-g", "-march=native", "-pthread", "-Wall", "-Wextra", "-Werror"]
QUIET = ["-Wno-psabi", "-Wno-maybe-uninitialized"]  # vectors passed by value; buffers that a call fills


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_clean(sanitizer: str, root: Path, tmp_path: Path) -> None:
    csrc = root / "csrc"
    sources = [*sorted((csrc / "cpu").glob("*.cpp")), Path(__file__).with_name("cpu_driver.cpp")]
    flags = [*FLAGS, *QUIET, f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", f"-I{csrc}"]
    subprocess.run(["g++", *flags, *map(str, sources), "-o", str(tmp_path / "driver")], check=True)
    result = subprocess.run([str(tmp_path / "driver")], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout == "done\n"
