import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from dnasm import cli
from tests.tasks.runs import patchy_letters, write_config, write_fasta


@pytest.fixture(scope="session")
def patchy_fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A genome whose local composition tells a Hyena more than the last 8 bases tell a Markov model."""
    letters = patchy_letters(100_000, 0)
    folder = tmp_path_factory.mktemp("patchy")
    return write_fasta(folder / "patchy.fa", {"train": letters[:70_000], "held": letters[70_000:]})


@pytest.fixture(scope="session")
def trained_run(patchy_fasta: Path) -> Path:
    """A finished run directory; not to be changed."""
    config = write_config(
        patchy_fasta.with_name("run.yaml"), patchy_fasta, max_steps=150, validate_every=50, require_below_markov=True
    )
    run = patchy_fasta.with_name("run")
    assert cli.main(["pretrain", "--config", str(config), "--out", str(run), "--quiet", "--seed", "3"]) == 0
    return run


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow past 8,192 bytes, as where a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
