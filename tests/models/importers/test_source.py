"""Reading foreign files: which one, and what in it is never executed."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from dnasm.errors import InputError
from dnasm.models.importers.source import read_source


class _Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_hostile_pickle_does_not_run(tmp_path: Path, how: str) -> None:
    trap = tmp_path / "sprung"
    content = {"state_dict": {"a": torch.zeros(1)}, "hyper_parameters": _Hostile(trap)}
    if how == "torch":
        torch.save(content, tmp_path / "weights.ckpt")
    else:
        (tmp_path / "weights.ckpt").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(InputError, match="--trust-pickle"):
        read_source(tmp_path, trust_pickle=False)
    assert not trap.exists()


def test_a_trusted_pickle_is_read(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "hyper_parameters": _Hostile(trap)}, tmp_path / "weights.ckpt")
    source = read_source(tmp_path, trust_pickle=True)
    assert source.tensors.keys() == {"a"}
    assert source.lightning
    assert trap.exists()


@pytest.mark.parametrize("data", [b"", b"nonsense", b"PK\x03\x04" + b"\0" * 40])
@pytest.mark.parametrize("trust", [False, True])
def test_damaged_files(tmp_path: Path, data: bytes, trust: bool) -> None:
    (tmp_path / "weights.ckpt").write_bytes(data)
    with pytest.raises(InputError, match=r"weights\.ckpt"):
        read_source(tmp_path, trust)


def test_a_truncated_checkpoint(tmp_path: Path) -> None:
    torch.save({"a": torch.randn(1000)}, tmp_path / "model.pt")
    data = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cannot read|damaged"):
        read_source(tmp_path, trust_pickle=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [([1], "holds a list"), ({}, "not a table of tensors"), ({"a": 1, "b": torch.zeros(1)}, "no tensors: a")],
)
def test_what_is_no_table_of_tensors(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(InputError, match=message):
        read_source(tmp_path, trust_pickle=False)


def test_a_folder_holds_one_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        read_source(tmp_path / "nowhere", trust_pickle=False)
    with pytest.raises(InputError, match=r"none of weights\.ckpt"):
        read_source(tmp_path, trust_pickle=False)
    for name in ("weights.ckpt", "model.pt"):
        torch.save({name: torch.zeros(1)}, tmp_path / name)
    with pytest.raises(InputError, match=r"found weights\.ckpt, model\.pt; name the file itself"):
        read_source(tmp_path, trust_pickle=False)
    assert "model.pt" in read_source(tmp_path / "model.pt", trust_pickle=False).tensors


def test_provenance_names_the_file_and_its_hash(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "model.pt")
    (tmp_path / "config.json").write_text('{"d_model": 3}')
    told = read_source(tmp_path, trust_pickle=False).provenance()
    assert told["source_file"] == "model.pt"
    assert told["source_sha256"] == hashlib.sha256((tmp_path / "model.pt").read_bytes()).hexdigest()
    assert told["source_config"] == {"d_model": 3}
