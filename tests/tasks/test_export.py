import json
import pickle
from pathlib import Path

import pytest
import torch

import dnasm
from dnasm import cli
from dnasm.config import ExportConfig
from dnasm.errors import InputError, OutputError
from dnasm.tasks import export


def test_the_best_checkpoint_is_the_runs_own_model(trained_run: Path, tmp_path: Path) -> None:
    assert cli.main(["export", "--run", str(trained_run), "--out", str(tmp_path / "model"), "--quiet"]) == 0
    mine, theirs = (
        dnasm.load(folder, device="cpu").state_dict() for folder in (tmp_path / "model", trained_run / "model")
    )
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_the_last_checkpoint_and_a_file_can_be_exported(trained_run: Path, tmp_path: Path) -> None:
    export.run(ExportConfig(run=str(trained_run), checkpoint="last", out=str(tmp_path / "a"), quiet=True))
    export.run(ExportConfig(run=str(trained_run / "checkpoints/last.ckpt"), out=str(tmp_path / "b"), quiet=True))
    for name in ("a", "b"):
        assert json.loads((tmp_path / name / "provenance.json").read_text())["steps"] == 150
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]


def test_an_output_that_exists_is_kept_unless_forced(trained_run: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    export.run(ExportConfig(run=str(trained_run), out=str(target), quiet=True))
    with pytest.raises(OutputError, match="exists"):
        export.run(ExportConfig(run=str(trained_run), out=str(target), quiet=True))
    export.run(ExportConfig(run=str(trained_run), out=str(target), quiet=True, force=True))
    (target / "config.json").unlink()
    with pytest.raises(OutputError, match=r"config\.json"):
        export.run(ExportConfig(run=str(trained_run), out=str(target), quiet=True, force=True))


class Hostile:
    """Unpickling it would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("owned"),)  # type: ignore[return-value]


def test_what_is_no_checkpoint_of_ours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}}, "foreign.ckpt")
    torch.save({"dnasm": {"schema_version": 99}}, "newer.ckpt")
    torch.save([1], "list.ckpt")
    torch.save({"dnasm": Hostile()}, "hostile.ckpt")
    Path("pickle.ckpt").write_bytes(pickle.dumps(Hostile()))
    Path("text.ckpt").write_text("no checkpoint")
    Path("empty.ckpt").touch()
    for name in ("foreign", "newer", "list", "hostile", "pickle", "text", "empty", "missing"):
        with pytest.raises(InputError, match=f"{name}.ckpt"):
            export.run(ExportConfig(run=f"{name}.ckpt", out="model"))
    assert not Path("owned").exists()
    assert not Path("model").exists()


def test_a_truncated_checkpoint_is_refused(trained_run: Path, tmp_path: Path) -> None:
    whole = (trained_run / "checkpoints/best.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.ckpt"):
        export.run(ExportConfig(run=str(tmp_path / "cut.ckpt"), out=str(tmp_path / "model")))
