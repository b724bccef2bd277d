"""Scores in a narrow dtype are tried beside float32 first."""

from pathlib import Path

import numpy as np
import pytest

from dnasm.config import ScoreConfig
from dnasm.errors import ConfigError
from dnasm.models.checkpoint import save_model
from dnasm.tasks import score
from dnasm.tasks.precision_guard import compare

from .scoring import random_sequence, random_variants, small_model, write_fasta


def test_equal_scores_swap_nothing() -> None:
    drift = compare(np.arange(5.0), np.arange(5.0))
    assert (drift.largest, drift.swapped) == (0.0, 0.0)


def test_a_reversed_order_swaps_every_pair() -> None:
    drift = compare(np.arange(5.0), -np.arange(5.0))
    assert (drift.largest, drift.swapped) == (8.0, 1.0)


@pytest.mark.parametrize("size", [0, 1])
def test_too_few_scores_have_no_order(size: int) -> None:
    assert compare(np.zeros(size), np.zeros(size)).swapped == 0.0


def test_bfloat16_is_reported_and_with_strict_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    letters = random_sequence(400)
    rows = ["\t".join(text.split(":")) for text in random_variants("c", letters, 32)]
    (tmp_path / "v.tsv").write_text("\n".join(["chrom\tpos\tref\talt", *rows]) + "\n")
    settings = {
        "model": str(save_model(small_model(), tmp_path / "m", {})),
        "genome": str(write_fasta(tmp_path / "g.fa", c=letters)),
        "variants": str(tmp_path / "v.tsv"),
        "out": str(tmp_path / "out.tsv"),
    }
    with pytest.raises(ConfigError, match=r"bfloat16.*swaps"):
        score.run(ScoreConfig(**settings, window=64, dtype="bfloat16", strict=True))  # type: ignore[arg-type]
    assert not (tmp_path / "out.tsv").exists()
    score.run(ScoreConfig(**settings, window=64, dtype="bfloat16"))  # type: ignore[arg-type]
    assert "warning: in bfloat16 on 32 alleles the scores drift" in capsys.readouterr().err
    assert (tmp_path / "out.tsv").exists()
