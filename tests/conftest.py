"""What many tests share: the folder of large data, small genomes, and a quiet torch."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

settings.register_profile("dnasm", deadline=None)  # a busy machine is no failure
settings.load_profile("dnasm")

ROOT = Path(__file__).resolve().parent.parent


def _find_shared() -> Path:
    return Path(os.environ.get("DNASM_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of large real data and golden outputs, which only some machines have.

    `DNASM_SHARED` names it. Where it is absent a test skips, or fails if `DNASM_REQUIRE_SHARED=1`.
    """
    folder = _find_shared()
    if folder.is_dir():
        return folder
    message = f"no shared data at {folder} (set DNASM_SHARED to its folder)"
    if os.environ.get("DNASM_REQUIRE_SHARED") == "1":
        pytest.fail(message)
    pytest.skip(message)


@dataclass(frozen=True)
class Installation:
    """dnasm as a user has it: a wheel in an environment of its own, outside the checkout."""

    bin: Path

    def run(self, command: str, folder: Path, *, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a shell script there, in `folder`, with nothing of the checkout in reach."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
        }
        environment |= {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "DNASM_CACHE": str(folder / ".cache"),
            "OMP_NUM_THREADS": "2",
        }
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def _install_wheel(folder: Path) -> None:
    python = [sys.executable, "-m"]
    subprocess.run(
        [*python, "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = (folder / "dist").glob("dnasm-*.whl")
    subprocess.run([*python, "venv", folder / "venv"], check=True)
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    pip = [folder / "venv/bin/python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *constraints, wheel], check=True, capture_output=True)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Installation:
    """The wheel of this checkout, installed with all it declares; made once, also for several test processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "installed"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            folder.mkdir(exist_ok=True)
            _install_wheel(folder)
            (folder / "done").touch()
    return Installation(folder / "venv/bin")
