"""The command line: what it accepts, what it refuses and how it ends."""

import importlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

import dnasm
from dnasm import arguments, cli, config, presets
from dnasm.arguments import build_parser, fill, nearest, read_arguments
from dnasm.errors import ConfigError, DnasmError, InputError, OutputError
from dnasm.resources import resource


@cache
def parser(kind: type[Any]) -> ArgumentParser:
    return build_parser(kind, "dnasm verb", [], "dnasm verb")


def parse(kind: type[Any], *argv: str) -> Any:
    return fill(kind, parser(kind), read_arguments(argv, kind, []))


def pretrain(*argv: str) -> config.PretrainConfig:
    return parse(config.PretrainConfig, "--out", "run", *argv)


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


# Settings


def test_defaults_are_the_dataclass() -> None:
    assert pretrain() == config.PretrainConfig(out="run")


def test_hyphens_and_underscores_and_equals_signs_mean_the_same() -> None:
    forms = (["--model.d-model", "64"], ["--model.d_model", "64"], ["--model.d-model=64"], ["--model.d_model=64"])
    assert {pretrain(*form).model.d_model for form in forms} == {64}


def test_yes_or_no_settings_are_flags() -> None:
    assert pretrain("--force").force is True
    assert pretrain("--force", "true", "--no-force").force is False
    assert pretrain("--model.tie-embeddings", "false").model.tie_embeddings is False
    assert pretrain("--dry-run", "--seed", "3") == config.PretrainConfig(out="run", dry_run=True, seed=3)


def test_values_are_read_by_their_type() -> None:
    filled = pretrain("--trainer.max-minutes", "null", "--optim.betas", "[0.9, 0.95]", "--optim.lr", "6e-4")
    assert filled.trainer.max_minutes is None
    assert filled.optim.betas == (0.9, 0.95)
    assert filled.optim.lr == 6e-4
    genomes = "[{path: a.fa, validation: [chrI]}]"
    (genome,) = pretrain("--data.genomes", genomes).data.genomes
    assert genome == config.GenomeConfig(path="a.fa", validation=["chrI"])


def test_yaml_lies_below_flags_and_above_the_preset(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "seed: 5\nmodel: {preset: small, num-layers: 3}\noptim: {lr: 6e-4}\n")
    filled = pretrain("--config", file, "--model.num-heads", "2", "--seed", "6")
    small = presets.preset("small")
    assert filled.seed == 6
    assert filled.optim.lr == 6e-4
    assert (filled.model.d_model, filled.model.max_length) == (small.d_model, small.max_length)
    assert (filled.model.num_layers, filled.model.num_heads) == (3, 2)


def test_a_preset_flag_takes_the_place_of_the_files(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "model: {preset: small, num_layers: 3}\n")
    filled = pretrain("--config", file, "--model.preset", "h3-tiny")
    assert (filled.model.family, filled.model.d_model, filled.model.num_layers) == ("h3", 128, 3)


def test_of_two_files_the_later_wins(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", "seed: 1\ndata: {window: 8, batch_size: 2}\n")
    second = write(tmp_path / "b.yaml", "data: {window: 16}\n")
    filled = pretrain("--config", first, "--config", second)
    assert (filled.seed, filled.data.window, filled.data.batch_size) == (1, 16, 2)


def test_shipped_files_are_found_by_their_prefix() -> None:
    filled = parse(config.PrepareConfig, "--genome", "dnasm:presets.yaml")
    assert filled.genome == str(resource("presets.yaml"))
    with pytest.raises(InputError, match="no-such-file"):
        parse(config.PrepareConfig, "--genome", "dnasm:data/no-such-file")


def test_print_config_reads_back_to_the_same_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--out", "run", "--model.preset", "tiny", "--optim.lr", "1e-5", "--data.genomes", "[{path: '1e3'}]"]
    assert cli.main(["pretrain", *flags, "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert "preset" not in printed
    assert parse(config.PretrainConfig, "--config", write(tmp_path / "c.yaml", printed)) == parse(
        config.PretrainConfig, *flags
    )


@dataclass(kw_only=True)
class Text:
    """A config of one line of text."""

    text: str
    more: list[str] = field(default_factory=list)


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=8))
def test_any_text_survives_yaml(text: str) -> None:
    tree = yaml.load(config.to_yaml(Text(text=text, more=[text])), Loader=arguments._Loader)
    assert tree == {"text": text, "more": [text]}


# What is refused


@pytest.mark.parametrize(
    ("flag", "near"),
    [
        ("--data.windw", "--data.window"),
        ("--window", "--data.window"),
        ("--batch-size", "--data.batch-size"),
        ("--model.dmodel", "--model.d-model"),
        ("--forse", "--force"),
        ("--model.prest", "--model.preset"),
    ],
)
def test_unknown_flag_names_the_nearest(flag: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pretrain(flag, "3")
    assert str(caught.value) == f"unknown flag {flag}; the nearest is {near}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: {windw: 3}", ["data.windw", "data.window"]),
        ("windows: 3", ["windows", "data.window"]),
        ("data: {genomes: [{path: a, validaton: [chrI]}]}", ["data.genomes.validaton", "data.genomes.validation"]),
        ("model: {class_path: os.system}", ["model.class_path"]),
        ("data: {genomes: [{class_path: os.system}]}", ["data.genomes.class_path"]),
        ("data: 3", ["data", "mapping"]),
        ("- 1", ["mapping"]),
        ("data: {window: abc}", ["data.window", "whole number", "abc"]),
        ("data: {window: null}", ["data.window", "null"]),
        ("data: {genomes: [{path: a, validation: chrI}]}", ["data.genomes.validation", "list"]),
        ("seed: !!python/object/apply:os.system ['true']", ["python/object"]),
        ("seed: 1\nseed: 2", ["'seed' occurs twice"]),
        ("data: &x {window: 3}\nmodel: *x", ["aliases"]),
        ("data: {window: 3", ["no YAML"]),
        ("[" * 5000, ["no YAML"]),
    ],
)
def test_bad_yaml_is_refused_with_its_file(text: str, words: list[str], tmp_path: Path) -> None:
    file = write(tmp_path / "bad.yaml", text)
    with pytest.raises(ConfigError) as caught:
        pretrain("--config", file)
    for word in (file, *words):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--data.window", "abc"], ["--data.window", "whole number", "abc"]),
        (["--model.family", "rnn"], ["--model.family", "hyena", "rnn"]),
        (["--data.window"], ["--data.window needs a value"]),
        (["--data.window", "--force"], ["--data.window needs a value"]),
        (["stray"], ["stray"]),
        (["--config", "none.yaml"], ["none.yaml", "No such file"]),
        (["--config", "https://example.org/a.yaml"], ["no URLs"]),
        (["--config", "."], ["directory"]),
        (["--data.genomes", "[{path: a, wieght: 1}]"], ["--data.genomes", "wieght", "data.genomes.weight"]),
        (["--data.genomes", "[{weight: 1}]"], ["--data.genomes", "lacks its path"]),
        (["--data.genomes", "[{path: a, validation: null}]"], ["data.genomes.validation", "null"]),
        (["--data.genomes", "[{"], ["--data.genomes", "no YAML"]),
        (["--data.window", "null"], ["--data.window needs a value"]),
        (["--data.genomes", "[{path: null}]"], ["--data.genomes:", "data.genomes.path", "null"]),
        (["--data.genomes", "[{class_path: os.system}]"], ["--data.genomes", "class_path"]),
        (["--model.preset", "huge"], ["huge", "tiny"]),
    ],
)
def test_bad_flags_are_refused(argv: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        pretrain(*argv)
    for word in words:
        assert word in str(caught.value)


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^--out is missing; give it as"):
        parse(config.PretrainConfig)
    with pytest.raises(ConfigError, match=r"^--model, --regions, --out are missing; give them as"):
        parse(config.EmbedConfig)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("batch_size=x", "--batch-size: expected a whole number or one of auto, got x"),
        ("stride=1.5", "--stride: expected a whole number or null, got 1.5"),
        ("pool=median", "--pool: expected one of mean, max, last, centre, none, got median"),
        ("quiet=maybe", "--quiet: expected true or false, got maybe"),
    ],
)
def test_a_value_of_another_kind_is_told_in_words(setting: str, said: str) -> None:
    name, _, value = setting.partition("=")
    with pytest.raises(ConfigError) as caught:
        parse(config.EmbedConfig, "--model", "m", "--regions", "r", "--out", "o", f"--{name}={value}")
    assert str(caught.value) == said


def test_a_config_of_over_a_megabyte_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 MB"):
        pretrain("--config", write(tmp_path / "big.yaml", "#" * 1_000_001))


def test_nearest_prefers_the_same_last_part() -> None:
    assert nearest("lr", arguments.settings(config.PretrainConfig)) == "optim.lr"


# Verbs


def test_every_verb_has_its_config_and_task() -> None:
    for name, verb in cli.VERBS.items():
        assert hasattr(config, verb.config), name
        assert callable(importlib.import_module(f"dnasm.tasks.{verb.module}").run), name


def test_every_task_with_a_config_is_a_verb() -> None:
    configs = {name for name in vars(config) if name.endswith("Config")}
    inner = {"GenomeConfig", "DataConfig", "ModelConfig", "OptimConfig", "TrainerConfig", "CommonConfig"}
    assert {verb.config for verb in cli.VERBS.values()} == configs - inner


@pytest.mark.parametrize("name", list(cli.VERBS))
def test_help_lists_every_setting_and_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    verb = cli.VERBS[name]
    for setting in arguments.settings(getattr(config, verb.config)):
        assert f"--{setting.replace('_', '-')} " in text
    assert text.rstrip().endswith(f"example:\n  {verb.example}")
    words = verb.example.split(" && ")[-1].split()  # what comes before makes an input
    assert words[:2] == ["dnasm", name]
    argv = words[2:]
    kind = getattr(config, verb.config)
    fill(kind, parser(kind), read_arguments(argv, kind, verb.positionals))


def test_help_begins_with_what_the_verb_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["embed", "--help"]) == 0
    options = capsys.readouterr().out.partition("options:")[2]
    assert (
        options.index("--model ") < options.index("--out ") < options.index("--device ") < options.index("--dry-run ")
    )


def test_overview_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in cli.VERBS)
    assert cli.main([]) == 2
    assert capsys.readouterr().err == text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dnasm {dnasm.__version__}\n"


def test_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretain"]) == 2
    assert capsys.readouterr().err.startswith("dnasm pretain: error: there is no such verb; the nearest is pretrain")


def test_prepare_takes_the_genome_without_its_name() -> None:
    given = read_arguments(["a.fa", "--strict"], config.PrepareConfig, ["genome"])
    assert given.flags == {"genome": "a.fa", "strict": "true"}


# How a command ends


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("two\n  lines"), 2, "dnasm doctor: error: two lines\n"),
        (InputError("x.fa"), 65, "dnasm doctor: error: x.fa\n"),
        (OutputError("run exists"), 73, "dnasm doctor: error: run exists\n"),
        (DnasmError("else"), 1, "dnasm doctor: error: else\n"),
        (OSError(28, "No space left on device"), 74, "dnasm doctor: error: cannot write: [Errno 28]"),
        (KeyboardInterrupt(), 130, "dnasm doctor: interrupted\n"),
    ],
)
def test_errors_become_one_line_and_a_code(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(cli, "run_verb", fail)
    assert cli.main(["doctor"]) == code
    assert capsys.readouterr().err.startswith(message)


def test_a_bug_is_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "run_verb", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["doctor"])


def test_sigterm_ends_with_143_and_cleans_up(tmp_path: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from dnasm import cli
def wait(*args):
    try:
        Path("begun").touch()
        time.sleep(60)
    finally:
        Path("cleaned").touch()
cli.run_verb = wait
sys.exit(cli.main(["doctor"]))
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "begun").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[1] == "dnasm doctor: terminated\n"
    assert process.returncode == 143
    assert (tmp_path / "cleaned").exists()


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    script = (
        "import sys; from dnasm import cli; cli.run_verb = lambda *a: print('x' * 1000000); sys.exit(cli.main(['x']))"
    )
    command = f'{sys.executable} -c "{script}" | true; echo ${{PIPESTATUS[0]}}'
    outcome = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert (outcome.stdout, outcome.stderr) == ("141\n", "")


def test_help_imports_neither_torch_nor_jsonargparse() -> None:
    script = (
        "import sys; from dnasm.cli import main; main(['--help']); "
        "sys.exit(', '.join({'torch', 'lightning', 'jsonargparse', 'numpy'} & set(sys.modules)) or 0)"
    )
    outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr


def test_help_of_a_verb_imports_no_torch() -> None:
    script = "import sys; from dnasm.cli import main; main(['pretrain', '--help']); sys.exit('torch' in sys.modules)"
    outcome = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, env={**os.environ, "COLUMNS": "100"}
    )
    assert outcome.returncode == 0


def test_python_dash_m_is_the_command() -> None:
    outcome = subprocess.run([sys.executable, "-m", "dnasm", "--version"], capture_output=True, text=True, check=True)
    assert outcome.stdout == f"dnasm {dnasm.__version__}\n"
