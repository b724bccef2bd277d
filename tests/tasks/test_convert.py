"""`dnasm import` and `dnasm export --format hyenadna` as commands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import dnasm
from dnasm import cli
from dnasm.models import build_model
from dnasm.models.checkpoint import save_model
from dnasm.models.importers import export_hyenadna
from dnasm.presets import model_config
from dnasm.tasks import convert


def _dnasm(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dnasm", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_from_a_published_layout_to_a_model_and_back(shared: Path, tmp_path: Path) -> None:
    golden = shared / "golden" / "hyenadna-tiny-1k"
    done = _dnasm("import", "hyenadna", golden, "--out", tmp_path / "model")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "modulation_shift 0.05" in done.stderr
    assert "436,096 parameters" in done.stderr
    tensors = load_file(golden / "golden.safetensors")
    model = dnasm.load(tmp_path / "model", device="cpu")
    torch.testing.assert_close(model(tensors["input_ids_64"]), tensors["logits_64"], atol=1e-4, rtol=0)
    provenance = json.loads((tmp_path / "model" / "provenance.json").read_text())
    assert provenance["importer"] == "hyenadna"
    assert len(provenance["source_sha256"]) == 64
    assert provenance["source_config"]["layer"]["l_max"] == 1026

    done = _dnasm("export", "--run", tmp_path / "model", "--format", "hyenadna", "--out", tmp_path / "official")
    assert done.returncode == 0, done.stderr
    original = torch.load(golden / "weights.ckpt", weights_only=True)["state_dict"]
    written = torch.load(tmp_path / "official" / "weights.ckpt", weights_only=True)["state_dict"]
    assert written.keys() == original.keys()
    assert all(torch.equal(written[name], original[name]) for name in original)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["hyenadna", "nowhere", "--out", "m"], 65, "nowhere: no such file or folder"),
        (["hyenadna", "nowhere", "--out", "m", "--num-heads", "4"], 2, "--num-heads has no meaning for hyenadna"),
        (["h3", "nowhere", "--out", "m", "--modulation-shift", "0"], 2, "--modulation-shift has no meaning for h3"),
        (["evo", "nowhere", "--out", "m"], 2, "evo"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = _dnasm("import", *words)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A small checkpoint in HyenaDNA's layout, and beside it the same model in ours."""
    small = {"d_model": 32, "num_layers": 1, "d_inner": 64, "max_length": 200, "suffix_separator": True}
    model = build_model(model_config(small, "here"))
    save_model(model, tmp_path / "ours", {})
    return export_hyenadna(model, tmp_path / "official")


@pytest.mark.parametrize("verb", ["import", "export"])
def test_a_full_disk_leaves_what_was_there(
    official: Path, full_disk: None, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = sorted(tmp_path.rglob("*"))
    source, target, old = {
        "import": (["hyenadna", str(official)], "ours", "model.safetensors"),
        "export": (["--run", str(tmp_path / "ours"), "--format", "hyenadna"], "official", "weights.ckpt"),
    }[verb]
    held = (tmp_path / target / old).read_bytes()
    for out in (["--out", str(tmp_path / "new")], ["--out", str(tmp_path / target), "--force"]):
        assert cli.main([verb, *source, *out]) == 73
        assert "cannot write this folder" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == there
    assert (tmp_path / target / old).read_bytes() == held


def test_a_large_file_is_announced(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["import", "hyenadna", str(official), "--out"]
    assert cli.main([*words, str(tmp_path / "a")]) == 0
    assert "reading" not in capsys.readouterr().err
    monkeypatch.setattr(convert, "_LARGE", 1000)
    assert cli.main([*words, str(tmp_path / "b")]) == 0
    assert capsys.readouterr().err.startswith(f"reading {official / 'weights.ckpt'} (0.0 GB) ...\n")
    assert cli.main([*words, str(tmp_path / "c"), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("how", ["truncated", "a key is missing", "a key is unknown", "config"])
def test_a_checkpoint_that_does_not_fit_leaves_nothing(
    official: Path, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, config = official / "weights.ckpt", official / "config.json"
    content = torch.load(weights, weights_only=True)
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
        message = "weights.ckpt"
    elif how == "config":
        config.write_text(config.read_text().replace('"n_layer": 1', '"n_layer": 2'))
        message = "n_layer is 2, the weights show 1"
    elif how == "a key is missing":
        del content["state_dict"]["model.backbone.layers.0.norm1.bias"]
        torch.save(content, weights)
        message = "missing backbone.layers.0.norm1.bias [32]"
    else:
        content["state_dict"]["model.decoder.bias"] = torch.zeros(3)
        torch.save(content, weights)
        message = "unexpected decoder.bias [3]"
    there = sorted(tmp_path.iterdir())
    assert cli.main(["import", "hyenadna", str(official), "--out", str(tmp_path / "new")]) == 65
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == there
