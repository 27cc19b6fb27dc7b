"""Prompts from reasoning-gym's generators: any number of puzzles with answers that its own code can score."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, cast

from accord.errors import ConfigError, DataError, MachineError
from accord.types import Example, Message

COLUMN = "gym"
"""The column that names generator, size, seed, its options and the puzzle's index: what scoring needs to make the puzzle again."""


def gym_prompts(generator: str, size: int, *, seed: int = 0, **options: Any) -> list[Example]:
    """Puzzles as prompts, each with the columns `answer` and `gym`.

    Args:
        generator: its name in reasoning-gym, such as "chain_sum".
        size: how many, 1 or more.
        seed: the same seed gives the same puzzles; a held-out set needs another one, and a look for puzzles that are in both.
        options: passed to the generator, such as min_terms=2.
    Raises:
        MachineError: if reasoning-gym is not installed.
        ConfigError: if there is no such generator, or it does not take these options.
    """
    if size < 1:
        raise ConfigError(f"gym_prompts: size={size} must be 1 or more.")
    return list(_examples(generator, size, seed, options))


def gym_puzzle(place: Any) -> tuple[Any, dict[str, Any]]:
    """The generator and the puzzle that a row's `gym` column names.

    Raises:
        DataError: if the column does not name one.
    """
    try:
        names = {"generator", "size", "seed", "index", "options"}
        if not isinstance(place, dict) or set(cast("dict[str, Any]", place)) != names:
            raise KeyError
        found = cast("dict[str, Any]", place)
        dataset = _dataset(found["generator"], found["size"], found["seed"], json.dumps(found["options"], sort_keys=True))
        return dataset, dataset[found["index"]]
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(f"Column {COLUMN!r} names no puzzle of reasoning-gym. Make the prompts with accord.data.gym.gym_prompts.") from error


def _examples(generator: str, size: int, seed: int, options: dict[str, Any]) -> Iterator[Example]:
    try:
        dataset = _dataset(generator, size, seed, json.dumps(options, sort_keys=True))
    except TypeError as error:
        raise ConfigError(f"Generator {generator}: an option is not of a JSON type or not its own: {error}.") from error
    for index in range(size):
        puzzle = dataset[index]
        place = {"generator": generator, "size": size, "seed": seed, "index": index, "options": options}
        columns = {"answer": puzzle["answer"], COLUMN: place}
        yield Example("prompt", (Message("user", puzzle["question"]),), plain=True, columns=columns, where=f"{generator} puzzle {index}")


@lru_cache(maxsize=32)
def _dataset(generator: str, size: int, seed: int, options: str) -> Any:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise MachineError("Prompts from reasoning-gym need it: pip install 'accord[reasoning]'") from error
    if generator not in DATASETS:
        near = ", ".join(sorted(name for name in DATASETS if generator.split("_")[0] in name)) or ", ".join(sorted(DATASETS)[:8]) + ", ..."
        raise ConfigError(f"reasoning-gym has no generator {generator!r}. Near it: {near}.")
    try:
        return reasoning_gym.create_dataset(generator, size=size, seed=seed, **json.loads(options))
    except (AssertionError, ValueError) as error:
        raise ConfigError(f"Generator {generator} does not take {options}: {error}.") from error
