"""How each annotator works: right on gold, the same answer twice, pace, sides and lengths chosen, the same key again and again; and what to look at together.

Numbers start a conversation. A high rate of longer answers may be good judgement; a person who is told the rate can say which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from accord.annotation.agreement import ItemDisagreement, Scale, item_disagreements
from accord.annotation.binomial import Rate, rate, two_sided
from accord.annotation.judgements import LEFT, RIGHT, Judgement, Value

Key = Value
"""What was pressed: a side where sides are known, else the value."""


@dataclass(frozen=True)
class Consistency:
    """The same items shown twice to one annotator."""

    same: Rate
    """Share of repeats with the same value as at first. A repeat of a close pair may honestly differ; the team's own share is the measure."""
    swapped: int
    """Repeats shown the other way round, with a choice both times."""
    stayed_left: int
    """Of those: the left answer both times, so another answer each time."""
    stayed_right: int
    p_value: float | None
    """Exact two-sided probability of a split of the stayed ones at least so uneven if sides did not matter; None where nobody stayed."""


@dataclass(frozen=True)
class Streak:
    """The longest run of one key."""

    key: Key | None
    length: int
    probability: float | None
    """That independent presses give a run of some key at least as long; None without a press."""


@dataclass(frozen=True)
class AnnotatorReport:
    """One annotator's numbers, and the same in words for them to read."""

    annotator: str
    judgements: int
    """Skipped ones excluded."""
    skipped: int
    gold: Rate
    """Right on test items."""
    consistency: Consistency
    median_seconds: float | None
    left: Rate
    """Choices of the left answer, against 0.5: sides are shuffled."""
    longer: Rate
    """Choices of the longer answer, against 0.5; longer answers are often better, so compare with the team's."""
    streak: Streak
    words: tuple[str, ...]


def annotator_reports(judgements: Sequence[Judgement]) -> list[AnnotatorReport]:
    """A report for each annotator, by name. Judgements are in the order in which they were given."""
    chances = key_chances(judgements)
    return [
        annotator_report([one for one in judgements if one.annotator == name], chances)
        for name in sorted({j.annotator for j in judgements})
    ]


def annotator_report(own: Sequence[Judgement], chances: Mapping[Key, float]) -> AnnotatorReport:
    """The report of one annotator.

    Args:
        own: their judgements, in the order in which they were given; at least one.
        chances: of each key; from `key_chances` of the whole team.
    """
    given = [one for one in own if one.value is not None]
    sides = [one.side for one in given if one.side is not None]
    longer = [one.chose_longer for one in given if one.chose_longer is not None]
    tested = [one.value == one.gold for one in given if one.gold is not None]
    seconds = [one.seconds for one in given if one.seconds is not None]
    gold, left = rate(sum(tested), len(tested)), rate(sides.count(LEFT), len(sides), expected=0.5)
    long, same = rate(sum(longer), len(longer), expected=0.5), consistency(own)
    words = [
        f"You were right {gold.words} where the answer is known." if gold.count else "",
        f"Shown something again, you said the same {same.same.words}." if same.same.count else "",
        f"You choose the answer on the left {left.words}; sides are shuffled, so half is expected." if left.count else "",
        f"You choose the longer answer {long.words}." if long.count else "",
    ]
    return AnnotatorReport(
        annotator=own[0].annotator,
        judgements=len(given),
        skipped=len(own) - len(given),
        gold=gold,
        consistency=same,
        median_seconds=median(seconds) if seconds else None,
        left=left,
        longer=long,
        streak=longest_streak([_key(one) for one in given], chances),
        words=tuple(filter(None, words)),
    )


def consistency(own: Sequence[Judgement]) -> Consistency:
    """One annotator's repeats against what they said first; repeats of something they never answered do not count."""
    first = {one.item: one for one in own if one.repeat_of is None and one.value is not None}
    pairs = [(first[one.repeat_of], one) for one in own if one.repeat_of in first and one.value is not None]
    swapped = [(before, after) for before, after in pairs if before.side and after.side and before.shown_order != after.shown_order]
    left = sum(before.side == after.side == LEFT for before, after in swapped)
    right = sum(before.side == after.side == RIGHT for before, after in swapped)
    return Consistency(
        same=rate(sum(before.value == after.value for before, after in pairs), len(pairs)),
        swapped=len(swapped),
        stayed_left=left,
        stayed_right=right,
        p_value=two_sided(left, left + right, 0.5) if left + right else None,
    )


def key_chances(judgements: Sequence[Judgement]) -> dict[Key, float]:
    """How often the team presses each key. Left and right share theirs evenly: sides are shuffled, so neither is favored by what is shown."""
    counter = Counter(_key(one) for one in judgements if one.value is not None)
    pressed: dict[Key, float] = dict(counter)
    if LEFT in pressed or RIGHT in pressed:
        pressed[LEFT] = pressed[RIGHT] = (counter[LEFT] + counter[RIGHT]) / 2
    return {key: count / counter.total() for key, count in pressed.items()}


def longest_streak(keys: Sequence[Key], chances: Mapping[Key, float]) -> Streak:
    """The longest run of one key, and how probable one as long is when every press is drawn independently.

    Exact: a Markov chain over (key, length of the current run). Items that come sorted make honest runs: shuffle them.

    Args:
        keys: in the order in which they were pressed.
        chances: probability of every key; they sum to 1.
    """
    if not keys:
        return Streak(None, 0, None)
    best, run, key = 0, 0, keys[0]
    for index, pressed in enumerate(keys):
        run = run + 1 if index and pressed == keys[index - 1] else 1
        if run > best:
            best, key = run, pressed
    return Streak(key, best, streak_probability(best, len(keys), list(chances.values())))


def streak_probability(length: int, presses: int, chances: Sequence[float]) -> float:
    """Probability that `presses` independent presses hold a run of some key of at least `length`."""
    if length <= 1:
        return float(presses >= length)
    each = np.asarray(chances, dtype=float)
    state = np.zeros((len(each), length - 1))  # [key, run - 1]: where no run has reached the length yet
    state[:, 0], reached = each, 0.0
    for _ in range(presses - 1):
        reached += float(each @ state[:, -1])
        of_key = state.sum(1)
        state[:, 1:] = each[:, None] * state[:, :-1]
        state[:, 0] = each * (of_key.sum() - of_key)
    return min(1.0, reached)


def adjudication_queue(
    judgements: Sequence[Judgement], *, scale: Scale = "nominal", order: Sequence[Value] | None = None
) -> list[ItemDisagreement]:
    """Items on which annotators differ, the furthest apart first; of equals those with more judgements, then by name.

    Args:
        scale, order: as for `agreement.krippendorff_alpha`.
    """
    differing = [found for found in item_disagreements(judgements, scale=scale, order=order) if found.disagreeing_share > 0]
    return sorted(differing, key=lambda found: (-round(found.disagreement, 12), -sum(found.values.values()), found.item))


def _key(one: Judgement) -> Key:
    return one.side or (one.value if one.value is not None else "")
