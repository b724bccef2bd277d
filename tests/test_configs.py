"""Every shipped configuration is read, its data resolved, its model built and counted."""

from pathlib import Path

import pytest
import torch

from dnasm.arguments import build_parser, fill, read_arguments
from dnasm.config import PretrainConfig
from dnasm.datasets.corpus import Corpus
from dnasm.models.backbone import build_model
from dnasm.tasks import pretrain
from tests.conftest import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
ON_META_ABOVE = 10_000_000

PARAMETERS = {
    "demo": 291_392,
    "hyena-tiny-yeast": 451_968,
    "h3-tiny-yeast": 481_536,
    "attention-tiny-yeast": 398_848,
    "hyenadna-tiny-1k-hg38": 436_096,
    "hyena-small-32k-hg38": 3_277_568,
    "h3-125m-hg38": 87_796_992,
}
"""Trained parameters; buffers are not counted. A change here is a change of architecture."""


def read(path: Path, *flags: str) -> PretrainConfig:
    given = read_arguments(["--config", str(path), "--out", "run", *flags], PretrainConfig, [])
    return fill(PretrainConfig, build_parser(PretrainConfig, "dnasm pretrain", [], ""), given)


def test_every_config_is_in_the_table() -> None:
    assert {path.stem for path in CONFIGS} == PARAMETERS.keys()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_model_has_the_expected_size(path: Path) -> None:
    config = read(path)
    with torch.device("meta" if PARAMETERS[path.stem] > ON_META_ABOVE else "cpu"):
        model = build_model(config.model)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[path.stem]
    assert config.model.max_length is None or config.model.max_length >= config.data.window


def write_stand_in(config: PretrainConfig) -> None:
    """Write what stands in for genomes that do not ship with dnasm: their held-out contigs and one more, all short."""
    for genome in config.data.genomes:
        if not Path(genome.path).exists():
            names = ["chr1", *genome.validation, *genome.test]
            bases = "ACGGT" * (config.data.window // 5 + 1)
            Path(genome.path).write_text("".join(f">{name}\n{bases}\n" for name in names))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_dry_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrain, "check_space", lambda folder, needed: None)
    config = read(path, "--dry-run", "--device", "cpu")
    write_stand_in(config)
    pretrain.run(config)
    assert f"{PARAMETERS[path.stem]:,} parameters" in capsys.readouterr().out
    assert not Path("run").exists()


def test_the_demo_holds_out_what_it_says() -> None:
    config = read(ROOT / "configs/demo.yaml")
    yeast, human = Corpus(config.data).counts().values()
    assert (yeast["training_bases"], yeast["validation_bases"]) == (12_071_326 - 562_643, 562_643)
    assert (human["training_bases"], human["validation_bases"]) == (400_000, 100_000)
    assert config.trainer.require_below_markov
    assert config.trainer.max_minutes is not None
    assert config.trainer.max_minutes <= 4
