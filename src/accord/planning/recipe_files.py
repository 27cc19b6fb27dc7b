"""Advice as files: one YAML recipe a stage, each with the command that runs it; and the configs that a stage stands for, to plan its time."""

from __future__ import annotations

import dataclasses
import importlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from accord.config.options import TrainOptions
from accord.errors import ConfigError
from accord.planning.advise import Advice, Stage
from accord.writing import write_text

TRAINING = ("sft", "reward", "prm", "dpo", "kto", "ppo", "grpo")
"""Commands that train with one method."""


def config_class(method: str) -> type[Any]:
    """The config of a method, by its command's name."""
    return getattr(importlib.import_module(f"accord.config.{method}"), f"{method.upper() if method != 'reward' else 'Reward'}Config")


def split_options(stage: Stage) -> tuple[TrainOptions, Any]:
    """The two dataclasses that the options of a stage of one method fill."""
    config = config_class(stage.command)
    return filled(TrainOptions, stage.options), filled(config, stage.options)


def filled(kind: type[Any], options: Mapping[str, Any]) -> Any:
    """A dataclass of those options that it has."""
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in options.items() if name in names})


def paths(advice: Advice, recipe: str) -> list[Path]:
    """Where the recipes of its stages go: recipe.yaml, or recipe-1.yaml, recipe-2.yaml, ... where there are several."""
    first = Path(recipe)
    if len(advice.stages) < 2:
        return [first][: len(advice.stages)]
    return [first.with_name(f"{first.stem}-{number}{first.suffix}") for number in range(1, len(advice.stages) + 1)]


def command_line(stage: Stage, path: Path) -> str:
    """What to type."""
    return f"accord {stage.command} --config {shlex.quote(path.as_posix())}"


def put_in(stage: Stage) -> str:
    """What to do with the placeholders of a stage."""
    return f"First put your own in place of {'; '.join(stage.placeholders())}."


def write_recipes(advice: Advice, recipe: str, *, overwrite: bool) -> list[Path]:
    """Write a file a stage; returns their paths.

    Args:
        overwrite: True writes over files that are there. False refuses.
    Raises:
        ConfigError: naming a file that is there already.
    """
    found = paths(advice, recipe)
    for path in found:
        if path.is_dir() or not path.name:
            raise ConfigError(f"--recipe {recipe!r} is a folder. Name a file: --recipe mine.yaml.")
        if path.exists() and not overwrite:
            raise ConfigError(
                f"{path} is there already. Name another (--recipe mine.yaml), write over it (--overwrite), or write none (--recipe none)."
            )
    for stage, path in zip(advice.stages, found, strict=True):
        head = [f"# {command_line(stage, path)}", *(f"# {reason}" for reason in advice.reasons)]
        head += [f"# {put_in(stage)}"] if stage.placeholders() else []
        body = yaml.safe_dump(stage.options, sort_keys=False, allow_unicode=True)
        write_text(path, "\n".join([*head, body]))
    return found
