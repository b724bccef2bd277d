"""What many tests share: the folder of large data, small genomes, and a quiet torch."""

import os
from pathlib import Path

import pytest

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
