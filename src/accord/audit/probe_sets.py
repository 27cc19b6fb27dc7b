"""The questions of an audit: sets written for it (probes/DATASHEET.md), or files of others in the layouts in which they are published."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from accord.data.files import read_rows
from accord.data.instructions import constraint_prompts
from accord.data.read import read_examples
from accord.errors import DataError
from accord.types import Example

T = TypeVar("T")
Row = dict[str, Any]

_HARMFUL_LABELS = {"unsafe", "harmful"}


@dataclass(frozen=True)
class Contrast:
    """A request that should be answered, or refused."""

    prompt: str
    harmful: bool
    pair: str = ""
    """Names the harmless request that uses the words of a harmful one; empty where there is none."""


@dataclass(frozen=True)
class Question:
    """A question with a right answer and one that is not."""

    question: str
    right: str
    wrong: str
    kind: str = ""


@dataclass(frozen=True)
class Problem:
    """A word problem and its number."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Grid:
    """RM-Bench's row: a right and a wrong answer, each in three styles: short, detailed, detailed and marked up."""

    prompt: str
    chosen: tuple[str, str, str]
    rejected: tuple[str, str, str]


def packaged(name: str) -> list[Row]:
    """The rows of one of the audit's own files."""
    text = (resources.files("accord.audit") / "probes" / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


def drawn(rows: Sequence[T], limit: int, seed: int) -> list[T]:
    """At most `limit` of the rows, drawn by seed, in their order; 0 takes all."""
    if not limit or len(rows) <= limit:
        return list(rows)
    return [rows[index] for index in sorted(random.Random(f"audit {seed}").sample(range(len(rows)), limit))]


def contrasts(file: str | None, limit: int, seed: int) -> list[Contrast]:
    """Harmless and harmful requests, at most `limit` of each; XSTest's prompts, or any table with `prompt` and `label` (or `harmful`).

    Raises:
        DataError: naming the row, if a field is missing.
    """
    if file is None:
        found = [Contrast(row["prompt"], row["harmful"], str(row["pair"])) for row in packaged("refusals")]
        kept = set(drawn(sorted({one.pair for one in found}, key=int), limit, seed))
        return [one for one in found if one.pair in kept]
    found = [_contrast(row, where) for row, where in _rows(file)]
    return [one for harmful in (False, True) for one in drawn([row for row in found if row.harmful is harmful], limit, seed)]


def questions(limit: int, seed: int) -> list[Question]:
    """Questions of general knowledge."""
    return drawn([Question(row["question"], row["right"], row["wrong"]) for row in packaged("questions")], limit, seed)


def honesty(file: str | None, limit: int, seed: int) -> list[Question]:
    """What an honest and a dishonest model would say, at most `limit` of each kind; TruthfulQA's table, or any with `Question`, `Best Answer` and `Incorrect Answers`."""
    if file is None:
        found = [Question(row["prompt"], row["honest"], row["dishonest"], row["kind"]) for row in packaged("honesty")]
    else:
        found = [_truthful(row, where) for row, where in _rows(file)]
    kinds = list(dict.fromkeys(one.kind for one in found))
    return [one for kind in kinds for one in drawn([row for row in found if row.kind == kind], limit, seed)]


def problems(file: str | None, limit: int, seed: int) -> list[Problem]:
    """Word problems; SVAMP's file, or any table with `prompt` and `answer`."""
    if file is None:
        return drawn([Problem(row["prompt"], row["answer"]) for row in packaged("arithmetic")], limit, seed)
    return drawn([_problem(row, where) for row, where in _rows(file)], limit, seed)


def instructions(file: str | None, limit: int, seed: int) -> list[Example]:
    """Prompts with instructions that a program checks: IFEval's file, or prompts made for small models."""
    if file is None:
        return constraint_prompts(limit or 64, seed, held_out=True)
    return drawn(list(read_examples(file, kind="prompt")), limit, seed)


def texts(file: str | None, limit: int, seed: int) -> list[str]:
    """Neutral prose; any table with `text`."""
    found = [row["text"] for row in packaged("neutral")] if file is None else [_text(row, "text", where) for row, where in _rows(file)]
    return drawn(found, limit, seed)


def everyday(file: str | None, limit: int, seed: int) -> list[tuple[str, str]]:
    """Requests with a good answer each; of a file of the user's, the answer is empty where it has none.

    Raises:
        DataError: naming the row, if its prompt is a conversation of several turns.
    """
    if file is None:
        return drawn([(row["prompt"], row["answer"]) for row in packaged("everyday")], limit, seed)
    found = {row.prompt_id: row for row in read_examples(file)}
    for row in found.values():
        if len(row.prompt) != 1:
            raise DataError(
                f"{row.where} has a prompt of {len(row.prompt)} turns; these probes ask one question each. Leave such rows out."
            )
    return drawn([(row.prompt[0].content, row.completions[0].text if row.completions else "") for row in found.values()], limit, seed)


def pairs(files: Sequence[str] | None, limit: int, seed: int, kinds: Sequence[str]) -> list[Example]:
    """Comparisons with a winner: files of the user's, or packaged ones of these kinds."""
    if files:
        rows = [row for file in files for row in read_examples(file, kind="preference") if row.probability != 0.5]
        return drawn(rows, limit, seed)
    rows = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in packaged("pairs") if row["kind"] in kinds]
    return drawn(list(read_examples(rows)), limit, seed)


def grids(files: Sequence[str] | None, limit: int, seed: int) -> list[Grid]:
    """Rows of RM-Bench's layout, at most `limit` of each file."""
    if not files:
        return [_grid(row, "styles.jsonl") for row in drawn(packaged("styles"), limit, seed)]
    return [one for file in files for one in drawn([_grid(row, where) for row, where in _rows(file)], limit, seed)]


def _rows(file: str) -> list[tuple[Row, str]]:
    return [(dict(row), where) for row, where in read_rows(Path(file))]


def _text(row: Row, name: str, where: str) -> str:
    value = row.get(name)
    if value is None or not str(value).strip():
        raise DataError(f'{where} has no "{name}" (it has: {", ".join(row) or "none"}). docs/audit.md says what each file holds.')
    return str(value)


def _contrast(row: Row, where: str) -> Contrast:
    prompt = _text(row, "prompt", where)
    if isinstance(row.get("harmful"), bool):
        return Contrast(prompt, row["harmful"])
    return Contrast(prompt, _text(row, "label", where).lower() in _HARMFUL_LABELS)


def _truthful(row: Row, where: str) -> Question:
    wrong = [part.strip() for part in _text(row, "Incorrect Answers", where).split(";") if part.strip()]
    return Question(_text(row, "Question", where), _text(row, "Best Answer", where), wrong[0], "misconception")


def _problem(row: Row, where: str) -> Problem:
    if "Body" in row:
        return Problem(f"{_text(row, 'Body', where).strip().rstrip('.')}. {_text(row, 'Question', where)}", _text(row, "Answer", where))
    return Problem(_text(row, "prompt", where), _text(row, "answer", where))


def _grid(row: Row, where: str) -> Grid:
    sides = [row.get(name) for name in ("chosen", "rejected")]
    if not all(isinstance(side, list) and len(side) == 3 for side in sides):
        raise DataError(f'{where} needs three texts in each of "chosen" and "rejected": short, detailed, detailed and marked up.')
    chosen, rejected = ((str(side[0]), str(side[1]), str(side[2])) for side in sides if isinstance(side, list))
    return Grid(_text(row, "prompt", where), chosen, rejected)
