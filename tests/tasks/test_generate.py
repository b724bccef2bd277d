"""Generated sequences: the function, the command, and its headers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dnasm
from dnasm import cli
from dnasm.errors import ConfigError, InputError
from dnasm.models import build_model, load, save_model
from dnasm.models.backbone import LanguageModel
from dnasm.tasks.generate import generate

from .scoring import random_sequence, small_model, write_fasta


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return small_model()


@pytest.fixture
def folder(model: LanguageModel, tmp_path: Path) -> str:
    return str(save_model(model, tmp_path / "model", {}))


def _records(text: str) -> list[tuple[str, dict[str, str], str]]:
    """Name, settings and letters of each FASTA record."""
    found = []
    for record in text.removeprefix(">").split("\n>"):
        header, *lines = record.splitlines()
        name, *facts = header.split()
        found.append((name, dict(fact.split("=") for fact in facts), "".join(lines)))
    return found


def test_letters_in_letters_out(model: LanguageModel) -> None:
    assert dnasm.generate is generate
    drawn = generate(model, "ACGT", 3, length=30)
    assert [len(text) for text in drawn] == [30] * 3
    assert len(set(map(str, drawn))) == 3
    assert set("".join(map(str, drawn))) == set("ACGT")
    assert generate(model, [7, 8, 9, 10], 3, length=30) == drawn
    assert generate(model, "ACGT", 2, length=30, include_prompt=True) == [f"ACGT{text}" for text in drawn[:2]]
    assert generate(model, "ACGT", 3, length=30, batch_size=1) == drawn
    assert generate(model, "ACGT", 3, length=30, seed=1) != drawn


def test_the_model_stays_in_its_mode(model: LanguageModel) -> None:
    model.train()
    generate(model, "ACGT")
    assert model.training
    model.eval()


def test_text_models_take_and_return_ids(model: LanguageModel) -> None:
    text = build_model(replace(model.config, family="h3", max_length=None, vocabulary="gpt2"))
    (ids,) = generate(text, [50_256], length=5, stop=[[50_256]])
    assert isinstance(ids, np.ndarray)
    assert len(ids) <= 5
    with pytest.raises(ConfigError, match="gpt2"):
        generate(text, "ACGT")
    with pytest.raises(InputError, match="from 0 to 50256"):
        generate(text, [50_257])


@pytest.mark.parametrize(
    ("prompt", "kwargs", "error", "message"),
    [
        ("ACXT", {}, InputError, "prompt: letter 'X' at position 2"),
        ("", {}, InputError, "the prompt has 0 bases"),
        ("ACGT", {"stop": ["TU"]}, InputError, "stop: letter 'U'"),
        ("ACGT", {"n": 0}, ConfigError, "n is 0"),
        ("ACGT", {"batch_size": 0}, ConfigError, "batch_size 0"),
        ("A" * 200, {"length": 58}, ConfigError, "prompt of 200 and 58 more .* reads at most 256"),
        ([12], {}, InputError, "ids from 0 to 11"),
    ],
)
def test_errors_name_the_value(
    model: LanguageModel, prompt: str, kwargs: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        generate(model, prompt, **kwargs)  # type: ignore[arg-type]


def test_the_command_writes_fasta_with_its_settings(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "--model", folder, "--prompt", "ACGTTGCA", "--n", "3", "--length", "100", "--seed", "7"]
    more = ["--temperature", "0.9", "--top-k", "3", "--stop", "[TAA,TAG]"]
    assert cli.main([*words, *more, "--out", "-", "--quiet"]) == 0
    text = capsys.readouterr().out
    records = _records(text)
    expected = generate(load(folder), "ACGTTGCA", 3, length=100, seed=7, temperature=0.9, top_k=3, stop=["TAA", "TAG"])
    assert [letters for *_, letters in records] == expected
    assert [name for name, *_ in records] == ["generated_1", "generated_2", "generated_3"]
    assert max(map(len, text.splitlines())) > 80, "headers are long"
    assert all(len(line) <= 80 for line in text.splitlines() if not line.startswith(">"))
    facts = records[0][1]
    assert float(facts.pop("log_likelihood")) < 0
    assert len(facts.pop("model")) == 12
    assert facts == {
        "prompt": "8", "generated": str(len(records[0][2])), "end": "stop" if len(records[0][2]) < 100 else "length",
        "seed": "7", "temperature": "0.9", "top_k": "3", "top_p": "1", "length": "100", "stop": "TAA,TAG",
    }  # fmt: skip
    out = tmp_path / "out.fa"
    assert cli.main([*words, *more, "--out", str(out), "--quiet"]) == 0
    assert out.read_text() == text
    assert (tmp_path / "out.fa.run.json").is_file()
    assert cli.main([*words, *more, "--out", str(out), "--quiet"]) == 73


def test_prompts_come_from_a_fasta(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = {"a": random_sequence(40), "b": random_sequence(50, seed=1)}
    fasta = str(write_fasta(tmp_path / "prompts.fa", **prompts))
    words = ["generate", "--model", folder, "--prompt", fasta, "--n", "2", "--length", "10", "--include-prompt"]
    assert cli.main([*words, "--out", "-", "--quiet"]) == 0
    records = _records(capsys.readouterr().out)
    assert [name for name, *_ in records] == ["a_1", "a_2", "b_1", "b_2"]
    assert [letters[:-10] for *_, letters in records] == [prompts["a"]] * 2 + [prompts["b"]] * 2
    assert len({letters for *_, letters in records}) == 4
    assert cli.main([*words, "--out", "-", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("2 prompts, 2 sequences each")
    assert cli.main([*words, "--out", fasta, "--force"]) == 2, "an input is never replaced"


def test_a_missing_prompt_file_and_a_text_model_are_refused(
    folder: str, tmp_path: Path, model: LanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "--out", "-", "--prompt"]
    assert cli.main([*words, "missing.fa", "--model", folder]) == 65
    assert "missing.fa" in capsys.readouterr().err
    text = build_model(replace(model.config, family="h3", max_length=None, vocabulary="gpt2"))
    save_model(text, tmp_path / "text", {})
    assert cli.main([*words, "ACGT", "--model", str(tmp_path / "text")]) == 2
    assert "gpt2" in capsys.readouterr().err
