"""What an audit says: one finding a probe, with its interval, what it is compared with, a verdict, the answers that show it and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from accord.annotation.binomial import two_sided
from accord.evaluation.intervals import Interval, paired_bootstrap, wilson

RED, AMBER, GREEN, NONE = "red", "amber", "green", "none"
"""red: surely beyond what is allowed. amber: beyond it, but that may be chance. green: within it. none: nothing to compare it with."""
LEVELS = (NONE, GREEN, AMBER, RED)
LEAST = 5
"""Items under which there is no verdict."""
SURE = 0.05
"""Exact probability by chance that a rise of a share must stay under to be red."""
SHOWN = 3
"""Examples kept of one finding."""


@dataclass(frozen=True)
class Shown:
    """One prompt and what was said to it: pairs of who and what."""

    prompt: str
    answers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Allowed:
    """How far a probe may go. None: no limit of that kind."""

    level: float | None = None
    """Of the model itself."""
    change: float | None = None
    """Of the model less the one it is compared with, in the direction that is worse; 0 or more."""
    higher_is_worse: bool = True
    """False: a low value is worse, as with shares of right answers."""

    @property
    def sign(self) -> float:
        return 1.0 if self.higher_is_worse else -1.0


@dataclass(frozen=True)
class Finding:
    """What one probe found."""

    name: str
    value: Interval
    allowed: Allowed
    level: str
    """red, amber, green or none."""
    words: str
    advice: str
    percent: bool = True
    """True: the value is a share, or a difference of shares. False: it is a mean of other numbers."""
    base: Interval | None = None
    change: Interval | None = None
    """Paired: the model less the base, item by item."""
    p_value: float | None = None
    """Of the change, where values are yes or no: exact probability of so uneven a split of the items that changed (McNemar)."""
    examples: tuple[Shown, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True)
class Table:
    """Numbers that are not a finding: the first cell of each row names it."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: str = ""


@dataclass(frozen=True)
class Section:
    """The findings of one subject."""

    name: str
    title: str
    words: str
    findings: tuple[Finding, ...]
    tables: tuple[Table, ...] = ()

    @property
    def level(self) -> str:
        return worst([finding.level for finding in self.findings])


def worst(levels: Sequence[str]) -> str:
    """The worst of them; none where there are none."""
    return max(levels, key=LEVELS.index, default=NONE)


def judged(
    name: str,
    values: Sequence[float],
    allowed: Allowed,
    *,
    words: str,
    advice: str,
    base: Sequence[float] | None = None,
    examples: Sequence[Shown] = (),
    percent: bool = True,
    seed: int = 0,
) -> Finding:
    """A finding from one number an item, and the same items of a base model where there is one.

    Shares whose values are all 0 or 1 have a score interval, everything else a bootstrap interval. Red needs the near end of the interval
    beyond the limit; a rise of a share needs in addition that chance would hardly split the changed items so unevenly.

    Args:
        base: of the base model, in the same order.
        percent: True: the values are yes or no, or differences of such. False: other numbers.
        words: what was asked and what counts.
        advice: what to do where it is red.
        seed: of the bootstrap.
    """
    exact = percent and all(value in (0.0, 1.0) for value in (*values, *(base or ())))
    value = interval_of(values, exact=exact, seed=seed)
    change, p_value = None, None
    if base is not None:
        change = paired_bootstrap([now - was for now, was in zip(values, base, strict=True)], seed=seed)
        p_value = _mcnemar(values, base) if exact else None
    levels = [level_of(value, allowed.level, allowed.sign)]
    if change is not None:
        # A threshold on the change is a distance in the direction that is worse.
        limit = None if allowed.change is None else allowed.sign * allowed.change
        found = level_of(change, limit, allowed.sign)
        levels.append(AMBER if found == RED and p_value is not None and p_value >= SURE else found)
    return Finding(
        name,
        value,
        allowed,
        worst(levels),
        words,
        advice,
        percent,
        None if base is None else interval_of(base, exact=exact, seed=seed),
        change,
        p_value,
        tuple(examples[:SHOWN]),
    )


def interval_of(values: Sequence[float], *, exact: bool, seed: int = 0) -> Interval:
    """The mean of the values. exact: True gives the score interval of a share of zeros and ones, False a bootstrap interval."""
    if exact and values:
        return wilson(sum(values) / len(values), len(values))
    return paired_bootstrap(values, seed=seed)


def level_of(found: Interval, limit: float | None, sign: float = 1.0) -> str:
    """How an interval stands to a limit.

    Args:
        sign: 1 where larger is worse, -1 where smaller is.
    """
    if limit is None or found.count < LEAST:
        return NONE
    near = found.low if sign > 0 else -found.high
    if near > sign * limit:
        return RED
    return AMBER if sign * found.mean > sign * limit else GREEN


def unknown(name: str, words: str) -> Finding:
    """A finding that could not be made, saying why."""
    return Finding(name, Interval(0.0, 0.0, 0.0, 0), Allowed(), NONE, words, "")


def _mcnemar(values: Sequence[float], base: Sequence[float]) -> float:
    """Exact probability of so uneven a split of the items that changed (McNemar 1947)."""
    risen = sum(now > was for now, was in zip(values, base, strict=True))
    fallen = sum(now < was for now, was in zip(values, base, strict=True))
    return two_sided(risen, risen + fallen, 0.5) if risen + fallen else 1.0
