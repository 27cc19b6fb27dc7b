"""What the monitors of a run said last, and which alarms rose before, as its files tell: for a page, beside the curves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from accord.reporting.run_files import json_object, last_lines, read_object, signature

MONITORS, ALARMS = "monitors.json", "alarms.jsonl"
LEVELS = ("alarm", "watch", "quiet")
MOST, LONGEST = 60, 2000
"""Rows that are shown, and characters of a text."""
SAMPLES = 3

Level = Literal["alarm", "watch", "quiet"]


@dataclass(frozen=True)
class Shown:
    """An answer that shows it."""

    prompt: str
    text: str
    reward: float | None


@dataclass(frozen=True)
class Said:
    """What one monitor says.

    Args:
        value, limit: the number that it looks at, and that at which there is an alarm. None where the file has none.
        round: from 1; of an alarm when it rose, else the last round. None where the file does not say.
        action: what was done about it; "" where nothing was, or nothing is known.
    """

    name: str
    cause: str
    level: Level
    value: float | None
    limit: float | None
    words: str
    round: int | None
    action: str
    samples: tuple[Shown, ...]


@dataclass(frozen=True)
class Monitored:
    """The verdicts of a run.

    Args:
        round: the last one that monitors looked at; None where there are none.
        now: its verdicts, alarms first.
        before: alarms that rose and do not stand any more, the newest first.
        unreadable: rows that are none.
    """

    round: int | None = None
    now: tuple[Said, ...] = ()
    before: tuple[Said, ...] = ()
    unreadable: int = 0


def monitored(folder: Path) -> Monitored:
    """The verdicts of a run's folder; empty where its method has no monitors, or they are off."""
    record = read_object(folder / MONITORS) or {}
    rows = record.get("verdicts")
    verdicts = [_said(row) for row in cast("list[Any]", rows)[:MOST]] if isinstance(rows, list) else []
    alarms = [_said(json_object(line)) for line in last_lines(folder / ALARMS)]
    standing = {one.name: one for one in verdicts if one is not None and one.level == "alarm"}
    rose = {one.name: one for one in alarms if one is not None}  # the newest of each
    number = _whole(record.get("iteration"))
    now = [_since(one, rose.get(one.name), number) for one in verdicts if one is not None]
    before = [one for name, one in reversed(rose.items()) if name not in standing]
    return Monitored(
        number,
        tuple(sorted(now, key=lambda one: LEVELS.index(one.level))),
        tuple(before[:MOST]),
        sum(one is None for one in (*verdicts, *alarms)),
    )


def signatures(folder: Path) -> tuple[Any, Any]:
    """What changes when the monitors say something new."""
    return signature(folder / MONITORS), signature(folder / ALARMS)


def _since(one: Said, rose: Said | None, number: int | None) -> Said:
    """A verdict of the last round; an alarm with the round in which it rose, and what was done."""
    if one.level != "alarm" or rose is None:
        return replace(one, round=number)
    return replace(one, round=rose.round, action=rose.action)


def _said(row: Any) -> Said | None:
    if not isinstance(row, dict):
        return None
    found = cast("dict[str, Any]", row)
    name, level = found.get("name"), found.get("level")
    if not isinstance(name, str) or level not in LEVELS:
        return None
    samples = found.get("samples")
    shown = _shown(cast("list[Any]", samples)) if isinstance(samples, list) else ()
    action = _text(found.get("action"))
    return Said(
        name[:LONGEST],
        _text(found.get("cause")),
        cast("Level", level),
        _number(found.get("value")),
        _number(found.get("threshold")),
        _text(found.get("words")),
        _whole(found.get("iteration")),
        "" if action == "none" else action,
        shown,
    )


def _shown(samples: Iterable[Any]) -> tuple[Shown, ...]:
    found = [cast("dict[str, Any]", one) for one in samples if isinstance(one, dict)][:SAMPLES]
    return tuple(Shown(_text(one.get("prompt")), _text(one.get("text")), _number(one.get("reward"))) for one in found)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        return ""
    return value if len(value) <= LONGEST else f"{value[:LONGEST]} … ({len(value) - LONGEST} more characters)"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300 else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12 else None
