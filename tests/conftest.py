"""What many tests share: the folder of large data, small genomes, and a quiet torch."""

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
    cache: Path
    """Of compiled kernels; shared, so that they are compiled once."""

    def run(self, command: str, folder: Path, *, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a shell script there, in `folder`, with nothing of the checkout in reach."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
        }
        environment |= {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "DNASM_CACHE": str(self.cache),
            "OMP_NUM_THREADS": "1",  # two tests run side by side on two cores
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
    """Build the wheel, and install it beside links to what it declares, directly or not, and to nothing else.

    The packages are those that `constraints.txt` pins and `make setup` has installed: to install them once more would
    take minutes and give the same files.
    """
    python = [sys.executable, "-m"]
    subprocess.run(
        [*python, "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = (folder / "dist").glob("dnasm-*.whl")
    venv = folder / "venv"
    subprocess.run([*python, "venv", "--without-pip", venv], check=True)
    pip = [*python, "pip", "--python", venv / "bin/python", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    (site,) = venv.glob("lib/python*/site-packages")
    (declared,) = site.glob("dnasm-*.dist-info")
    for package in _closure(PathDistribution(declared)):
        _link(package, site, venv / "bin")


def _closure(package: Distribution) -> list[Distribution]:
    """Find the installed packages that one declares, directly or not, without extras that nobody asks for."""
    found: dict[str, Distribution] = {}
    asked: set[tuple[str, str]] = set()
    todo = [(package, "")]
    while todo:
        current, extra = todo.pop()
        for requirement in map(Requirement, current.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                name = canonicalize_name(requirement.name)
                found[name] = distribution(name)
                wanted = {(name, more) for more in ("", *requirement.extras)} - asked
                asked |= wanted
                todo += [(found[name], more) for _, more in wanted]
    return list(found.values())


def _link(package: Distribution, site: Path, commands: Path) -> None:
    """Link a package's files into an environment, and its programs that are no scripts of this one's Python."""
    files = package.files or []
    for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
        if not (site / top).exists():
            (site / top).symlink_to(Path(str(package.locate_file(top))))
    for file in files:
        program = Path(str(file.locate())).resolve()
        if file.parts[0] == ".." and program.parent.name == "bin" and program.read_bytes()[:2] != b"#!":
            (commands / program.name).symlink_to(program)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Installation:
    """The wheel of this checkout, with all it declares and no more; made once, also for several test processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "installed"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            folder.mkdir(exist_ok=True)
            _install_wheel(folder)
            (folder / "done").touch()
    return Installation(folder / "venv/bin", folder / "cache")
