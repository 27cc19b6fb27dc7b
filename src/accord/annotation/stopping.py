"""How many comparisons are enough: planned before the first, or decided after any of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from accord.annotation.binomial import quantile
from accord.evaluation.intervals import Interval


def pairs_for_width(half_width: float, *, share: float = 0.5, level: float = 0.95) -> int:
    """Comparisons after which a win rate is known to plus or minus `half_width`: z^2 p (1 - p) / w^2, rounded up.

    Args:
        half_width: in shares; 0.05 is five points.
        share: the win rate; 0.5 is the widest case.
        level: coverage.
    """
    return _whole(quantile(level) ** 2 * share * (1 - share) / half_width**2)


def pairs_for_power(share: float, *, against: float = 0.5, power: float = 0.8, level: float = 0.95) -> int:
    """Comparisons that tell a win rate of `share` from `against` with probability `power` in a two-sided test of one proportion.

    n = ((z_level sqrt(q (1 - q)) + z_power sqrt(p (1 - p))) / (p - q))^2 with q = `against`, rounded up (Fleiss, Levin & Paik 2003, section 2.4, without
    the continuity correction).

    Args:
        level: one minus the probability of a false alarm.
    """
    spread = quantile(level) * math.sqrt(against * (1 - against)) + NormalDist().inv_cdf(power) * math.sqrt(share * (1 - share))
    return _whole((spread / (share - against)) ** 2)


def log_mixture(wins: float, count: int, share: float, *, weight: float = 10.0) -> float:
    """Log of the beta-binomial mixture martingale for a win rate of `share`: B(w + a, n - w + a) / B(a, a) / (p^w (1 - p)^(n - w)).

    Starts at 0 (no comparison). If `share` is the win rate, its exponential ever reaches 1 / alpha with probability at most alpha (Ville 1939).

    Args:
        wins: a tie counts 0.5.
        weight: a of the symmetric beta mixture. 10 looks for win rates within about 0.11 of 0.5, where those of successive models lie; 1 is even over all
            rates. Any is valid; it only decides where the interval is narrow.
    """
    losses = count - wins
    if (share <= 0.0 and wins > 0) or (share >= 1.0 and losses > 0):
        return math.inf
    mixed = _log_beta(wins + weight, losses + weight) - _log_beta(weight, weight)
    return mixed - (wins * math.log(share) if wins else 0.0) - (losses * math.log1p(-share) if losses else 0.0)


def always_valid(wins: float, count: int, *, level: float = 0.95, weight: float = 10.0) -> Interval:
    """A win rate with an interval that holds at every look: look after each comparison and stop when you like.

    The confidence sequence of the beta-binomial mixture (Robbins 1970; Howard et al. 2021, arXiv:1810.08240): all rates whose martingale is below
    1 / (1 - level). It is exact for wins and losses; ties as half a win keep it valid, because the likelihood ratio is convex in the outcome, and make
    it wider than need be. Wider than an interval for one look by about half at 400 comparisons, which is what looking costs.

    Args:
        wins: wins plus half the ties, 0 to `count`.
        count: comparisons so far.
    """
    if count == 0:
        return Interval(0.5, 0.0, 1.0, 0)
    share, bound = wins / count, -math.log(1 - level)

    def edge(inside: float, outside: float) -> float:
        for _ in range(60):
            middle = (inside + outside) / 2
            if log_mixture(wins, count, middle, weight=weight) < bound:
                inside = middle
            else:
                outside = middle
        return outside

    return Interval(share, edge(share, 0.0), edge(share, 1.0), count)


def pairs_for_always_valid_width(half_width: float, *, level: float = 0.95, weight: float = 10.0) -> int:
    """Comparisons after which the interval of `always_valid` is at most plus or minus `half_width` wide at a win rate of 0.5."""

    def enough(count: int) -> bool:
        found = always_valid(count / 2, count, level=level, weight=weight)
        return found.high - found.low <= 2 * half_width

    high = 1
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@dataclass(frozen=True)
class Planned:
    """How many comparisons a question takes, and from which formula."""

    question: str
    comparisons: int
    arithmetic: str


def planned(*, half_width: float = 0.05, share: float = 0.6, power: float = 0.8, level: float = 0.95) -> tuple[Planned, ...]:
    """The sizes that people plan with: an interval of a width, a difference that is found, and the price of looking after each comparison.

    Args:
        half_width: as for `pairs_for_width`.
        share, power: as for `pairs_for_power`.
        level: of all three.
    """
    z, z_power, points = quantile(level), NormalDist().inv_cdf(power), 100 * half_width
    width, told = pairs_for_width(half_width, level=level), pairs_for_power(share, power=power, level=level)
    looking = pairs_for_always_valid_width(half_width, level=level)
    spread, other = math.sqrt(0.25), math.sqrt(share * (1 - share))
    exact = ((z * spread + z_power * other) / (share - 0.5)) ** 2
    return (
        Planned(
            f"a win rate to ±{points:g} points, looked at once",
            width,
            f"{z:.2f}² × 0.5 × 0.5 / {half_width:g}² = {z**2 * 0.25 / half_width**2:.1f}",
        ),
        Planned(
            f"{100 * share:g} % told from 50 % in {100 * power:g} of 100 cases, looked at once",
            told,
            f"(({z:.2f} × √0.25 + {z_power:.2f} × √{share * (1 - share):.2f}) / {share - 0.5:.2f})² = {exact:.1f}",
        ),
        Planned(
            f"a win rate to ±{points:g} points, looked at after every comparison",
            looking,
            f"the first number at which B(n/2 + 10, n/2 + 10) / B(10, 10) × p^(-n/2) (1 - p)^(-n/2) is 1 / {1 - level:.2g} at p = {0.5 + half_width:g}",
        ),
    )


@dataclass(frozen=True)
class Decision:
    """Whether to stop comparing the new model with the old."""

    stop: bool
    interval: Interval
    """Of the new one's win rate, ties half, valid at every look."""
    words: str
    arithmetic: str
    """What the decision rests on."""


def decide(wins: int, ties: int, losses: int, *, half_width: float = 0.05, level: float = 0.95) -> Decision:
    """Stop when the interval excludes 0.5, or when it is narrow enough to say that the two are alike.

    Args:
        wins: of the new model; ties and losses likewise.
        half_width: how near to 0.5 is "alike", in shares.
    """
    count = wins + ties + losses
    found, how = always_valid(wins + 0.5 * ties, count, level=level), _arithmetic(wins, ties, count, level)
    span = f"{100 * found.low:.0f} to {100 * found.high:.0f} %"
    if found.low > 0.5:
        return Decision(True, found, f"Stop: the new model wins {100 * found.mean:.0f} % of {count} comparisons ({span}), ties half.", how)
    if found.high < 0.5:
        words = f"Stop: the new model loses; it wins {100 * found.mean:.0f} % of {count} comparisons ({span}), ties half."
        return Decision(True, found, words, how)
    if found.high - found.low <= 2 * half_width:
        return Decision(True, found, f"Stop: after {count} comparisons the win rate is {span}; a difference, if any, is small.", how)
    most = pairs_for_always_valid_width(half_width, level=level)
    words = f"Go on: after {count} comparisons the win rate is {span}. At most about {max(1, most - count)} more decide it."
    return Decision(False, found, words, how)


def _arithmetic(wins: int, ties: int, count: int, level: float) -> str:
    if not count:
        return "nothing was compared yet"
    points = wins + 0.5 * ties
    against = math.exp(min(600.0, log_mixture(points, count, 0.5)))
    return (
        f"({wins} + {ties} / 2) / {count} = {points / count:.3f}; the evidence against 50 % is "
        f"B({points:g} + 10, {count - points:g} + 10) / B(10, 10) × 2^{count} = {against:.3g}, and {1 / (1 - level):.0f} (1 / {1 - level:.2g}) stops"
    )


def _whole(count: float) -> int:
    return math.ceil(count - 1e-9)


def _log_beta(first: float, second: float) -> float:
    return math.lgamma(first) + math.lgamma(second) - math.lgamma(first + second)
