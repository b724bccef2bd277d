"""Every shell and Python block of README and docs/ runs, page by page in an empty folder from the installed package."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Installation

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
STAND_IN = """\
dnasm pretrain --config dnasm:configs/demo.yaml --out run --trainer.max-steps 20 --trainer.max-minutes null \\
    --trainer.validate-every 10 --trainer.require-below-markov false --data.validation-windows 16
"""
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _script(page: Path) -> str:
    """Join a page's blocks in order; Python blocks become here-documents, so that one folder serves the whole page."""
    parts = []
    for number, (language, _, body) in enumerate(FENCE.findall(page.read_text())):
        if language in {"shell", "sh", "bash"}:
            parts.append(body)
        elif language == "python":
            parts.append(f"python - <<'BLOCK_{number}'\n{body}BLOCK_{number}\n")
    return "\n".join(parts)


def _make_targets(script: str) -> list[str]:
    return re.findall(r"^make +([a-z ]+)", script, re.MULTILINE)


def _without_checkout_commands(script: str) -> str:
    """Drop what needs the checkout rather than the package: `git clone`, `cd dnasm`, `pip install` and `make`."""
    return re.sub(r"^(git clone|cd dnasm|pip install|make|pytest)\b.*$", "true", script, flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    for targets in _make_targets(_script(page)):
        outcome = subprocess.run(
            ["make", "--dry-run", *targets.split()], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert outcome.returncode == 0, outcome.stderr


@pytest.fixture(scope="module")
def stand_in(installed: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that most pages begin with, made once by the very command that they give."""
    folder = tmp_path_factory.mktemp("stand_in")
    outcome = installed.run(STAND_IN, folder)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_runs(page: Path, installed: Installation, stand_in: Path, tmp_path: Path) -> None:
    script = _without_checkout_commands(_script(page)).replace(STAND_IN, f"cp -r '{stand_in}' run\n")
    if not script.strip():
        pytest.skip(f"{page.name} has no block to run")
    outcome = installed.run(script, tmp_path)
    shutil.rmtree(tmp_path, ignore_errors=True)
    assert outcome.returncode == 0, outcome.stdout[-3000:] + outcome.stderr[-3000:]


NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


def _cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_the_notebook_runs(installed: Installation, stand_in: Path, tmp_path: Path) -> None:
    code = "\n".join("".join(cell["source"]) for cell in _cells())
    outcome = installed.run(f"cp -r '{stand_in}' run\npython - <<'CELLS'\n{code}\nCELLS\n", tmp_path)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    assert "ln_f" in outcome.stdout


def test_the_notebook_is_executed() -> None:
    cells = _cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(output["output_type"] != "error" for cell in cells for output in cell["outputs"])
    assert all(cell["outputs"] for cell in cells)
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"])
    assert NOTEBOOK.stat().st_size < 300_000
    assert not re.search(r"/(home|tmp|root|work)/", NOTEBOOK.read_text())


def test_pictures_and_links_of_a_page_exist() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert not broken
