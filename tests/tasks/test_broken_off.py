"""A disk that fills up and a hand on Ctrl-C leave no half of an output, whatever its format."""

from pathlib import Path

import pytest

from dnasm import cli
from dnasm.genome import Genome
from dnasm.models.checkpoint import save_model
from dnasm.tasks.progress import Meter

from .scoring import random_sequence, small_model, write_fasta

COMMANDS = {
    "o.bw": "likelihood --genome g.fa --model m",
    "o.bedgraph": "likelihood --genome g.fa --model m",
    "o.npz": "embed --regions g.fa --window 10 --model m",
    "o.parquet": "embed --regions g.fa --window 10 --model m",
    "o.h5ad": "embed --regions g.fa --window 10 --model m",
    "o.zarr": "embed --regions g.fa --window 10 --model m",
    "o.tsv": "mutagenesis --genome g.fa --region c:1-60 --window 16 --model m",
    "o.fa": "generate --prompt ACGT --n 60 --length 150 --model m",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared genome of 3,000 bases and a model."""
    folder = tmp_path_factory.mktemp("inputs")
    Genome(write_fasta(folder / "g.fa", c=random_sequence(3000)), quiet=True)
    save_model(small_model(max_length=256), folder / "m", {})
    (folder / "t.bedgraph").write_text("".join(f"c\t{i}\t{i + 1}\t-1.3\n" for i in range(50)))
    return folder


def _run(folder: Path, command: str, out: Path) -> int:
    words = [str(folder / word) if (folder / word).exists() else word for word in command.split()]
    return cli.main([*words, "--out", str(out), "--quiet"])


@pytest.mark.parametrize("out", COMMANDS)
def test_a_full_disk_leaves_nothing(
    out: str, folder: Path, tmp_path: Path, full_disk: None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _run(folder, COMMANDS[out], tmp_path / out) == 73
    said = capfd.readouterr().err
    assert f"{tmp_path / out} cannot be written" in " ".join(said.split())
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_page_and_no_picture(
    folder: Path, tmp_path: Path, full_disk: None, capfd: pytest.CaptureFixture[str]
) -> None:
    tracks = ["report", "--tracks", f"[{folder / 't.bedgraph'}]", "--out", str(tmp_path / "o.html"), "--quiet"]
    assert cli.main(tracks) == 73
    assert not list(tmp_path.iterdir())
    small = COMMANDS["o.tsv"].replace("1-60", "1-9")
    assert _run(folder, f"{small} --picture {tmp_path / 'p'}", tmp_path / "o.tsv") == 73
    assert f"the table {tmp_path / 'o.tsv'} is whole, the picture is not" in " ".join(capfd.readouterr().err.split())
    assert {path.name for path in tmp_path.iterdir()} == {"o.tsv", "o.tsv.run.json"}


@pytest.mark.parametrize("out", COMMANDS)
def test_who_interrupts_finds_nothing(out: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Meter, count: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Meter, "advance", interrupt)
    assert _run(folder, COMMANDS[out], tmp_path / out) == 130
    assert not list(tmp_path.iterdir())
