"""Model directories: what is written is read back bit for bit, and what is damaged is named."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dnasm.config import ModelConfig
from dnasm.errors import ConfigError, InputError, OutputError
from dnasm.models import LanguageModel, checkpoint, load, save_model

Maker = Callable[[ModelConfig], LanguageModel]


@pytest.fixture
def saved(tmp_path: Path, configs: dict[str, ModelConfig], make_model: Maker) -> Path:
    return save_model(make_model(configs["hyena"]), tmp_path / "model", {"steps": 3})


def _change_weights(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def _change_config(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v != "DROP"}))


def test_a_round_trip_is_bit_equal(model: LanguageModel, tokens: Tensor, tmp_path: Path) -> None:
    back = load(save_model(model, tmp_path / "model", {}), device="cpu")
    assert back.config == model.config
    assert not back.training
    assert torch.equal(back(tokens), model(tokens))
    for name, value in model.state_dict().items():
        assert torch.equal(value, back.state_dict()[name]), name
    assert all(hasattr(p, "_no_weight_decay") == hasattr(q, "_no_weight_decay")
               for p, q in zip(model.parameters(), back.parameters(), strict=True))  # fmt: skip


def test_the_folder_holds_four_plain_files(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "provenance.json",
    ]  # fmt: skip
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model"], "no temporary is left"
    config = json.loads((saved / "config.json").read_text())
    assert config["schema_version"] == 1
    assert config["family"] == "hyena"
    provenance = json.loads((saved / "provenance.json").read_text())
    assert provenance["steps"] == 3
    assert "dnasm_version" in provenance
    assert "`3`" in (saved / "README.md").read_text()
    assert {path.stat().st_mode & 0o777 for path in saved.iterdir()} == {0o666 & ~_umask()}


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_shared_frequencies_are_stored_once(saved: Path) -> None:
    names = load_file(saved / "model.safetensors")
    assert [name for name in names if "layers.0" in name and "freq" in name] == [
        "backbone.layers.0.mixer.filter_fn.implicit_filter.1.freq"
    ]
    assert "lm_head.weight" not in names


def test_precisions(saved: Path, tokens: Tensor) -> None:
    half, double = load(saved, "cpu", "bfloat16"), load(saved, "cpu", torch.float64)
    assert half(tokens).dtype == torch.bfloat16
    assert double(tokens).dtype == torch.float64
    again = load(save_model(double, saved.parent / "double", {}), "cpu")
    assert torch.equal(again(tokens), double(tokens)), "the stored precision is kept"


def test_an_existing_folder_is_kept_unless_replaced(
    saved: Path, configs: dict[str, ModelConfig], make_model: Maker
) -> None:
    other = make_model(configs["attention"])
    with pytest.raises(OutputError, match="exists already"):
        save_model(other, saved, {})
    assert load(saved, "cpu").config.family == "hyena"
    save_model(other, saved, {}, replace=True)
    assert load(saved, "cpu").config.family == "attention"
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model"]


def test_a_failed_write_leaves_the_old_model(
    saved: Path, configs: dict[str, ModelConfig], make_model: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OutputError, match="No space left"):
        save_model(make_model(configs["attention"]), saved, {}, replace=True)
    assert load(saved, "cpu").config.family == "hyena"
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model"]


NORM = "backbone.ln_f.weight"


def test_every_wrong_tensor_is_named_at_once(saved: Path) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        del tensors[NORM]
        tensors["extra.weight"] = torch.zeros(2)
        tensors["backbone.ln_f.bias"] = torch.zeros(31)
        tensors["backbone.layers.0.norm1.weight"][3] = float("nan")
        tensors["backbone.layers.1.norm1.weight"] = torch.zeros(32, dtype=torch.int64)

    _change_weights(saved, spoil)
    with pytest.raises(InputError) as caught:
        load(saved, "cpu")
    for part in (
        str(saved / "model.safetensors"),
        "missing backbone.ln_f.weight [32]",
        "unexpected extra.weight [2]",
        "backbone.ln_f.bias has shape [31], the configuration asks for [32]",
        "backbone.layers.0.norm1.weight holds values that are not finite",
        "backbone.layers.1.norm1.weight holds torch.int64",
    ):
        assert part in str(caught.value)
    assert caught.value.exit_code == 65


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_an_error(saved: Path, keep: int) -> None:
    data = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(data[:keep])
    with pytest.raises(InputError, match="cannot read the weights"):
        load(saved, "cpu")


def test_a_header_that_points_outside_is_an_error(saved: Path) -> None:
    header = json.dumps({NORM: {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    (saved / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"0" * 64)
    with pytest.raises(InputError, match="cannot read the weights"):
        load(saved, "cpu")


def test_a_pickle_is_not_opened(saved: Path) -> None:
    torch.save({"state_dict": {}}, saved / "model.safetensors")
    with pytest.raises(InputError, match="cannot read the weights"):
        load(saved, "cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_modle": 32}, "unknown setting 'd_modle'; did you mean 'd_model'"),
        ({"d_model": "32"}, "d_model is '32', it must be int"),
        ({"schema_version": 2}, "schema_version is 2, this dnasm reads 1"),
        ({"schema_version": "DROP"}, "schema_version is None"),
        ({"schema_version": True}, "schema_version is True"),
        ({"max_length": None}, "max_length is null"),
    ],
)
def test_configurations_are_checked(saved: Path, changes: dict[str, Any], message: str) -> None:
    _change_config(saved, **changes)
    with pytest.raises(ConfigError, match=message):
        load(saved, "cpu")


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000, "\xff"])
def test_what_is_no_json_object_is_an_error(saved: Path, text: str) -> None:
    (saved / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"config\.json"):
        load(saved, "cpu")


def test_what_is_no_model_directory_is_named(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no model directory"):
        load(tmp_path / "nowhere", "cpu")
    with pytest.raises(InputError, match="no model directory"):
        load(saved / "config.json", "cpu")
    (saved / "config.json").unlink()
    with pytest.raises(InputError, match="No such file or directory; is this a model directory"):
        load(saved, "cpu")


def test_a_hub_name_is_looked_up_where_no_folder_is(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(saved)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    assert load("someone/dna-model", "cpu").config.family == "hyena"
    assert asked == [("someone/dna-model", ["config.json", "model.safetensors", "README.md", "provenance.json"])]


@pytest.mark.parametrize(("device", "message"), [("gpu", "none of auto, cpu"), ("cuda:99", "PyTorch sees")])
def test_devices_that_are_not_there(saved: Path, device: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(saved, device)


@pytest.mark.parametrize("dtype", ["int8", "load", torch.int64, "float99"])
def test_precisions_that_are_none(saved: Path, dtype: Any) -> None:
    with pytest.raises(ConfigError, match="dtype"):
        load(saved, "cpu", dtype)
