"""On a GPU the verbs give what they give on a CPU, up to rounding."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import dnasm
from dnasm import cli
from dnasm.genome import Genome
from dnasm.models.checkpoint import save_model

from .scoring import random_sequence, random_variants, small_model, write_fasta

LETTERS = random_sequence(2000, 3)

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return Genome(write_fasta(tmp_path_factory.mktemp("genome") / "g.fa", c=LETTERS))


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


@pytest.mark.parametrize("kind", ["bidirectional", "equivariant"])
def test_verbs_of_masked_bases_agree_with_the_cpu(kind: str, genome: Genome) -> None:
    substitutions = [text for text in random_variants("c", LETTERS, 40) if len(text.split(":")[2]) == 1]
    results = []
    for device in ("cpu", "cuda"):
        model = small_model(max_length=64, **{kind: True}).to(device)
        tracks = list(dnasm.likelihood(model, genome, "c:301-400", window=31))
        changes = dnasm.mutagenesis(model, "c:1,001-1,030", genome, window=33)
        scores = [
            dnasm.score_variants(model, substitutions, genome, window=33, method=method).llr
            for method in ("masked_llr", "pseudo_likelihood")
        ]
        values = [[track.log_likelihood, track.entropy] for track in tracks]
        results.append([*(row for rows in values for row in rows), changes.llr, *scores])
    for on_cpu, on_gpu in zip(*results, strict=True):
        assert np.isfinite(on_gpu).any()
        assert_allclose(on_gpu, on_cpu, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("kind", ["hyena", "h3", "bidirectional"])
def test_bfloat16_is_tried_beside_float32_first(
    kind: str, genome: Genome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masked = kind == "bidirectional"
    made = small_model(max_length=64, bidirectional=True) if masked else small_model(kind, 64)
    model = save_model(made, tmp_path / "m", {})
    variants = [text.split(":") for text in random_variants("c", LETTERS, 40)]
    rows = ["\t".join(words) for words in variants if len(words[2]) == len(words[3])]
    (tmp_path / "v.tsv").write_text("\n".join(["chrom\tpos\tref\talt", *rows]) + "\n")
    common = ["--model", str(model), "--genome", str(genome.path), "--device", "cuda", "--dtype", "bfloat16"]
    method = ["--method", "masked_llr"] if masked else []
    for *arguments, out in (
        ["score", "--variants", str(tmp_path / "v.tsv"), "--window", "32", *method, "--out", "scores.tsv"],
        ["likelihood", "--regions", "c:1-300", "--window", "32", "--out", "track.bedgraph"],
        ["mutagenesis", "--region", "c:1001-1030", "--window", "64", "--out", "changes.tsv"],
    ):
        assert cli.main([*arguments, str(tmp_path / out), *common]) == 0, arguments
        said = capsys.readouterr().err
        assert "in bfloat16 on" in said, arguments
        assert 0 < float(said.split("drift by up to ")[1].split()[0]) < 1, said
        strictly = cli.main([*arguments, str(tmp_path / f"strict.{out}"), *common, "--strict"])
        assert strictly == (2 if "warning: in bfloat16" in said else 0), said
