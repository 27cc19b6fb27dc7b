"""Prompts from reasoning-gym's generators: any number of puzzles with answers that its own code can score."""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, cast

from accord.errors import ConfigError, DataError, MachineError
from accord.types import Example, Message

MOST = 10**6
"""Puzzles of one seed at most. reasoning-gym draws puzzle i of seed s as puzzle i - 1 of seed s + 1, so its seeds are taken this far apart."""
COLUMN = "gym"
"""The column that names generator, size, seed, its options and the puzzle's index: what scoring needs to make the puzzle again."""


def gym_prompts(generator: str, size: int, *, seed: int = 0, **options: Any) -> list[Example]:
    """Puzzles as prompts, each with the columns `answer` and `gym`.

    Args:
        generator: its name in reasoning-gym, such as "chain_sum".
        size: how many, 1 to a million.
        seed: the same seed gives the same puzzles, another one other draws: take two for training and held-out puzzles. A generator
            with few different puzzles repeats some all the same; `accord data check --against` finds them.
        options: passed to the generator, such as min_terms=2.
    Raises:
        MachineError: if reasoning-gym is not installed.
        ConfigError: if there is no such generator, or it does not take these options.
    """
    if not 1 <= size <= MOST:
        raise ConfigError(f"gym_prompts: size={size} must be 1 to {MOST}.")
    return list(_examples(generator, size, seed * MOST, options))


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
        raise DataError(
            f"Column {COLUMN!r} names no puzzle of reasoning-gym. Make the prompts with accord.data.gym.gym_prompts."
        ) from error


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
        gym: Any = importlib.import_module("reasoning_gym")
        known = sorted(cast("dict[str, Any]", importlib.import_module("reasoning_gym.factory").DATASETS))
    except ImportError as error:
        raise MachineError("Prompts from reasoning-gym need it: pip install 'accord[gym]'") from error
    if generator not in known:
        near = difflib.get_close_matches(generator, known, 4) or known[:8]
        raise ConfigError(f"reasoning-gym has no generator {generator!r}. Near it: {', '.join(near)}.")
    try:
        return gym.create_dataset(generator, size=size, seed=seed, **json.loads(options))
    except (AssertionError, ValueError) as error:
        raise ConfigError(f"Generator {generator} does not take {options}: {error}.") from error
