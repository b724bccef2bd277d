"""The CUDA route from the public function to the kernels, on emulated kernels: see `emulated`."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.ops import emulated


def test_the_cuda_route_on_emulated_kernels(pytestconfig: pytest.Config, root: Path) -> None:
    assert pytestconfig.cache is not None
    command = [sys.executable, "-m", emulated.__name__, str(pytestconfig.cache.mkdir("csrc"))]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.split() == [name for name in vars(emulated) if name.startswith("check_")]
