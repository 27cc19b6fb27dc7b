"""Command-line arguments from dataclasses: two levels of help, TRL's spellings, YAML underneath, the nearest name for a wrong one.

Our own 150 lines rather than a library: each command shows at most 15 options of a longer config, accepts `--learning-rate` and
`--learning_rate` and the names TRL's users type, and starts in a tenth of a second.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accord.config.base import field_help
from accord.config.known_names import HARMLESS, unknown_name
from accord.errors import ConfigError

SPELLINGS = {
    "model_name_or_path": "model",
    "dataset_name": "data",
    "dataset": "data",
    "lora_rank": "lora_r",
    "reward_model_path": "reward_model",
}
"""What TRL's users type."""


RECIPES = Path(__file__).parent / "config" / "files"
"""A folder for each command that comes with recipes."""


@dataclass(frozen=True)
class Command:
    """One command of the map."""

    name: str
    summary: str
    configs: tuple[str, ...]
    """Dotted paths of the dataclasses that hold its options; the handler gets one instance of each."""
    handler: str
    shown: tuple[str, ...]
    """Options that --help shows; the others are in --help-all."""
    positional: str | None = None
    """The option that may be given without its name."""
    passthrough: bool = False
    """True: the handler parses its own arguments."""


def parse(command: Command, given: Sequence[str]) -> list[Any] | None:
    """Instances of the command's dataclasses, from YAML with flags on top; None when help was asked for and printed.

    Raises:
        ConfigError: on an unknown option (naming the nearest), a value of the wrong type, a file that is not there.
    """
    configs = [_class(path) for path in command.configs]
    fields = {field.name: (config, field) for config in configs for field in dataclasses.fields(config)}
    if any(item in ("-h", "--help", "--help-all", "--help_all") for item in given):
        print(help_text(command, configs, everything=any("all" in item for item in given)))
        return None
    values = _read(command, fields, list(given))
    found = []
    for config in configs:
        mine = {name: value for name, value in values.items() if fields[name][0] is config}
        found.append(config(**mine))
    return found


def help_text(command: Command, configs: Sequence[type], *, everything: bool) -> str:
    """The help of one command: its shown options, or all of them."""
    place = f" [{command.positional.upper()}]" if command.positional else ""
    lines = [f"accord {command.name}: {command.summary}", "", f"usage: accord {command.name}{place} [--config recipe.yaml] [options]", ""]
    for config in configs:
        described = field_help(config)
        for field in dataclasses.fields(config):
            if everything or field.name in command.shown:
                text = described[field.name]
                lines.append(_wrapped(f"  --{field.name.replace('_', '-')} {_default(field)}".rstrip(), text, everything=everything))
    names = recipes_of(command.name)
    if names:
        lines += ["", f"Recipes that come with it, by name for --config: {', '.join(names)}."]
    more = "" if everything else f"accord {command.name} --help-all shows every option. "
    return "\n".join([*lines, "", f"{more}--debug shows the traceback of an error."])


def _wrapped(name: str, text: str, *, everything: bool) -> str:
    """One option: two lines at most in --help, its whole text in --help-all."""
    import textwrap

    body = textwrap.wrap(text, 96)
    if not everything and len(body) > 2:
        body = [body[0], body[1] + " ..."]
    first = f"{name:<34} {body[0]}"
    return "\n".join([first, *(" " * 35 + line for line in body[1:])])


def _default(field: Any) -> str:
    value = field.default
    return (
        ""
        if value is None or value is False or value == "" or value is dataclasses.MISSING
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _read(command: Command, fields: dict[str, Any], given: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    flags: dict[str, list[str]] = {}
    loose: list[str] = []
    current: str | None = None
    for item in given:
        if item.startswith("--"):
            name, equals, value = item[2:].partition("=")
            current = _canonical(name)
            if current in flags and not _many(fields, current):
                raise ConfigError(f"accord {command.name}: --{current} is given twice.")
            flags.setdefault(current, [])
            if equals:
                flags[current].append(value)
                current = None
        elif current is not None and (not flags[current] or _many(fields, current)):
            flags[current].append(item)
        else:
            loose.append(item)
    if loose and command.positional and command.positional not in flags:
        flags[command.positional] = loose if _many(fields, command.positional) else [loose.pop(0)]
        loose = [] if _many(fields, command.positional) else loose
    if loose:
        raise ConfigError(f"accord {command.name}: {' '.join(loose)!r} belongs to no option. accord {command.name} --help shows them.")
    if "config" in flags and "config" not in fields:
        values |= _yaml(command, flags.pop("config"), fields)
    for name, texts in flags.items():
        if name in HARMLESS and name not in fields:
            print(f"accord {command.name}: --{name} is not needed: {HARMLESS[name]}.", file=sys.stderr)
            continue
        if name not in fields:
            raise ConfigError(unknown_name(f"accord {command.name}", name, set(fields)))
        values[name] = _value(name, texts, _type(fields[name]))
    return values


def _canonical(name: str) -> str:
    name = name.replace("-", "_")
    return SPELLINGS.get(name, name)


def _yaml(command: Command, paths: list[str], fields: dict[str, Any]) -> dict[str, Any]:
    import yaml

    if len(paths) != 1:
        raise ConfigError("--config takes one YAML file.")
    path = _recipe(command, paths[0])
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"--config {path}: there is no such file.") from error
    except OSError as error:
        raise ConfigError(f"--config {path} cannot be read: {error.strerror}. It takes one YAML file.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path} is not YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"--config {path} must hold options as name: value lines.")
    values = {}
    for key, value in loaded.items():
        name = _canonical(str(key))
        if name in HARMLESS and name not in fields:
            continue
        if name not in fields:
            raise ConfigError(unknown_name(f"{path}", name, set(fields)))
        values[name] = _from_yaml(path, name, value, _type(fields[name]))
    return values


def _recipe(command: Command, given: str) -> Path:
    """A file, or by its bare name one of the recipes that come with a command (`accord grpo --config dapo`).

    Raises:
        ConfigError: listing them, if it is neither.
    """
    path, names = Path(given), recipes_of(command.name)
    if path.exists() or path.suffix or len(path.parts) > 1 or not names:
        return path
    if given in names:
        return RECIPES / command.name / f"{given}.yaml"
    raise ConfigError(f"--config {given}: there is no such file, and accord {command.name} comes with {', '.join(names)}.")


def recipes_of(command: str) -> list[str]:
    """Names of the recipe files that come with a command."""
    return sorted(file.stem for file in (RECIPES / command).glob("*.yaml"))


def _from_yaml(path: Path, name: str, value: Any, hint: Any) -> Any:
    """A value of a recipe, held to the field's type as a flag would be.

    Raises:
        ConfigError: naming the file, the option and the value.
    """
    texts = [f"{key}={item}" for key, item in value.items()] if isinstance(value, dict) else value if isinstance(value, list) else [value]
    held = {kind for kind in map(typing.get_origin, _kinds(hint)) if kind in (list, dict)}
    if isinstance(value, (list, dict)) and type(value) not in held:
        raise ConfigError(f"{path}: {name} {value!r} is no single value, and {name} takes one.")
    try:
        return _value(name, ["none" if text is None else str(text) for text in texts], hint)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _type(entry: tuple[type, Any]) -> Any:
    config, field = entry
    return typing.get_type_hints(config)[field.name]


def _many(fields: dict[str, Any], name: str) -> bool:
    if name not in fields:
        return False
    kinds = _kinds(_type(fields[name]))
    return any(typing.get_origin(kind) in (list, dict) for kind in kinds)


def _kinds(hint: Any) -> list[Any]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return list(typing.get_args(hint))
    return [hint]


def _value(name: str, texts: list[str], hint: Any) -> Any:
    """Text to the field's type, trying the narrower type first."""
    kinds = _kinds(hint)
    if len(texts) == 1 and texts[0].lower() in ("none", "null") and type(None) in kinds:
        return None
    for kind in kinds:
        if typing.get_origin(kind) is dict:
            pairs = [text.partition("=") for text in texts]
            if all(equals for _, equals, _ in pairs):
                return {key: value for key, _, value in pairs}
            raise ConfigError(f"--{name} takes name=value pairs, for example --{name} prompt=question chosen=best rejected=worst.")
        if typing.get_origin(kind) is list and (len(texts) > 1 or str not in kinds):
            return texts
    if bool in kinds and (not texts or texts[0].lower() in ("true", "false", "yes", "no", "1", "0")):
        return not texts or texts[0].lower() in ("true", "yes", "1")
    if len(texts) != 1:
        raise ConfigError(f"--{name} takes one value and got {len(texts)}.")
    for kind in (int, float, str):
        if kind in kinds:
            try:
                return kind(texts[0])
            except ValueError:
                continue
    wanted = " or ".join(sorted(kind.__name__ for kind in kinds if isinstance(kind, type) and kind is not type(None)))
    raise ConfigError(f"--{name} {texts[0]!r} is not {wanted}.")


def _class(dotted: str) -> Any:
    module, _, name = dotted.partition(":")
    return getattr(importlib.import_module(module), name)
