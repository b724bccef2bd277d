"""`dnasm pretrain` with settings and files that cannot work: code, message, and an untouched folder."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dnasm import cli
from tests.tasks.runs import patchy_letters, write_config, write_fasta

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
LINE = "train\t{}\t{}\n"


@dataclass
class Case:
    """Flags on top of a configuration that works, and what must come of them."""

    code: int
    words: list[str]
    flags: list[str] = field(default_factory=list)
    yaml: str = ""
    """More lines of the configuration."""
    files: dict[str, str] = field(default_factory=dict)


def genome(**settings: str) -> list[str]:
    text = ", ".join(f"{name}: {value}" for name, value in settings.items())
    return ["--data.genomes", f"[{{path: g.fa, {text}}}]"]


CASES = {
    "unknown key": Case(2, ["c.yaml", "trainer.max_step", "trainer.max_steps"], yaml="  max_step: 3\n"),
    "unknown flag": Case(2, ["--data.windw", "--data.window"], ["--data.windw", "3"]),
    "wrong type": Case(2, ["--data.window", "whole number", "wide"], ["--data.window", "wide"]),
    "missing config": Case(2, ["none.yaml"], ["--config", "none.yaml"]),
    "unknown preset": Case(2, ["huge", "tiny"], ["--model.preset", "huge"]),
    "output exists": Case(73, ["kept", "--force"], ["--out", "kept"], files={"kept/notes.txt": "mine"}),
    "output is a file": Case(73, ["file.txt"], ["--out", "file.txt"], files={"file.txt": "mine"}),
    "output below a file": Case(73, ["file.txt"], ["--out", "file.txt/run"], files={"file.txt": "mine"}),
    "missing genome": Case(65, ["none.fa"], ["--data.genomes", "[{path: none.fa, validation: [held]}]"]),
    "window longer than every contig": Case(
        65, ["90000", "70000", "g.fa"], ["--data.window", "90000", "--model.max-length", "90000"]
    ),
    "window longer than the model": Case(2, ["128", "max_length", "64"], ["--data.window", "128"]),
    "unknown validation contig": Case(2, ["chrIX", "held"], genome(validation="[chrIX]")),
    "unknown contig in BED": Case(
        65, ["v.bed", "line 2", "chrIX"], genome(validation_bed="v.bed"),
        files={"v.bed": LINE.format(0, 9000) + "chrIX\t0\t9\n"},
    ),
    "BED past the end": Case(
        65, ["v.bed", "line 1", "70,000"], genome(validation_bed="v.bed"), files={"v.bed": LINE.format(0, 80_000)}
    ),
    "BED backwards": Case(65, ["v.bed:1"], genome(validation_bed="v.bed"), files={"v.bed": LINE.format(9, 3)}),
    "BED is empty": Case(65, ["v.bed"], genome(validation_bed="v.bed"), files={"v.bed": ""}),
    "BED is missing": Case(65, ["none.bed"], genome(validation_bed="none.bed")),
    "splits overlap": Case(2, ["held", "overlap"], genome(validation="[held]", test="[held]")),
    "no validation": Case(2, ["validation"], ["--data.genomes", "[{path: g.fa}]"]),
    "no GPU of that number": Case(2, ["cuda:77"], ["--device", "cuda:77"]),
}  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of the folder; token stores aside, which any reading of a genome builds."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and ".dnasm" not in str(path))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def write_inputs(folder: Path, case: Case) -> list[str]:
    """Fill a folder; return the command line, for that folder."""
    fasta = write_fasta(folder / "g.fa", {"train": patchy_letters(70_000, 0), "held": patchy_letters(5000, 1)})
    config = write_config(folder / "c.yaml", Path(fasta.name), max_steps=2, validate_every=2)
    config.write_text(config.read_text() + case.yaml)
    for name, text in case.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return ["pretrain", "--config", "c.yaml", "--out", "run", *case.flags]


def check(case: Case, code: int, out: str, err: str) -> None:
    assert code == case.code, err
    last = err.splitlines()[-1]
    assert last.startswith("dnasm pretrain: error: ")
    for word in case.words:
        assert word in last
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize("name", list(CASES))
def test_ends_with_a_code_one_line_and_an_untouched_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = write_inputs(tmp_path, CASES[name])
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    code = cli.main(argv)
    check(CASES[name], code, *capsys.readouterr())
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "name",
    ["unknown key", "output exists", "missing genome", "window longer than every contig", "unknown contig in BED"],
)
def test_the_same_as_a_process_of_its_own(name: str, tmp_path: Path) -> None:
    argv = write_inputs(tmp_path, CASES[name])
    before = contents(tmp_path)
    command = [sys.executable, "-m", "dnasm", *argv]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=False
    )
    check(CASES[name], done.returncode, done.stdout, done.stderr)
    assert contents(tmp_path) == before


def start_long_run(folder: Path) -> "subprocess.Popen[str]":
    """Start a run of many steps and wait until it has taken some."""
    write_fasta(folder / "g.fa", {"train": patchy_letters(70_000, 0), "held": patchy_letters(5000, 1)})
    write_config(folder / "c.yaml", Path("g.fa"), max_steps=1_000_000, validate_every=50, markov_orders=1)
    command = [sys.executable, "-m", "dnasm", "pretrain", "--config", "c.yaml", "--out", "run"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    deadline = time.monotonic() + 120
    while not (folder / "run/checkpoints/best.ckpt").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no checkpoint after two minutes"
        time.sleep(0.1)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_so_and_keeps_its_checkpoints(number: signal.Signals, code: int, tmp_path: Path) -> None:
    process = start_long_run(tmp_path)
    process.send_signal(number)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert err.splitlines()[-1] in ("dnasm pretrain: interrupted", "dnasm pretrain: terminated")
    names = {path.name for path in (tmp_path / "run/checkpoints").iterdir()}
    assert "best.ckpt" in names
    assert names <= {"best.ckpt", "last.ckpt"}  # no draft is left
