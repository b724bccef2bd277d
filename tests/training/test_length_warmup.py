"""Short windows first: the stages, and that a run goes through them."""

from pathlib import Path

import pytest
from torch import Tensor

from dnasm import cli
from dnasm.config import TrainerConfig
from dnasm.errors import ConfigError
from dnasm.models import LanguageModel
from dnasm.training.length_warmup import LengthWarmup
from tests.tasks.runs import patchy_letters, write_config, write_fasta


def test_lengths_double_in_equal_stages() -> None:
    lengths = LengthWarmup(64, 1024, 0.4)
    assert [lengths.length(p) for p in (0.0, 0.099, 0.101, 0.199, 0.201, 0.301, 0.401, 1.0)] == [
        64, 64, 128, 128, 256, 512, 1024, 1024,
    ]  # fmt: skip
    whole = LengthWarmup.of(TrainerConfig(), 1000)
    assert [whole.length(p) for p in (0.0, 1.0)] == [1000, 1000]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length_warmup": 96}, "length_warmup is 96"),
        ({"length_warmup": 2048}, "length_warmup is 2048"),
        ({"length_warmup": 1}, "length_warmup is 1"),
        ({"length_warmup": 64, "length_warmup_share": 0.0}, "length_warmup_share is 0"),
    ],
)
def test_what_does_not_lead_to_the_window_is_named(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LengthWarmup.of(TrainerConfig(**settings), 1024)  # type: ignore[arg-type]


def test_a_run_goes_through_its_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = patchy_letters(8_000, 0)
    fasta = write_fasta(tmp_path / "g.fa", {"train": letters[:6_000], "held": letters[6_000:]})
    config = write_config(
        tmp_path / "run.yaml", fasta, max_steps=8, validate_every=8, markov_orders=1, length_warmup=16,
        length_warmup_share=0.5,
    )  # fmt: skip
    shapes, forward = [], LanguageModel.forward

    def watched(self: LanguageModel, tokens: Tensor) -> Tensor:
        if self.training:
            shapes.append(tuple(tokens.shape))
        return forward(self, tokens)

    monkeypatch.setattr(LanguageModel, "forward", watched)
    words = ["pretrain", "--config", str(config), "--quiet", "--out"]
    assert cli.main([*words, str(tmp_path / "run")]) == 0
    assert shapes == [(64, 16)] * 2 + [(32, 32)] * 2 + [(16, 64)] * 4
    assert cli.main([*words, str(tmp_path / "b"), "--trainer.length-warmup", "48"]) == 2
    assert not (tmp_path / "b").exists()
