"""Where memory does not suffice, the message says how much is needed; what needs less trains the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import dnasm
from dnasm import cli
from dnasm.errors import ConfigError
from dnasm.models import build_model
from dnasm.presets import preset
from dnasm.tasks import mutation_scan
from dnasm.tasks.forward_batches import BatchRunner, memory_told
from dnasm.training import fit
from dnasm.vocabulary import encode
from tests.tasks.runs import patchy_letters, write_config, write_fasta
from tests.tasks.scoring import small_model

# As torch raises it on a CPU.
FULL = (
    "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 TB"
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    letters = patchy_letters(8_000, 0)
    fasta = write_fasta(folder / "g.fa", {"train": letters[:6_000], "held": letters[6_000:]})
    return write_config(folder / "run.yaml", fasta, max_steps=4, validate_every=4, markov_orders=1)


def test_pretrain_says_what_its_steps_need(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError(FULL)

    monkeypatch.setattr(fit, "fit", full)
    words = ["pretrain", "--config", str(config), "--quiet"]
    assert cli.main([*words, "--out", str(tmp_path / "a")]) == 2
    message = capsys.readouterr().err
    assert "no room for steps of 16 windows of 64 bases, which need about 0.022 GB" in message
    assert "or set trainer.checkpoint_activations" in message
    assert cli.main([*words, "--out", str(tmp_path / "b"), "--trainer.checkpoint-activations"]) == 2
    assert "or set" not in capsys.readouterr().err


def test_checkpointing_trains_to_the_same_losses(config: Path, tmp_path: Path) -> None:
    words = ["pretrain", "--config", str(config), "--quiet", "--out"]
    assert cli.main([*words, str(tmp_path / "plain")]) == 0
    assert cli.main([*words, str(tmp_path / "again"), "--trainer.checkpoint-activations"]) == 0
    plain, again = ((tmp_path / name / "position_loss.csv").read_text() for name in ("plain", "again"))
    assert plain == again


@pytest.mark.parametrize("error", [RuntimeError(FULL), MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_sequence_too_long_for_the_memory_is_told_what_it_needs(error: Exception) -> None:
    def compute(tokens: Tensor) -> Tensor:
        raise error

    with pytest.raises(ConfigError, match=r"single sequence of 4 bases, which needs about 0\.0\d+ GB in float32"):
        BatchRunner(small_model(), 1).run([encode("ACGT")], compute)


def _full(*_: object, **__: object) -> None:
    raise RuntimeError(FULL)


def test_drawing_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    monkeypatch.setattr(type(model), "extend", _full)
    with pytest.raises(ConfigError, match=r"3 sequences of 25 tokens, which need about 0\.0\d+ GB.*--batch-size"):
        dnasm.generate(model, "ACGTA", n=5, length=20, batch_size=3)


def test_embedding_piece_by_piece_says_what_a_piece_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(replace(preset("h3-tiny"), d_model=16, d_inner=16, num_layers=1))
    monkeypatch.setattr(type(model.backbone), "extend", _full)
    with pytest.raises(
        ConfigError, match=r"65,536 tokens, which needs about 0\.0\d+ GB.*65,537 bases are read in such"
    ):
        dnasm.embed(model, [np.full(65_537, 7, np.uint8)])


def test_the_gradient_of_mutagenesis_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutation_scan, "input_gradient", _full)
    with pytest.raises(ConfigError, match=r"a sequence of 20 tokens, which needs about 0\.0\d+ GB.*no --gradient"):
        dnasm.mutagenesis(small_model(), "ACGTACGTACGTACGTACGT")


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="a bug"), memory_told(small_model(), 10, 1, "nothing"):
        raise RuntimeError("a bug")

    def compute(tokens: Tensor) -> Tensor:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        BatchRunner(small_model(), 1).run([encode("ACGT")], compute)
