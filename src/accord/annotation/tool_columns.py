"""What rows of other tools say of a label beside the judgement: who gave it, when, how long it took, which answer stood first; and who is named in them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

from accord.annotation.records import moment
from accord.data.fields import Fields
from accord.data.layouts.comparisons import ANNOTATORS, SUMMARY_CHOICE, VOTE, signed, winner
from accord.data.layouts.label_tools import SCALE, SELECTION
from accord.data.layouts.pairs import Judge
from accord.types import Example

ANNOTATOR = (
    "annotator",
    "annotator_id",
    "worker",
    "worker_id",
    "labeler",
    "labeller",
    "rater",
    "user_id",
    "username",
    "judge",
    "completed_by",
)
"""Columns that say who gave a label, the likeliest first."""
PERSONAL = re.compile(r"e-?mail|.*user_?name|(?:first|last|full)_?name|.*_by", re.IGNORECASE)
"""Further columns, at any depth, that name people."""
_TOOLS = {"argilla_flat": "argilla", "label_studio_ranker": "label_studio"}
_SHOWN: dict[str, tuple[tuple[str, Judge], ...]] = {
    "arena": (("winner", winner("winner", "model_a")),),
    "winner": (("winner", winner("winner", "A")),),
    "llmbar": (("label", winner("label", "1")),),
    "helpsteer2": (("preference_strength", signed("preference_strength")),),
    "helpsteer3": (("overall_preference", signed("overall_preference")),),
    "openai_comparisons": (("choice", SUMMARY_CHOICE),),
    "potato": (("preference_scale", SCALE), ("preference", SELECTION)),
}
"""Layouts that keep the order in which two answers were shown, with the column that says who won."""
VOTING = "pandalm"
"""The layout whose rows have several annotators' votes."""
ONE_VOTE = "annotator1"
"""Where a row of one annotator has theirs."""


def tool_of(layout: str) -> str:
    """The tool whose layout it is: annotators of one tool have one name in all of its layouts."""
    return _TOOLS.get(layout, layout)


def annotator_in(columns: Mapping[str, Any]) -> str | None:
    """Who gave the label, as the row names them; None where it names nobody."""
    for name in ANNOTATOR:
        found = columns.get(name)
        if isinstance(found, Mapping):
            person = cast("Mapping[str, Any]", found)
            found = person.get("email", person.get("username", person.get("id")))
        if isinstance(found, (str, int)) and not isinstance(found, bool) and str(found).strip():
            return str(found).strip()
    return None


def seconds_in(columns: Mapping[str, Any]) -> float | None:
    """How long it took, where the row says so."""
    found = columns.get("seconds", _inside(columns, "lead_time"))
    if isinstance(found, str):
        try:
            found = float(found)
        except ValueError:
            return None
    usable = isinstance(found, (int, float)) and not isinstance(found, bool) and 0 <= found < math.inf
    return float(cast("float", found)) if usable else None


def created_in(columns: Mapping[str, Any]) -> str:
    """When it was given, UTC in ISO 8601; empty where the row does not say."""
    found = columns.get("created", columns.get("created_at", _inside(columns, "created_at")))
    try:
        when = datetime.fromisoformat(found) if isinstance(found, str) else None
    except ValueError:
        return ""
    if when is None:
        return ""
    return moment((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


def _inside(columns: Mapping[str, Any], name: str) -> object:
    for outer in ("annotation", "response"):
        record = columns.get(outer)
        if isinstance(record, Mapping) and name in record:
            return cast("Mapping[str, Any]", record)[name]
    return None


def chosen_stood_first(layout: str, columns: Mapping[str, Any]) -> bool | None:
    """Whether the first of two answers of an example was the one shown first; None where the row does not say."""
    if layout == "label_studio":
        results = cast("list[Any]", _inside(columns, "result") or [])
        sides = [result["value"]["selected"] for result in results if isinstance(result, Mapping) and result.get("type") == "pairwise"]
        return sides[0] == "left" if sides else None
    for name, judge in _SHOWN.get(layout, ()):
        if name in columns:
            return judge.read(Fields(columns, "")).vote >= 0.5
    return None


def votes_in(layout: str, example: Example) -> dict[str, Example]:
    """What each annotator of a row said, by the name of their column, as rows of one annotator would say it. Empty where a row is one label."""
    columns = example.columns
    own = [name for name in columns if VOTE.fullmatch(name)] if layout == VOTING and annotator_in(columns) is None else []
    if len(own) < 2:
        return {}
    shared = {name: value for name, value in columns.items() if name not in own}
    return {name: _voted(example, {**shared, ONE_VOTE: columns[name], "annotator": name}) for name in own}


def with_all_votes(votes: Mapping[str, Example]) -> Example:
    """The inverse of `votes_in`."""
    first = next(iter(votes.values()))
    shared = {name: value for name, value in first.columns.items() if name not in (ONE_VOTE, "annotator")}
    return _voted(first, {**shared, **{name: vote.columns[ONE_VOTE] for name, vote in votes.items()}})


def _voted(example: Example, columns: dict[str, Any]) -> Example:
    """The same answers, shown as they were, with other votes."""
    vote, before = (ANNOTATORS.read(Fields(each, example.where)).vote for each in (columns, example.columns))
    completions = example.completions if (vote >= 0.5) == (before >= 0.5) else example.completions[::-1]
    share = max(vote, 1 - vote)
    return replace(example, completions=completions, probability=None if share == 1 else share, columns=columns)


def renamed(columns: Mapping[str, Any], named: Callable[[str], str]) -> tuple[dict[str, Any], set[str]]:
    """The columns with `named(who)` in place of whoever they name, at any depth, and the names of those left out because they hold nothing else."""
    left_out: set[str] = set()
    return cast("dict[str, Any]", _renamed(columns, named, left_out)), left_out


def _renamed(value: object, named: Callable[[str], str], left_out: set[str]) -> object:
    if isinstance(value, Mapping):
        found: dict[str, object] = {}
        for name, inner in cast("Mapping[str, object]", value).items():
            if name in ANNOTATOR:
                who = annotator_in({name: inner})
                found[name] = named(who) if who is not None else None
            elif name.endswith(".users") and isinstance(inner, (list, tuple)):
                found[name] = [named(str(who)) for who in cast("list[object]", inner)]
            elif PERSONAL.fullmatch(name):
                left_out.add(name)
            else:
                found[name] = _renamed(inner, named, left_out)
        return found
    if isinstance(value, (list, tuple)):
        return [_renamed(inner, named, left_out) for inner in cast("list[object]", value)]
    return value
