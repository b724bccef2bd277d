from pathlib import Path

import numpy as np
import pytest

from dnasm.config import DataConfig, GenomeConfig

LENGTHS = {"chrA": 3000, "chrB": 1700, "chrC": 40, "chrV": 900}


def random_letters(length: int, seed: int) -> str:
    """Real enough for windows: random letters with a soft-masked stretch and a run of N."""
    letters = np.random.default_rng(seed).choice(np.frombuffer(b"ACGT", dtype=np.uint8), length)
    letters[length // 4 : length // 2] |= 0x20  # lower case
    letters[length // 2 : length // 2 + length // 10] = ord("N")
    return letters.tobytes().decode()


@pytest.fixture(scope="session")
def sequences() -> dict[str, str]:
    """Contigs of the small genome, as letters."""
    return {name: random_letters(length, seed) for seed, (name, length) in enumerate(LENGTHS.items())}


@pytest.fixture(scope="session")
def fasta(sequences: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small genome: chrV is meant for validation, chrC is shorter than most windows."""
    path = tmp_path_factory.mktemp("genome") / "small.fa"
    path.write_text("".join(f">{name}\n{letters}\n" for name, letters in sequences.items()))
    return path


@pytest.fixture
def config(fasta: Path) -> DataConfig:
    """Settings for it; tests change what they are about."""
    return DataConfig(
        genomes=[GenomeConfig(path=str(fasta), validation=["chrV"])],
        window=64,
        windows_per_epoch=50,
        batch_size=8,
    )
