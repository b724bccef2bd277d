import json
from pathlib import Path

import pytest
import torch

from dnasm import cli
from dnasm.errors import BackendUnavailable
from dnasm.tasks import doctor


def findings(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, dict[str, str]]:
    assert cli.main(["doctor", "--json", *flags]) == 0
    return {row["what"]: row for row in json.loads(capsys.readouterr().out)}


def test_everything_that_every_user_needs_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    found = findings(capsys)
    assert {
        "python",
        "dnasm",
        "torch",
        "GPU",
        "g++",
        "nvcc",
        "cache",
        "disk",
        "fftconv cpu",
        "fftconv cuda",
    } <= found.keys()
    assert found["torch"]["found"] == torch.__version__
    assert found["fftconv cpu"]["state"] == "ok"
    assert not any(row["state"] == "broken" for row in found.values())


def test_the_table_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:3] == ["ok", "torch", torch.__version__] for line in lines)


def test_no_compiler_is_something_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = findings(capsys)
    assert found["g++"]["state"] == "missing"
    assert "apt install g++" in found["g++"]["advice"]


def test_a_missing_extra_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(doctor._EXTRAS, "tables", ("pyarrow", "no_such_module"))
    row = findings(capsys)["[tables]"]
    assert (row["state"], row["advice"]) == ("missing", "pip install 'dnasm[tables]'")
    assert "no_such_module" in row["found"]


def test_wrong_numbers_are_broken(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.fftconv

    def shifted(u: torch.Tensor, k: torch.Tensor, *, backend: str) -> torch.Tensor:
        y = real(u, k, backend=backend)
        return y if backend == "reference" else y.roll(1, -1)

    monkeypatch.setattr(doctor, "fftconv", shifted)
    assert cli.main(["doctor"]) == 1
    said = capsys.readouterr()
    assert "broken   fftconv cpu" in said.out
    assert said.err.startswith("dnasm doctor: error: fftconv cpu")


def test_a_backend_that_cannot_run_says_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*args: object, **options: object) -> None:
        raise BackendUnavailable("no compiler anywhere")

    monkeypatch.setattr(doctor, "fftconv", unavailable)
    row = findings(capsys)["fftconv cpu"]
    assert (row["state"], row["found"]) == ("missing", "no compiler anywhere")


def test_little_room_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 10**9})())
    assert findings(capsys)["disk"]["state"] == "missing"


def test_builds_are_asked_for_with_their_architecture(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(doctor, "build_cuda", lambda architectures, progress: asked.append(architectures))
    findings(capsys, "--build", "--architectures", "[sm_90, sm_80]")
    assert asked == [["sm_90", "sm_80"]]
    assert cli.main(["doctor", "--architectures", "[sm_90]"]) == 2
    assert "--build" in capsys.readouterr().err
