"""Arguments and YAML -> one filled config dataclass, or an error that names the setting, its place and the nearest one.

The order is: the dataclass's defaults, the preset, the YAML files in the order given, the flags. Nothing here imports
code that a config names: keys come from the dataclasses alone, and YAML is read without tags and aliases.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass, replace
from difflib import SequenceMatcher
from types import NoneType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

from dnasm.config import FLOAT_WITHOUT_POINT, CommonConfig, ModelConfig
from dnasm.errors import ConfigError
from dnasm.presets import preset
from dnasm.resources import locate

Config = TypeVar("Config")

_MAX_YAML_BYTES = 1_000_000
_PRESET = "model.preset"

set_parsing_settings(
    docstring_parse_attribute_docstrings=True,
    # A value may name no class but the dataclasses themselves, which jsonargparse imports by name for lists of them.
    import_path_denylist=["*"],
    import_path_allowlist=["dnasm.config", "dnasm.config_training"],
)


class Given(NamedTuple):
    """What the command line says, before its values are understood."""

    flags: dict[str, str]
    configs: list[str]
    print_config: bool


class _Formatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Flags as users type them, with hyphens; an example that is not broken into lines."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        text = super()._format_action_invocation(action)
        return re.sub(r"--[\w.]+", lambda match: match[0].replace("_", "-"), text)


class _Loader(yaml.SafeLoader):
    """YAML without aliases (which can swell without bound), duplicate keys and dates; `6e-4` is a number."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(None, None, "aliases (*name) are not read", self.get_mark())
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(None, None, f"key {key.value!r} occurs twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT_WITHOUT_POINT, list("-+0123456789"))


def build_parser(config: type[Any], prog: str, positionals: Sequence[str], example: str) -> ArgumentParser:
    """Make the parser of one verb, and with it the text of its `--help`."""
    required = [
        f"--{name} {name.upper()}"
        for name, kind in settings(config).items()
        if "." not in name and name not in positionals and _is_required(config, name) and not is_dataclass(kind)
    ]
    usage = " ".join([prog, *(name.upper() for name in positionals), *required, "[--config YAML] [--NAME VALUE ...]"])
    parser = ArgumentParser(
        prog=prog,
        usage=usage,
        description=config.__doc__,
        epilog=f"example:\n  {example}",
        formatter_class=_Formatter,
        exit_on_error=False,
        print_config=None,
        default_env=False,
    )
    parser.add_argument("--config", action="config", help="YAML file of settings; flags go on top. May be repeated.")
    parser.add_argument("--print-config", action="store_true", help="Print every setting as YAML and exit.")
    parser.add_class_arguments(config, nested_key=None, as_group=False)
    if _has_model(config):
        parser.add_argument(
            f"--{_PRESET}", type=str | None, help="Architecture that the other model settings change: a name."
        )
    common = {field.name for field in fields(CommonConfig)}
    for group in parser._action_groups:  # what all verbs have comes last, what this one needs first
        group._group_actions.sort(key=lambda action: action.dest in common)
    return parser


def settings(config: type[Any], prefix: str = "") -> dict[str, Any]:
    """List every setting of a config dataclass by its dotted name, sections flattened, with its type."""
    found: dict[str, Any] = {}
    for name, kind in get_type_hints(config).items():
        if is_dataclass(kind):
            found |= settings(kind, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            found[prefix + name] = kind
    return found


def read_arguments(argv: Sequence[str], config: type[Any], positionals: Sequence[str]) -> Given:
    """Sort a command line into flags, config files and positionals, without understanding the values.

    Raises:
        ConfigError: If a flag is unknown, with the nearest valid one, or lacks its value.
    """
    known = settings(config) | ({_PRESET: str} if _has_model(config) else {})
    given, places, words = Given({}, [], "--print-config" in argv), list(positionals), list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = word[2:].partition("=")
        if word == "--print-config":
            continue
        if not word.startswith("--"):
            if not places:
                raise ConfigError(f"unexpected argument {word!r}; settings are given as --name value")
            given.flags[places.pop(0)] = word
        elif name == "config":
            given.configs.append(value if equals else _value(name, words))
        else:
            key, negated = _setting(name, known)
            if known[key] is bool and not equals:
                stated = bool(words) and not negated and words[0].lower() in ("true", "false")
                value = words.pop(0).lower() if stated else str(not negated).lower()
            given.flags[key] = value if equals or known[key] is bool else _value(name, words)
    return given


def _setting(name: str, known: Mapping[str, Any]) -> tuple[str, bool]:
    """Find the setting that a flag names, hyphens or not, and whether it says `--no-NAME` of a yes-or-no one."""
    key = name.replace("-", "_")
    if key in known:
        return key, False
    if key.startswith("no_") and known.get(key[3:]) is bool:
        return key[3:], True
    raise ConfigError(f"unknown flag --{name}; the nearest is --{nearest(key, known).replace('_', '-')}")


def _value(name: str, words: list[str]) -> str:
    """Take the word that follows a flag; a lone `-` and negative numbers are values."""
    if not words or words[0].startswith("--"):
        raise ConfigError(f"--{name} needs a value")
    return words.pop(0)


def nearest(name: str, valid: Mapping[str, Any]) -> str:
    """Find the valid dotted name that a user most likely meant: its whole and its last part are compared."""

    def likeness(candidate: str) -> float:
        pairs = ((name, candidate), (name.rpartition(".")[2], candidate.rpartition(".")[2]))
        return sum(SequenceMatcher(None, a, b).ratio() for a, b in pairs)

    return max(valid, key=likeness)


def read_yaml(path: str, config: type[Any]) -> dict[str, Any]:
    """Read one config file and check that it holds settings of `config` and nothing else.

    Raises:
        ConfigError: If it is missing, no YAML, or has an unknown key, which is named with the nearest valid one.
    """
    if "://" in path:
        raise ConfigError(f"--config {path}: only files on this machine are read, no URLs")
    try:
        file = locate(path)
        if file.stat().st_size > _MAX_YAML_BYTES:
            raise ConfigError(f"{path} has {file.stat().st_size:,} bytes; a config of over 1 MB is not read")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"config {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error
    return _tree(text, config, path)


def _tree(text: str, config: type[Any], where: str) -> dict[str, Any]:
    """Turn YAML into settings of `config`, checked; `where` says in messages what the text is."""
    try:
        tree = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{where} is no YAML that dnasm reads: {' '.join(str(error).split())}") from error
    extra = {_PRESET: str} if _has_model(config) else {}
    return _checked({} if tree is None else tree, config, where, "", settings(config) | extra)


def _checked(tree: Any, config: type[Any], where: str, prefix: str, valid: Mapping[str, Any]) -> dict[str, Any]:
    """Check the keys of one section, with hyphens made underscores, and those of the sections in it."""
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: {prefix.rstrip('.') or 'it'} must be a mapping `name: value`, got {tree!r}")
    hints, checked = get_type_hints(config), {}
    for raw, value in tree.items():
        key = str(raw).replace("-", "_")
        kind = hints.get(key)
        if kind is None and prefix + key not in valid:
            raise ConfigError(f"{where}: unknown key {prefix}{raw}; the nearest is {nearest(prefix + key, valid)}")
        if is_dataclass(kind):
            value = _checked(value, kind, where, f"{prefix}{key}.", valid)  # type: ignore[arg-type]
        elif (item := _listed(kind)) is not None and isinstance(value, list):
            names = settings(item, f"{prefix}{key}.")
            value = [_checked(entry, item, where, f"{prefix}{key}.", names) for entry in value]
            for name in (name for name in get_type_hints(item) if _is_required(item, name)):
                if any(name not in entry for entry in value):
                    raise ConfigError(f"{where}: an entry of {prefix}{key} lacks its {name}")
        elif value is None and NoneType not in get_args(kind):  # jsonargparse takes null for anything
            raise ConfigError(f"{where}: {prefix}{key} needs a value, null is none")
        checked[key] = value
    return checked


def _listed(kind: Any) -> type[Any] | None:
    """The dataclass that a setting is a list of, if it is one."""
    (item,) = get_args(kind) if get_origin(kind) is list else (None,)
    return item if is_dataclass(item) else None  # type: ignore[return-value]


def fill(config: type[Config], parser: ArgumentParser, given: Given) -> Config:
    """Lay defaults, preset, YAML files and flags over each other and build the dataclass.

    Raises:
        ConfigError: If a value does not fit its setting or a setting is missing; the message says where it was given.
    """
    sources = {path: read_yaml(path, config) for path in given.configs}
    kinds, flags = settings(config), dict(given.flags)
    for key in [key for key in flags if key != _PRESET]:
        flag = f"--{key.replace('_', '-')}"
        if _listed(kinds[key]) is not None:
            sources[flag] = _tree(_as_yaml(key, flags.pop(key)), config, flag)
        elif flags[key] == "null" and NoneType not in get_args(kinds[key]):
            raise ConfigError(f"{flag} needs a value, null is none")
    base: dict[str, Any] = {}
    for tree in sources.values():
        base = _merge(base, tree)
    named = base["model"].pop("preset", None) if _has_model(config) and "model" in base else None
    name = flags.pop(_PRESET, named)
    if name is not None:
        base["model"] = asdict(preset(str(name))) | base.get("model", {})
    words = [f"--{key}={value}" for key, value in flags.items()]
    try:
        namespace = parser.parse_args(["--config", json.dumps(base), *words])
        namespace.pop(_PRESET, None)  # spent above; the dataclass has no such field
        values = parser.instantiate(namespace)
    except argparse.ArgumentError as error:
        raise ConfigError(_explain(str(error), flags, sources)) from error
    return _located(config(**{field.name: values[field.name] for field in fields(config)}))  # type: ignore[arg-type]


def _as_yaml(key: str, value: str) -> str:
    """Say `data.genomes` = value as a file would."""
    sections = key.split(".")
    return "".join("{" + f"{section}: " for section in sections) + value + "}" * len(sections)


_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}


def _explain(message: str, flags: Mapping[str, str], sources: Mapping[str, Mapping[str, Any]]) -> str:
    """Turn jsonargparse's message into one line that says which setting, and where it was given."""
    missing = re.search(r"arguments are required: (.*)", message)
    if missing:
        several = ", " in missing[1]
        names = f"--{missing[1].replace('_', '-').replace(', ', ', --')}"
        return (
            f"{names} {'are' if several else 'is'} missing; give {'them' if several else 'it'} as a flag or in --config"
        )
    key = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    reason = _in_words(re.sub(r"<class '(\w+)'>", r"\1", message.strip()).replace("typing.", ""))
    if any(key == flag or key.startswith(flag + ".") for flag in flags):
        return f"--{key.replace('_', '-')}: {reason}"
    places = [path for path, tree in sources.items() if _holds(tree, key)]
    return f"{places[-1]}: {key}: {reason}" if places else f"{key}: {reason}"


def _in_words(message: str) -> str:
    """Take the reason out of a message about a type, without Python's names for it.

    >>> _in_words("Expected a Literal['mean', 'max']. Got value: x")
    'expected one of mean, max, got x'
    """
    *lines, last = [line.strip(" -") for line in message.splitlines()]
    choices = [line.partition(". Got value")[0] for line in lines if line.startswith("Expected ")]
    if last.startswith("Given value: ") and choices:  # of a setting that takes several types
        last = f"{' or '.join(dict.fromkeys(choices)).replace(' or Expected', ' or')}. Got value: {last[13:]}"
    last = re.sub(r"a Literal\[([^\]]*)\]", lambda found: "one of " + found[1].replace("'", ""), last)
    for kind, words in _KINDS.items():
        last = re.sub(rf"\ba {kind}\b", words, last)
    return last[:1].lower() + last[1:].replace(". Got value: ", ", got ")


def _holds(tree: Any, key: str) -> bool:
    first, _, rest = key.partition(".")
    return (
        isinstance(tree, Mapping) and first in tree and (not isinstance(tree[first], dict) or _holds(tree[first], rest))
    )


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Lay `top` over `base`, section by section."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _located(config: Config) -> Config:
    """Replace every `dnasm:NAME` by the path of that shipped file."""

    def walk(value: Any) -> Any:
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{field.name: walk(getattr(value, field.name)) for field in fields(value)})
        if isinstance(value, list):
            return [walk(item) for item in value]
        return str(locate(value)) if isinstance(value, str) and value.startswith("dnasm:") else value

    return walk(config)


def _has_model(config: type[Any]) -> bool:
    return get_type_hints(config).get("model") is ModelConfig


def _is_required(config: type[Any], name: str) -> bool:
    (field,) = [field for field in fields(config) if field.name == name]
    return field.default is MISSING and field.default_factory is MISSING
