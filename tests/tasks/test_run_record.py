import hashlib
import json
from datetime import timedelta
from pathlib import Path

import pytest

import dnasm
from dnasm.config import PrepareConfig
from dnasm.tasks import run_record
from dnasm.tasks.run_record import describe_file, git_state, now, versions, write_run_json, write_text


def test_a_record_says_what_made_an_output(tmp_path: Path) -> None:
    source = tmp_path / "g.fa"
    source.write_text(">a\nACGT\n")
    started = now() - timedelta(seconds=5)
    config = PrepareConfig(genome=str(source))
    write_run_json(tmp_path / "run.json", config, inputs=[source], counts={"skipped": 3}, started=started)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["counts"] == {"skipped": 3}
    assert record["config"]["genome"] == str(source)
    assert 5 <= record["seconds"] < 60
    assert record["versions"]["dnasm"] == dnasm.__version__
    (described,) = record["inputs"]
    assert described["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert {path.name for path in tmp_path.iterdir()} == {"g.fa", "run.json"}


def test_large_files_are_hashed_in_three_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_record, "_WHOLE_FILE_BYTES", 100)
    monkeypatch.setattr(run_record, "_SAMPLE_BYTES", 10)
    path = tmp_path / "large"
    hashes = set()
    for changed in (None, 0, 105, 199, 30):
        content = bytearray(200)
        if changed is not None:
            content[changed] = 1
        path.write_bytes(content)
        hashes.add(describe_file(path)["sha256_of_head_middle_tail"])
    assert len(hashes) == 4  # the byte at 30 lies between the samples
    assert "sha256" not in describe_file(path)


def test_what_is_no_file_is_named_alone() -> None:
    assert describe_file(Path("-")) == {"path": "-"}


def test_a_failed_write_leaves_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.json"
    write_text(target, "old")

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_commit_is_known_in_a_checkout_and_absent_elsewhere(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (root / ".git").exists():
        state = git_state()
        assert state is not None
        assert len(state["commit"]) == 40
    monkeypatch.setattr(dnasm, "__file__", str(tmp_path / "site-packages/dnasm/__init__.py"))
    assert git_state() is None


def test_a_package_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_record, "_PACKAGES", ("numpy", "no-such-package"))
    assert versions()["no-such-package"] == "not installed"
