"""The packaged demo data as examples. See demo_data/DATASHEET.md for how it was made."""

from __future__ import annotations

from typing import Any

from accord.demo_data import packaged_rows
from accord.types import Completion, Example, Message

MAX_FULL = 10**9


def _prompt(row: dict[str, Any]) -> tuple[Message, ...]:
    return (Message("user", row["prompt"]),)


def _answer(text: str, finished: bool, source: dict[str, Any]) -> Completion:
    return Completion((Message("assistant", text),), finished=finished, source=source)


def demonstrations(per_slice: int = MAX_FULL) -> list[Example]:
    """Demonstrations, the first `per_slice` of each slice."""
    return [
        Example(
            "demonstration",
            _prompt(row),
            (_answer(row["completion"], True, {"kind": "human"}),),
            columns={"slice": row["slice"]},
            where=f"demonstrations.jsonl line {number}",
        )
        for number, row in enumerate(packaged_rows("demonstrations.jsonl"), 1)
        if row["number"] <= per_slice
    ]


def pairs(half: str) -> list[Example]:
    """Pairs of one half: "train" trains the reward, "heldout" (other prompts) tests it and trains a second one for the report."""
    found = []
    for number, row in enumerate(packaged_rows("pairs.jsonl"), 1):
        if row["half"] == half:
            answers = tuple(_answer(row[side], row[f"{side}_finished"], row[f"{side}_source"]) for side in ("chosen", "rejected"))
            found.append(Example("preference", _prompt(row), answers, columns={"slice": row["slice"]}, where=f"pairs.jsonl line {number}"))
    return found


def rankings(per_slice: int = MAX_FULL) -> list[Example]:
    """Rankings of four answers with ties; rank 1 is best."""
    found = []
    for number, row in enumerate(packaged_rows("rankings.jsonl"), 1):
        if row["number"] <= per_slice:
            answers = tuple(_answer(*answer) for answer in zip(row["completions"], row["finished"], row["sources"], strict=True))
            found.append(
                Example(
                    "ranking",
                    _prompt(row),
                    answers,
                    ranks=tuple(row["ranks"]),
                    columns={"slice": row["slice"]},
                    where=f"rankings.jsonl line {number}",
                )
            )
    return found


def heldout_prompts(per_slice: int = MAX_FULL) -> list[Example]:
    """Prompts that appear nowhere in training, with what their checks need."""
    return [
        Example(
            "prompt",
            _prompt(row),
            columns={"slice": row["slice"], "keywords": row.get("keywords", [])},
            where=f"heldout.jsonl line {number}",
        )
        for number, row in enumerate(packaged_rows("heldout.jsonl"), 1)
        if row["number"] <= per_slice
    ]


def constitution_prompts() -> list[Example]:
    """Prompts without answers, of which `harmful` says whether they ask for harm; none of them is among the others."""
    return [
        Example(
            "prompt",
            _prompt(row),
            columns={"harmful": row["harmful"], "topic": row["topic"]},
            where=f"constitution_prompts.jsonl line {number}",
        )
        for number, row in enumerate(packaged_rows("constitution_prompts.jsonl"), 1)
    ]


def agreement() -> dict[str, Any]:
    """The blind second labelling: how often the same answer was preferred both times."""
    rows = packaged_rows("second_labels.jsonl")
    same = sum(row["first"] == row["second"] for row in rows)
    return {"pairs": len(rows), "same": same}
