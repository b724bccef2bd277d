"""How far a command is: on a terminal and elsewhere with the rate and the time that is left."""

import re
import sys

import pytest

from dnasm.tasks.progress import Meter

STATUS = r"60 of 100 bases, [\d.,]+/s, \d+:\d\d left"


def test_a_terminal_sees_a_bar_with_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with Meter("likelihood", "bases", 100) as meter:
        meter.advance(60)
    said = capsys.readouterr()
    assert re.search(rf"likelihood .*{STATUS}", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", said.err))
    assert not said.out


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("dnasm.tasks.progress._SECONDS_BETWEEN_LINES", 0.0)
    with Meter("likelihood", "bases", 100) as meter, Meter("score", "alleles", None, quiet=True) as silent:
        meter.advance(60)
        silent.advance(3)
    said = capsys.readouterr()
    assert re.fullmatch(rf"likelihood: {STATUS}\n", said.err)
    assert not said.out
