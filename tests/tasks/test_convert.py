"""`dnasm import` and `dnasm export --format hyenadna` as commands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import dnasm


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
