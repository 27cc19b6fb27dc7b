"""The packaged rows, and made sums, as files that the learning pages name: `accord data demo FOLDER` writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accord.data.arithmetic import arithmetic_prompts, arithmetic_solutions, chains, planted_errors
from accord.demo_data import packaged_rows
from accord.errors import ConfigError
from accord.types import Example
from accord.writing import write_text

Row = dict[str, Any]
PER_SLICE = 40
"""Demonstrations of each kind of prompt: those that `accord demo` imitates."""
SUMS: dict[str, Any] = {"steps": (2, 2), "largest": 9, "largest_factor": 3, "limit": 30}
"""Two steps with small numbers, as in `accord demo reasoning`: a model of 135 million weights learns them."""


@dataclass(frozen=True)
class DemoFile:
    """One file of rows."""

    rows: Callable[[], list[Row]]
    purpose: str
    """What it is for, in a line."""


def _demonstrations() -> list[Row]:
    return _columns("prompt completion slice", (row for row in packaged_rows("demonstrations.jsonl") if row["number"] <= PER_SLICE))


def _pairs(half: str) -> list[Row]:
    rows = (row for row in packaged_rows("pairs.jsonl") if row["half"] == half)
    return _columns("prompt chosen rejected chosen_finished rejected_finished slice", rows)


def _prompts() -> list[Row]:
    return list({row["prompt"]: row for row in _columns("prompt slice", _pairs("train"))}.values())


def _columns(names: str, rows: Iterable[Row]) -> list[Row]:
    return [{name: row[name] for name in names.split()} for row in rows]


def _problems(count: int, split: str, seed: int) -> list[Row]:
    return [{"prompt": _asked(one), "answer": one.columns["answer"]} for one in arithmetic_prompts(_sums(count, split, seed))]


def _solutions() -> list[Row]:
    return [{"prompt": _asked(one), "completion": one.completions[0].text} for one in arithmetic_solutions(_sums(72, "train", 1))]


def _steps(count: int, split: str, seed: int) -> list[Row]:
    made = planted_errors(_sums(count, split, seed), seed=seed, answer_line=True)
    return [
        {
            "prompt": _asked(one),
            "completions": [line.content for line in one.completions[0].messages],
            "labels": list(one.step_labels or ()),
            "answer": one.columns["answer"],
        }
        for one in made
    ]


def _sums(count: int, split: Any, seed: int) -> Any:
    return chains(count, seed=seed, split=split, **SUMS)


def _asked(example: Example) -> str:
    return example.prompt[-1].content


FILES: Mapping[str, DemoFile] = {
    "demonstrations.jsonl": DemoFile(_demonstrations, "good answers to imitate: accord sft"),
    "pairs.jsonl": DemoFile(lambda: _pairs("train"), "which of two answers is better: accord reward, accord dpo, accord align"),
    "heldout.jsonl": DemoFile(lambda: _pairs("heldout"), "pairs of other prompts: accord evaluate, accord judge check"),
    "prompts.jsonl": DemoFile(_prompts, "prompts of the pairs, without answers: accord ppo, accord annotate"),
    "solutions.jsonl": DemoFile(_solutions, "sums with their working: accord sft, before accord grpo"),
    "problems.jsonl": DemoFile(lambda: _problems(400, "train", 2), "sums with their results: accord grpo, accord prm label"),
    "heldout-problems.jsonl": DemoFile(lambda: _problems(100, "heldout", 3), "sums that nobody trains on: accord evaluate --best-of"),
    "steps.jsonl": DemoFile(lambda: _steps(300, "train", 4), "worked sums, half with a planted error, a label a step: accord prm"),
    "heldout-steps.jsonl": DemoFile(lambda: _steps(100, "heldout", 5), "the same of other sums: accord evaluate"),
    "red-team.jsonl": DemoFile(
        lambda: packaged_rows("constitution_prompts.jsonl"), "prompts that ask for harm, or only sound so: accord constitution"
    ),
}
"""By name, in the order in which the pages meet them."""


def write_demo(folder: str | Path) -> dict[str, int]:
    """Write every file of `FILES` as JSON lines; one that is there already, the same to the byte, stays.

    Returns:
        how many rows each file has.
    Raises:
        ConfigError: if a file of one of the names has other contents. Nothing is written then.
    """
    folder = Path(folder)
    rows = {name: file.rows() for name, file in FILES.items()}
    texts = {name: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found) for name, found in rows.items()}
    others = [name for name, text in texts.items() if (folder / name).exists() and (folder / name).read_bytes() != text.encode()]
    if others:
        raise ConfigError(f"{folder} has its own {', '.join(others)}; name another folder, so that nothing of yours is overwritten.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made ({error.strerror or error}): name a folder.") from error
    for name, text in texts.items():
        write_text(folder / name, text)
    return {name: len(found) for name, found in rows.items()}
