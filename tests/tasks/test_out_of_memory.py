"""Where memory does not suffice, the message says how much is needed; what needs less trains the same."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dnasm import cli
from dnasm.errors import ConfigError
from dnasm.tasks.forward_batches import BatchRunner
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
    assert "no room for steps of 16 windows of 64 bases, which need about 0.029 GB" in message
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


def test_other_errors_pass() -> None:
    def compute(tokens: Tensor) -> Tensor:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        BatchRunner(small_model(), 1).run([encode("ACGT")], compute)
