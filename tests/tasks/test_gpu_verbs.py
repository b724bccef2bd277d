"""On a GPU the verbs give what they give on a CPU, up to rounding."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import dnasm
from dnasm.genome import Genome

from .scoring import random_sequence, small_model, write_fasta

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return Genome(write_fasta(tmp_path_factory.mktemp("genome") / "g.fa", c=random_sequence(2000, 3)))


@pytest.mark.parametrize("family", ["hyena", "h3", "attention"])
def test_verbs_agree_with_the_cpu(family: str, genome: Genome, tmp_path: Path) -> None:
    results = []
    for device in ("cpu", "cuda"):
        model = small_model(family, 256).to(device)
        tracks = list(dnasm.likelihood(model, genome))
        changes = dnasm.mutagenesis(model, "c:1,001-1,030", genome, window=128)
        vectors = [
            dnasm.embed(model, genome.path, window=200, layer=[0, "ln_f"], pool=pool, strands="concat").vectors  # type: ignore[arg-type]
            for pool in ("mean", "max", "centre", "none")
        ]
        results.append([
            np.concatenate([track.log_likelihood for track in tracks]),
            np.concatenate([track.entropy for track in tracks]),
            changes.changes,
            changes.gradient,
            *vectors,
        ])  # fmt: skip
    for on_cpu, on_gpu in zip(*results, strict=True):
        assert_allclose(on_gpu, on_cpu, atol=1e-4, equal_nan=True)
