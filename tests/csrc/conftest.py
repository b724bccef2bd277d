"""Emulated kernels for every test here, compiled once for each state of the sources."""

from pathlib import Path

import pytest

from tests.csrc.kernels import Kernels
from tests.csrc.toolchain import host_library


@pytest.fixture(scope="session")
def objects(pytestconfig: pytest.Config) -> Path:
    """Where objects are kept from run to run."""
    assert pytestconfig.cache is not None
    return pytestconfig.cache.mkdir("csrc")


@pytest.fixture(scope="session")
def bf16(objects: Path) -> Kernels:
    return Kernels(host_library(objects, [(256 << i, "bfloat16") for i in range(8)]))
