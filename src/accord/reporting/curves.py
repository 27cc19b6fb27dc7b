"""A run's metrics.jsonl as curves: read once, gone on with as it grows, and thinned so that a chart of a million steps stays a chart."""

from __future__ import annotations

import json
import math
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from accord.reporting.run_files import Position, clean, last_lines, lines_after

BUCKETS = 500
"""Each keeps its lowest and its highest point, so a curve has at most twice as many."""
MOST_NAMES, LONGEST_NAME = 300, 120
EVALUATED = "eval_"
GROUPS = (
    ("Reward", r"objective/(scores|rlhf_reward|non_score_reward).*|rewards?|rewards/.*|(reward|mean_reward|min_reward|max_reward)(_std)?"),
    ("KL", r"objective/kl.*|kl|policy/approxkl.*|sampling/mismatch_kl"),
    ("Answer length", r"completions/.*(length|clipped_ratio).*"),
    ("Loss", r"loss|loss/.*"),
    ("Accuracy", r"accuracy.*|margin|mean_token_.*|perplexed_tokens|error_share"),
    ("Monitors", r"monitors/.*"),
    ("Other", r".*"),
)
"""Headings of the page and the names below each, without `eval_`; the first that fits."""
HEADLINES = {
    "reward": ("objective/scores", "reward"),
    "kl": ("objective/kl", "kl"),
    "length": ("completions/mean_length",),
    "loss": ("loss",),
}
"""What a list of runs shows, by the names that methods log it under."""
TITLES = {
    "objective/scores": "reward of the round",
    "reward": "reward of the round",
    "objective/kl": "KL from the reference, nats an answer",
    "kl": "KL baseline, nats",
    "completions/mean_length": "mean answer, tokens",
    "completions/clipped_ratio": "share of answers cut off",
    "rewards/accuracies": "share of pairs on the right side",
    "rewards/margins": "margin of the implicit rewards",
    "accuracy": "share right",
    "grad_norm": "gradient norm before clipping",
    "step_seconds": "seconds a step",
    "monitors/alarms": "alarms that stand",
    "entropy": "entropy, nats a token",
    "objective/entropy": "entropy of sampled answers, nats",
}


@dataclass(frozen=True)
class Row:
    """One line of metrics.jsonl: numbers by name; None where a number is not finite."""

    step: float
    values: dict[str, float | None]


def row_of(line: bytes) -> Row | None:
    """A line as a row; None if it has no step, or is no JSON object."""
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    numbers = {str(name): value for name, value in cast("dict[str, Any]", found).items() if _is_number(value)}
    values = {clean(name): _finite(value) for name, value in numbers.items() if len(name) <= LONGEST_NAME}
    step = values.pop("step", None)
    return Row(step, values) if step is not None else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _finite(value: int | float) -> float | None:
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond floats
        return None


def newest(path: Path, *, limit: int = 1 << 18) -> Row | None:
    """The newest value of each name that stands in the file's last `limit` bytes, and the newest step; None if no row stands there."""
    step: float | None = None
    values: dict[str, float | None] = {}
    for row in map(row_of, reversed(last_lines(path, limit=limit))):
        if row is not None:
            step = row.step if step is None else step
            values = row.values | values
    return Row(step, values) if step is not None else None


def headline(values: dict[str, float | None]) -> dict[str, float | None]:
    """Reward, KL, length and loss of a row; None for what its method does not log."""
    return {key: next((values[name] for name in names if name in values), None) for key, names in HEADLINES.items()}


@dataclass
class Curve:
    """One metric over steps: exact up to twice `BUCKETS` points, then the lowest and highest point of each bucket of equally many."""

    count: int = 0
    not_finite: int = 0
    last: float | None = None
    at: float | None = None
    """Step of `last`."""
    _stride: int = 1
    _in_last: int = 0
    _buckets: list[tuple[tuple[float, float], tuple[float, float]]] = field(
        default_factory=list[tuple[tuple[float, float], tuple[float, float]]]
    )
    """Lowest and highest point, (step, value)."""

    def add(self, step: float, value: float | None) -> None:
        """One more value; None counts as not finite."""
        if value is None:
            self.not_finite += 1
            return
        self.count, self.last, self.at = self.count + 1, value, step
        point = (step, value)
        if self._buckets and self._in_last < self._stride:
            self._buckets[-1] = _joined(self._buckets[-1], (point, point))
            self._in_last += 1
            return
        if len(self._buckets) == BUCKETS:
            pairs = zip(self._buckets[::2], self._buckets[1::2], strict=True)
            self._buckets, self._stride = [_joined(*pair) for pair in pairs], 2 * self._stride
        self._buckets.append((point, point))
        self._in_last = 1

    def points(self) -> list[tuple[float, float]]:
        """(step, value), oldest first."""
        return [point for low, high in self._buckets for point in ((low,) if low == high else sorted((low, high)))]

    def to_json(self) -> dict[str, Any]:
        """For the page: points, and the last, lowest and highest value."""
        values = [point[1] for bucket in self._buckets for point in bucket]
        return {
            "points": self.points(),
            "last": self.last,
            "at": self.at,
            "low": min(values, default=None),
            "high": max(values, default=None),
            "count": self.count,
            "not_finite": self.not_finite,
        }


def _joined(one: tuple[Any, Any], other: tuple[Any, Any]) -> tuple[Any, Any]:
    # Of equal values the earliest lowest and the latest highest, so that a flat stretch keeps its length.
    return min(one[0], other[0], key=lambda point: point[::-1]), max(one[1], other[1], key=lambda point: point[::-1])


class Curves:
    """All curves of one file. `update` reads what was added since; a file that was written anew is read anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self.position = Position()
        self.curves: dict[str, Curve] = {}
        self.rows = self.unreadable = 0
        self.left_out: set[str] = set()

    def update(self) -> None:
        """Read to the end of the last whole line. Another thread may ask at the same time."""
        with self._lock:
            while True:
                added = lines_after(self.path, self.position)
                if added is None or added.rewritten:
                    self._clear()
                if added is None:
                    return
                for line in added.lines:
                    self._take(line)
                self.position = added.position
                if not added.lines:
                    return

    def _take(self, line: bytes) -> None:
        row = row_of(line)
        if row is None:
            self.unreadable += 1
            return
        self.rows += 1
        for name, value in row.values.items():
            if name not in self.curves:
                if len(self.curves) >= MOST_NAMES:
                    if len(self.left_out) < MOST_NAMES:
                        self.left_out.add(name)
                    continue
                self.curves[name] = Curve()
            self.curves[name].add(row.step, value)

    def to_json(self) -> dict[str, Any]:
        """For the page: charts under headings, and where to go on reading."""
        with self._lock:
            charts: dict[str, list[str]] = {}
            for name in self.curves:
                charts.setdefault(name.removeprefix(EVALUATED), []).append(name)
            groups = [
                {
                    "title": title,
                    "charts": [self._chart(base, charts[base]) for base in sorted(charts, key=_rank) if group_of(base) == title],
                }
                for title, _ in GROUPS
            ]
            return {
                "position": str(self.position),
                "rows": self.rows,
                "unreadable": self.unreadable,
                "left_out": len(self.left_out),
                "groups": [group for group in groups if group["charts"]],
            }

    def _chart(self, base: str, names: list[str]) -> dict[str, Any]:
        lines = [
            {"name": name, "held_out": name != base, **self.curves[name].to_json()} for name in sorted(names, key=lambda name: name != base)
        ]
        return {"name": base, "title": TITLES.get(base, base), "lines": lines}


def group_of(base: str) -> str:
    """The heading that a metric stands under."""
    return next(title for title, pattern in GROUPS if re.fullmatch(pattern, base, re.DOTALL))


def _rank(base: str) -> tuple[bool, str]:
    return all(base not in names for names in HEADLINES.values()), base
