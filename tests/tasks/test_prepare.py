import io
import sys
from pathlib import Path

import pytest

from dnasm.config import PrepareConfig
from dnasm.errors import InputError
from dnasm.genome import progress
from dnasm.genome.progress import show_progress
from dnasm.tasks import prepare

TEXT = ">one\nACGTNNacRR\n>two\nTTTT\n"


@pytest.fixture
def fa(tmp_path: Path) -> str:
    (tmp_path / "x.fa").write_text(TEXT)
    return str(tmp_path / "x.fa")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_table_goes_to_standard_output_and_talk_to_standard_error(fa: str, capsys: pytest.CaptureFixture[str]) -> None:
    prepare.run(PrepareConfig(genome=fa))
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "contig\tlength\tn\tsoft_masked\tother\tletters",
        "one\t10\t2\t2\t2\tR=2",
        "two\t4\t0\t0\t0\t.",
    ]
    assert f"{fa}: contigs 2, bases 14, N 2, soft-masked 2, other letters, read as N, 2 (R 2)" in err
    assert f"{fa}.dnasm: built in" in err
    prepare.run(PrepareConfig(genome=fa))
    again = capsys.readouterr()
    assert again.out == out
    assert f"{fa}.dnasm: up to date" in again.err


def test_quiet_says_nothing(fa: str, capsys: pytest.CaptureFixture[str]) -> None:
    prepare.run(PrepareConfig(genome=fa, quiet=True))
    assert capsys.readouterr() == ("", "")
    assert Path(f"{fa}.dnasm/tokens.u8").stat().st_size == 14


def test_rna_and_strict_reach_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.fa").write_text(">r\nACGU")
    prepare.run(PrepareConfig(genome=str(tmp_path / "r.fa"), rna=True))
    assert "r\t4\t0\t0\t0\t." in capsys.readouterr().out
    prepare.run(PrepareConfig(genome=str(tmp_path / "r.fa")))
    assert "r\t4\t0\t0\t1\tU=1" in capsys.readouterr().out
    with pytest.raises(InputError, match="no line end"):
        prepare.run(PrepareConfig(genome=str(tmp_path / "r.fa"), strict=True))


def test_a_terminal_gets_a_table_of_bounded_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.fa").write_text("".join(f">contig_{i}\nACGT\n" for i in range(prepare.SHOWN + 7)))
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    prepare.run(PrepareConfig(genome=str(tmp_path / "x.fa")))
    shown = terminal.getvalue()
    assert f"contig_{prepare.SHOWN - 1} " in shown
    assert f"contig_{prepare.SHOWN} " not in shown
    assert "... and 7 more contigs" in shown


def test_a_terminal_gets_a_bar(fa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with show_progress(Path(fa)) as update:
        assert update is not None
        update(50, 100, 3_000_000)
    assert "preparing x.fa" in terminal.getvalue()
    assert "Mb/s" in terminal.getvalue()


def test_elsewhere_lines_come_now_and_then(
    fa: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 0.0, 5.0, 10.0, 12.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with show_progress(Path(fa)) as update:
        assert update is not None
        for done in range(10, 60, 10):
            update(done, 100, done * 10**6)
    assert capsys.readouterr().err.splitlines() == [
        f"preparing {fa} (100 bytes)",
        "30%, 3 Mb/s, 23 s left",
        "50%, 2 Mb/s, 20 s left",
    ]
