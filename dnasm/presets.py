"""Named architectures, and a `ModelConfig` made of plain values that are taken on no trust."""

import types
from collections.abc import Mapping
from copy import deepcopy
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dnasm.config import ModelConfig
from dnasm.errors import ConfigError


def preset(name: str) -> ModelConfig:
    """Return a named architecture of `presets.yaml`.

    Raises:
        ConfigError: If there is none of that name; the message lists them.

    >>> preset("hyenadna-tiny-1k").max_length
    1026
    """
    presets = _presets()
    if name not in presets:
        raise ConfigError(f"no model preset {name!r}; there are {', '.join(presets)}")
    return model_config(presets[name], f"preset {name}")


def preset_names() -> list[str]:
    """Names that `preset` knows, in the file's order."""
    return list(_presets())


@cache
def _presets() -> dict[str, dict[str, Any]]:
    import yaml

    return yaml.safe_load(Path(__file__).with_name("presets.yaml").read_text())


def model_config(values: Mapping[str, Any], where: str) -> ModelConfig:
    """Make a ModelConfig of plain values, as a file holds them, and take nothing on trust.

    Args:
        values: Field names and values; fields that are left out take their defaults.
        where: Where they stand, for the message.

    Raises:
        ConfigError: If a key is unknown or a value has the wrong type; the message names both.
    """
    hints = get_type_hints(ModelConfig)
    fields: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            near = get_close_matches(key, hints, 1)
            raise ConfigError(f"{where}: unknown setting {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        if not _fits(value, hints[key]):
            raise ConfigError(f"{where}: {key} is {value!r}, it must be {_type_name(hints[key])}")
        fields[key] = float(value) if hints[key] is float else deepcopy(value)
    return ModelConfig(**fields)


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(item, get_args(hint)[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _type_name(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(repr(value) for value in get_args(hint))
    return hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint)
