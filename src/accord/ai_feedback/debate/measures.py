"""What protocols are worth: how often the judge is right, how sure it is, what quotes are worth, who persuades, and what a decision costs."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from accord.ai_feedback.calibration import calibration_error
from accord.ai_feedback.check import first_bias, position_consistency
from accord.ai_feedback.debate.running import Decision
from accord.errors import DataError
from accord.evaluation.intervals import Interval, paired_bootstrap, wilson
from accord.objectives.ratings import ELO_POINTS, bradley_terry_strengths

RIGHT, WRONG = "for the right answer", "for the wrong answer"
DRAWS = 400
"""Bootstrap draws of ratings, each a fit."""


@dataclass(frozen=True)
class Quoted:
    """Quotes of one side."""

    quotes: int
    verified: int
    precision: Interval | None
    """Verified over all (Wilson). None: nobody quoted."""


@dataclass(frozen=True)
class Measured:
    """One protocol. What rests on the right answers is None where nobody knows them."""

    protocol: str
    tasks: int
    decisions: int
    invalid: dict[str, int]
    """Decisions without a valid verdict, by reason; they are in none of the shares."""
    accuracy: Interval | None
    """Right 1, wrong 0, a tie or an inconsistent verdict 0.5; the mean of each task's decisions, with a bootstrap over tasks."""
    minus_naive: Interval | None
    """The same minus naive's, paired by task. None without both."""
    towards_right: float | None
    """Mean probability that the judge gives to the right answer."""
    brier: float | None
    """Mean of its squared distance from 1: 0.25 is a coin."""
    calibration_error: float | None
    consistency: Interval | None
    """Share of decisions with the same winner in both orders."""
    first_bias: float | None
    """Mean probability of the answer shown first; 0.5 is no bias."""
    quotes: dict[str, Quoted]
    """Of who argued for the right answer, and for the wrong one."""
    silent: int
    """Turns without an argument."""
    cut: int
    """Turns whose argument was too long."""
    turns: int
    judge_tokens: float
    """A decision (both orders), questions and answers."""
    debater_tokens: float


@dataclass(frozen=True)
class Ratings:
    """Bradley-Terry ratings of debaters by which answer they argued for, in points of the Elo scale around 0."""

    points: dict[str, Interval] = field(default_factory=dict[str, Interval])
    problem: str | None = None
    """Why there are none."""


def measured(decisions: Sequence[Decision], *, seed: int = 0) -> list[Measured]:
    """Each protocol on its own, in the order in which they come."""
    by_protocol: dict[str, list[Decision]] = {}
    for decision in decisions:
        by_protocol.setdefault(decision.case.protocol.name, []).append(decision)
    naive = by_task(by_protocol.get("naive", []), lambda one: one.correct)
    return [_measured(name, some, naive if name != "naive" else {}, seed) for name, some in by_protocol.items()]


def by_task(decisions: Sequence[Decision], value: Callable[[Decision], float | None]) -> dict[str, float]:
    """The mean of a value over each task's decisions, by the task's id; those without it are left out."""
    found: dict[str, list[float]] = {}
    for decision in decisions:
        said = value(decision)
        if said is not None:
            found.setdefault(decision.case.task.id, []).append(said)
    return {task: sum(values) / len(values) for task, values in found.items()}


def ratings(decisions: Sequence[Decision], *, seed: int = 0) -> Ratings:
    """Who persuades the judge: players are debaters by the truth of what they argue for; a judge's probability is that share of a win.

    Only decisions with two debaters count. Intervals resample tasks; a draw without a finite rating is left out, and too many of those
    leave no interval to state.
    """
    games = _games(decisions)
    names = sorted({name for some in games.values() for pair in some for name in pair[:2]})
    if len(names) < 2:
        return Ratings(problem="no decision has two debaters and a known right answer")
    try:
        points = _points(list(games.values()), names)
    except DataError as error:
        return Ratings(problem=str(error))
    generator = random.Random(seed)
    drawn: list[list[float]] = []
    for _ in range(DRAWS):
        try:
            drawn.append(_points(generator.choices(list(games.values()), k=len(games)), names))
        except DataError:
            continue
    if len(drawn) < 0.9 * DRAWS:
        return Ratings(
            problem=f"in {DRAWS - len(drawn)} of {DRAWS} resamples of the tasks somebody wins everything: too few tasks for ratings"
        )
    found: dict[str, Interval] = {}
    for index, name in enumerate(names):
        values = sorted(one[index] for one in drawn)
        found[name] = Interval(points[index], values[int(0.025 * len(values))], values[int(0.975 * len(values))], len(games))
    return Ratings(found)


def as_json(found: Sequence[Measured], rated: Ratings) -> dict[str, Any]:
    """A JSON-able form."""
    return {"protocols": [dataclasses.asdict(one) for one in found], "ratings": dataclasses.asdict(rated)}


Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Header and rows, as text."""


def accuracy_table(found: Sequence[Measured]) -> Table:
    """How often the judge is right, a row a protocol."""
    header = ("protocol", "judge right (95 %)", "minus naive", "tasks", "decisions", "invalid")
    return header, [
        (
            one.protocol,
            interval_text(one.accuracy),
            interval_text(one.minus_naive, signed=True),
            str(one.tasks),
            str(one.decisions),
            str(sum(one.invalid.values())),
        )
        for one in found
    ]


def trust_table(found: Sequence[Measured]) -> Table:
    """How sure it is and whether it may be, what order does, and what a decision costs; a row a protocol."""
    header = ("protocol", "p(right)", "Brier", "ECE", "consistent", "p(first)", "tokens, judge", "debaters")
    return header, [
        (
            one.protocol,
            *map(number_text, (one.towards_right, one.brier, one.calibration_error)),
            *map(number_text, (one.consistency and one.consistency.mean, one.first_bias)),
            f"{one.judge_tokens:.0f}",
            f"{one.debater_tokens:.0f}",
        )
        for one in found
    ]


def quote_table(found: Sequence[Measured]) -> Table:
    """What quotes are worth, of protocols in which somebody spoke."""
    header = ("protocol", "quotes, right side", "verified", "quotes, wrong side", "verified", "turns", "silent", "cut")
    rows: list[tuple[str, ...]] = []
    for one in found:
        if one.turns:
            sides = [cell for side in (RIGHT, WRONG) for cell in _quoted_cells(one.quotes.get(side))]
            rows.append((one.protocol, *sides, str(one.turns), str(one.silent), str(one.cut)))
    return header, rows


def _measured(name: str, some: Sequence[Decision], naive: Mapping[str, float], seed: int) -> Measured:
    right = by_task(some, lambda one: one.correct)
    towards = [one.towards_right for one in some if one.towards_right is not None]
    both = [right[task] - naive[task] for task in right if task in naive]
    verdicts = [one.verdict for one in some]
    turns = [turn for one in some for turn in one.turns]
    return Measured(
        name,
        len({one.case.task.id for one in some}),
        len(some),
        dict(Counter(verdict.invalid for verdict in verdicts if verdict.invalid)),
        paired_bootstrap(list(right.values()), seed=seed) if right else None,
        paired_bootstrap(both, seed=seed) if both else None,
        sum(towards) / len(towards) if towards else None,
        sum((1 - one) ** 2 for one in towards) / len(towards) if towards else None,
        calibration_error(towards) if towards else None,
        position_consistency(verdicts),
        first_bias(verdicts),
        _quotes(some),
        sum(turn.silent for turn in turns),
        sum(turn.cut for turn in turns),
        len(turns),
        sum(one.judge_tokens for one in some) / len(some),
        sum(one.debater_tokens for one in some) / len(some),
    )


def _quotes(decisions: Sequence[Decision]) -> dict[str, Quoted]:
    said: dict[str, list[bool]] = {}
    for decision in decisions:
        right = decision.case.task.right
        for run in decision.runs if right is not None else ():
            for turn in run.turns:
                side = RIGHT if run.answer_of(turn.statement.side) == right else WRONG
                said.setdefault(side, []).extend(segment.verified for segment in turn.statement.segments if segment.quote)
    return {side: Quoted(len(some), sum(some), wilson(sum(some) / len(some), len(some)) if some else None) for side, some in said.items()}


Game = tuple[str, str, float]
"""Two players and the share of a win that the first one has."""


def _games(decisions: Sequence[Decision]) -> dict[str, list[Game]]:
    """By task: the debater for the right answer against the one for the wrong."""
    found: dict[str, list[Game]] = {}
    for one in decisions:
        first, second = one.case.right_debater, one.case.wrong_debater
        if first is not None and second is not None and one.towards_right is not None:
            found.setdefault(one.case.task.id, []).append((f"{first}, {RIGHT}", f"{second}, {WRONG}", one.towards_right))
    return found


def _points(games: Sequence[Sequence[Game]], names: Sequence[str]) -> list[float]:
    place = {name: index for index, name in enumerate(names)}
    wins = torch.zeros(len(names), len(names), dtype=torch.float64)
    for some in games:
        for first, second, share in some:
            wins[place[first], place[second]] += share
            wins[place[second], place[first]] += 1 - share
    return (ELO_POINTS * bradley_terry_strengths(wins, names)).tolist()


def _quoted_cells(said: Quoted | None) -> tuple[str, str]:
    return ("0", "-") if said is None else (str(said.quotes), interval_text(said.precision))


def interval_text(interval: Interval | None, *, signed: bool = False) -> str:
    """`0.75 (0.60 to 0.86)`; a dash for None."""
    sign = "+" if signed else ""
    return "-" if interval is None else f"{interval.mean:{sign}.2f} ({interval.low:{sign}.2f} to {interval.high:{sign}.2f})"


def points_text(points: Interval) -> str:
    """`+12 (-30 to +55)`."""
    return f"{points.mean:+.0f} ({points.low:+.0f} to {points.high:+.0f})"


def number_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
