"""Other ways to compare two windows, each against the definition written out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import dnasm
from dnasm import vocabulary
from dnasm.config import ModelConfig, ScoreConfig
from dnasm.errors import ConfigError
from dnasm.genome import Genome
from dnasm.models.backbone import LanguageModel, build_model
from dnasm.models.checkpoint import save_model
from dnasm.tasks import score
from dnasm.tasks.score import score_variants
from dnasm.vocabulary import MASK, A

from .scoring import Composition, random_sequence, small_model, write_fasta

SEQUENCE = random_sequence(200)
POS, WINDOW = 101, 32
REF = SEQUENCE[POS - 1]
ALT = "ACGT"["ACGT".index(REF) - 1]
SNV = f"c:{POS}:{REF}:{ALT}"


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    return Genome(write_fasta(tmp_path_factory.mktemp("g") / "g.fa", c=SEQUENCE))


def _masked_model(*, equivariant: bool = False) -> LanguageModel:
    torch.manual_seed(2)
    config = ModelConfig(d_model=16, d_inner=16, num_layers=2, max_length=64, filter_order=8, bidirectional=True)
    model = build_model(replace(config, equivariant=equivariant)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def _windows() -> tuple[Tensor, Tensor]:
    """Both alleles on the forward strand, the variant at the middle."""
    start = POS - 1 - WINDOW // 2
    letters = SEQUENCE[start : start + WINDOW]
    edited = letters[: WINDOW // 2] + ALT + letters[WINDOW // 2 + 1 :]
    reference, alternate = (torch.from_numpy(vocabulary.encode(x))[None] for x in (letters, edited))
    return reference, alternate


@torch.no_grad()
def _log_probs(model: torch.nn.Module, tokens: Tensor) -> Tensor:
    return model(tokens)[0, :, A : A + 4].double().log_softmax(-1)


def _score(model: torch.nn.Module, genome: Genome, method: str, variant: str = SNV, **more: object) -> float:
    table = score_variants(model, [variant], genome, window=WINDOW, strands="forward", method=method, **more)  # type: ignore[arg-type]
    assert table.llr[0] == table.llr_forward[0] or table.status[0] != "ok"
    return float(table.llr[0])


def test_llr_mean_is_the_sum_by_the_bases_that_are_scored(genome: Genome) -> None:
    model = small_model()
    assert _score(model, genome, "llr_mean") == pytest.approx(_score(model, genome, "llr") / (WINDOW - 1), rel=1e-12)


def test_masked_llr_compares_both_alleles_where_the_base_is_hidden(genome: Genome) -> None:
    model, (tokens, _) = _masked_model(), _windows()
    tokens = tokens.clone()
    tokens[0, WINDOW // 2] = MASK
    found = _log_probs(model, tokens)[WINDOW // 2]
    expected = float(found["ACGT".index(ALT)] - found["ACGT".index(REF)])
    assert _score(model, genome, "masked_llr") == pytest.approx(expected, abs=1e-5)
    table = score_variants(model, [f"c:{POS}:{REF}:{REF}A"], genome, window=WINDOW, method="masked_llr")
    assert table.status[0] == "unsupported"
    assert "one length" in table.reason[0]


def test_pseudo_likelihood_hides_one_base_after_the_other(genome: Genome) -> None:
    model = _masked_model()
    sums = []
    for tokens in _windows():
        total = 0.0
        for i in range(WINDOW):
            hidden = tokens.clone()
            hidden[0, i] = MASK
            total += float(_log_probs(model, hidden)[i, int(tokens[0, i]) - A])
        sums.append(total)
    assert _score(model, genome, "pseudo_likelihood") == pytest.approx(sums[1] - sums[0], abs=1e-4)


def test_next_base_divergence_sums_over_what_follows(genome: Genome) -> None:
    model = small_model()
    p, q = (_log_probs(model, tokens)[WINDOW // 2 : -1].exp() for tokens in _windows())
    middle = (p + q) / 2
    expected = 0.5 * float((p * (p / middle).log() + q * (q / middle).log()).sum())
    assert _score(model, genome, "next_base_divergence") == pytest.approx(expected, abs=1e-6)
    assert expected > 1e-4
    assert _score(Composition(), genome, "next_base_divergence") == pytest.approx(0.0, abs=1e-9)


def test_an_insertion_is_aligned_by_its_flank(genome: Genome) -> None:
    assert _score(Composition(), genome, "next_base_divergence", f"c:{POS}:{REF}:{REF}ACG") == pytest.approx(
        0, abs=1e-9
    )


@pytest.mark.parametrize("layer", [-1, 0])
def test_embedding_distance_is_that_of_mean_hidden_states(genome: Genome, layer: int) -> None:
    model, (reference, alternate) = small_model(), _windows()
    with torch.no_grad():
        means = [model.hidden(tokens, layer)[0].double().mean(0) for tokens in (reference, alternate)]
    expected = float((means[1] - means[0]).norm())
    assert _score(model, genome, "embedding_distance", layer=layer) == pytest.approx(expected, rel=1e-4)
    assert _score(_masked_model(), genome, "embedding_distance") > 0


def test_an_equivariant_model_gives_both_strands_one_value(genome: Genome) -> None:
    table = score_variants(_masked_model(equivariant=True), [SNV], genome, window=33, method="masked_llr")
    np.testing.assert_allclose(table.llr_forward, table.llr_reverse, atol=1e-5)


@pytest.mark.parametrize("method", ["llr", "llr_mean", "next_base_divergence"])
def test_a_masked_model_is_refused_where_a_causal_one_is_needed(genome: Genome, method: str) -> None:
    with pytest.raises(ConfigError, match="masked bases"):
        _score(_masked_model(), genome, method)


@pytest.mark.parametrize("method", ["masked_llr", "pseudo_likelihood"])
def test_a_causal_model_is_refused_where_a_masked_one_is_needed(genome: Genome, method: str) -> None:
    with pytest.raises(ConfigError, match=f"--method {method} needs a model that was trained on masked bases"):
        _score(small_model(), genome, method)
    with pytest.raises(ConfigError, match="no `hidden`"):
        _score(Composition(), genome, "embedding_distance")


@pytest.mark.parametrize("suffix", ["tsv", "vcf", "parquet"])
def test_outputs_are_named_after_the_method(genome: Genome, tmp_path: Path, suffix: str) -> None:
    model = save_model(small_model(), tmp_path / "model", {})
    (tmp_path / "v.tsv").write_text("chrom\tpos\tref\talt\n" + "\t".join(SNV.split(":")) + "\n")
    files = {"model": str(model), "genome": str(genome.path), "variants": str(tmp_path / "v.tsv")}
    out = str(tmp_path / f"out.{suffix}")
    config = ScoreConfig(out=out, method="llr_mean", window=WINDOW, device="cpu", quiet=True, **files)  # type: ignore[arg-type]
    score.run(config)
    written = (tmp_path / f"out.{suffix}").read_bytes()
    assert (b"DNASM_LLR_MEAN_FORWARD=" if suffix == "vcf" else b"llr_mean_forward") in written
    table = score_variants(dnasm.load(str(model), "cpu"), SNV, genome, window=WINDOW, method="llr_mean")
    assert list(table.to_pandas().columns)[4:7] == ["llr_mean", "llr_mean_forward", "llr_mean_reverse"]
