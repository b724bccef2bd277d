"""The example that `dnasm VERB --help` names works, in the folder that `make demo` leaves."""

import shlex
from pathlib import Path

import pytest

from dnasm import cli


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/demo`, as the demo makes it but for the number of steps."""
    folder = tmp_path_factory.mktemp("examples")
    words = {
        "trainer.max-steps": "2", "trainer.max-minutes": "null", "trainer.validate-every": "2",
        "trainer.markov-orders": "-1", "trainer.require-below-markov": "false", "data.validation-windows": "4",
    }  # fmt: skip
    flags = [part for name, value in words.items() for part in (f"--{name}", value)]
    out = str(folder / "runs" / "demo")
    assert cli.main(["pretrain", "--config", "dnasm:configs/demo.yaml", "--out", out, "--quiet", *flags]) == 0
    return folder


@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_the_example_of_the_help_works(
    verb: str, demo: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo)
    assert cli.main([verb, "--help"]) == 0
    example = capfd.readouterr().out.rpartition("example:\n")[2].strip()
    commands = [shlex.split(command) for command in example.split(" && ")]
    assert commands[-1][:2] == ["dnasm", verb]
    for command in commands:
        assert cli.main(command[1:]) == 0, capfd.readouterr().err
    if verb == "score":
        row = capfd.readouterr().out.splitlines()[-1].split("\t")
        assert row[8] == "ok", "an example that shows no score teaches nothing"
