"""Do annotators agree: percent agreement, Cohen's and Fleiss' kappa, Krippendorff's alpha, and which items they disagree on.

Krippendorff's alpha is the one to use by default: it takes any number of annotators and items that some of them did not see. Intervals are percentile
bootstraps over items, as in `evaluation.intervals`; a coefficient is no mean of differences, so it is computed anew from each draw's sums. Where all agree
on everything, every draw does, and the interval has no width: it then says nothing about the next item.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np

from accord.annotation.judgements import Judgement, Table, Value, counted, tabulate

Scale = Literal["nominal", "ordinal", "interval"]
"""How far apart two values are: different or not; how many judgements lie between them; the square of their difference."""

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(how often each distinct row is drawn: (draws, rows); the rows: (rows, columns)) to a value a draw, nan where it has none. (draws,)"""

_CELLS_AT_ONCE = 2_000_000


class Reason(StrEnum):
    """Why there is no coefficient."""

    NO_JUDGEMENTS = "there are no judgements"
    ONE_ANNOTATOR = "only one annotator judged anything"
    NO_OVERLAP = "no item was judged by two annotators"
    NO_VARIATION = "everyone always gave the same value, so agreement by chance is certain too"
    UNEQUAL_COUNTS = "items have different numbers of judgements: use krippendorff_alpha"
    MORE_THAN_TWO = "there are more than two annotators: name two of them, or use krippendorff_alpha"


@dataclass(frozen=True)
class Agreement:
    """A coefficient with its interval, or the reason why there is none."""

    value: float | None
    """1 is perfect; for kappa and alpha 0 is what chance gives, and below 0 is worse than chance."""
    low: float | None
    high: float | None
    """None with `value` given: a single item, or most draws without a coefficient."""
    items: int
    """Items that count: those judged by two or more."""
    judgements: int
    """Judgements on those items."""
    reason: Reason | None = None


@dataclass(frozen=True)
class ItemDisagreement:
    """How far apart the annotators of one item are."""

    item: str
    values: dict[Value, int]
    """How often each value was given."""
    disagreeing_share: float
    """Share of pairs of judgements with different values, 0 to 1."""
    disagreement: float
    """Mean distance of pairs over that of pairs drawn from all items: 0 all agree, 1 as far apart as judgements of different items. Weighted by judgements, its mean is 1 - alpha."""


def percent_agreement(
    judgements: Sequence[Judgement], *, without: Collection[Value] = (), level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Agreement:
    """Share of pairs of judgements on the same item, by different annotators, that say the same; every pair counts once.

    Not corrected for chance: two coins agree on half of all comparisons. MT-bench (Zheng et al. 2023) reports it with ties, where two ties agree and a tie
    and a choice do not, and without: `without={TIE}` leaves tied judgements out, not whole items.

    Args:
        without: values whose judgements are left out.
        level: coverage of the interval, 0 to 1.
        draws: of the bootstrap over items.
        seed: of the bootstrap.
    """
    table, reason = _overlapping(counted(judgements, without=without))
    if reason:
        return _none(table, reason)
    size = table.per_item
    rows = np.stack([(table.counts * (table.counts - 1)).sum(1), size * (size - 1)], axis=1)
    return _measured(table, rows, lambda weights, rows: (weights @ rows[:, 0]) / (weights @ rows[:, 1]), level, draws, seed)


def cohen_kappa(
    judgements: Sequence[Judgement],
    annotators: tuple[str, str] | None = None,
    *,
    weights: Literal["none", "linear", "quadratic"] = "none",
    order: Sequence[Value] | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Agreement:
    """Cohen's kappa of two annotators on the items that both judged (Cohen 1960; weighted, Cohen 1968): (agreed - chance) / (1 - chance).

    Args:
        annotators: whom to compare; None where there are only two.
        weights: how much of a disagreement counts, by how many places lie between the two values: "none" all of it, "linear" or "quadratic" in the places.
        order: all values from lowest to highest; needed where weights are wanted and values are not numbers.
    """
    kept = counted(judgements)
    if annotators is not None:
        kept = [one for one in kept if one.annotator in annotators]
    table, reason = _overlapping(kept, order=order, numeric=weights != "none")
    if len(table.annotators) > 2:
        return _none(table, Reason.MORE_THAN_TWO)
    if reason is None and len(set(table.value.tolist())) == 1:
        reason = Reason.NO_VARIATION
    if reason:
        return _none(table, reason)
    by_annotator = np.zeros((len(table.items), 2), dtype=np.int64)
    by_annotator[table.item, table.annotator] = table.value
    count = len(table.values)
    places = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    distance = {"none": (places > 0).astype(float), "linear": places.astype(float), "quadratic": places.astype(float) ** 2}[weights]

    def kappa(drawn: np.ndarray, rows: np.ndarray) -> np.ndarray:
        total = drawn.sum(1)
        first, second = (drawn @ np.eye(count)[rows[:, index]] for index in (0, 1))
        return _one_minus(drawn @ distance[rows[:, 0], rows[:, 1]] * total, ((first @ distance) * second).sum(1))

    return _measured(table, by_annotator, kappa, level, draws, seed)


def fleiss_kappa(judgements: Sequence[Judgement], *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Agreement:
    """Fleiss' kappa (Fleiss 1971): every item judged by the same number of annotators, not always the same ones."""
    kept = counted(judgements)
    sizes = set(Counter(one.item for one in kept).values())
    table, reason = _overlapping(kept)
    if reason in (None, Reason.NO_OVERLAP) and len(sizes) > 1:
        reason = Reason.UNEQUAL_COUNTS
    if reason is None and len(set(table.value.tolist())) == 1:
        reason = Reason.NO_VARIATION
    if reason:
        return _none(table, reason)

    def kappa(drawn: np.ndarray, rows: np.ndarray) -> np.ndarray:
        size = float(rows[0].sum())
        disagreed = 1 - (rows * (rows - 1)).sum(1) / (size * (size - 1))
        shares = (drawn @ rows) / (drawn.sum(1, keepdims=True) * size)
        return _one_minus((drawn @ disagreed) / drawn.sum(1), 1 - (shares**2).sum(1))

    return _measured(table, table.counts, kappa, level, draws, seed)


def krippendorff_alpha(
    judgements: Sequence[Judgement],
    *,
    scale: Scale = "nominal",
    order: Sequence[Value] | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Agreement:
    """Krippendorff's alpha (2011, Computing Krippendorff's Alpha-Reliability): 1 - observed / expected disagreement of pairs.

    Annotators may differ from item to item; items judged once do not count. Expected disagreement is that of two judgements drawn without replacement from
    all that count. A common reading (Krippendorff 2004): above 0.8 reliable, 0.667 to 0.8 for tentative conclusions. Comparisons of model answers usually
    stay below, because many pairs are close; then each needs more judgements, see `dawid_skene.majority_accuracy`.

    Args:
        scale: distance of two values. "ordinal" and "interval" need numbers, or `order`, whose values then lie one apart.
        order: all values from lowest to highest.
        level: coverage of the interval, 0 to 1.
        draws: of the bootstrap over items; those in which all values are the same have no alpha and are left out.
        seed: of the bootstrap.
    """
    table, reason = _overlapping(counted(judgements), order=order, numeric=scale != "nominal")
    if reason is None and len(set(table.value.tolist())) == 1:
        reason = Reason.NO_VARIATION
    if reason:
        return _none(table, reason)
    if scale == "interval":
        return _measured(table, _moments(table, _sizes(table, order)), _alpha_of_moments, level, draws, seed)
    return _measured(table, table.counts, _alpha_nominal if scale == "nominal" else _alpha_ordinal, level, draws, seed)


def item_disagreements(
    judgements: Sequence[Judgement], *, scale: Scale = "nominal", order: Sequence[Value] | None = None
) -> list[ItemDisagreement]:
    """How far apart annotators are on each item that two or more judged, in the order of the items.

    Args:
        scale, order: as for `krippendorff_alpha`.
    """
    table, reason = _overlapping(counted(judgements), order=order, numeric=scale != "nominal")
    if reason:
        return []
    counts, size = table.counts, table.per_item
    differing = 1 - (counts * (counts - 1)).sum(1) / (size * (size - 1))
    totals = counts.sum(0)
    if scale == "nominal":
        distance, total = differing, float(totals.sum())
        expected = 1 - float((totals * (totals - 1)).sum()) / (total * (total - 1))
    else:
        scores = _sizes(table, order) if scale == "interval" else _middle_ranks(totals[None].astype(float))[0]
        rows = _moments(table, scores)
        distance, expected = _mean_distance(rows), float(_mean_distance(rows.sum(0, keepdims=True))[0])
    relative = distance / expected if expected > 1e-12 else np.zeros(len(size))
    return [
        ItemDisagreement(
            item, {table.values[place]: int(counts[index, place]) for place in np.flatnonzero(counts[index])}, float(share), float(value)
        )
        for index, (item, share, value) in enumerate(zip(table.items, differing, relative, strict=True))
    ]


def _overlapping(kept: list[Judgement], *, order: Sequence[Value] | None = None, numeric: bool = False) -> tuple[Table, Reason | None]:
    """The judgements of items that two or more annotators judged, or why there are none."""
    size = Counter(one.item for one in kept)
    shared = [one for one in kept if size[one.item] > 1]
    if not kept:
        reason = Reason.NO_JUDGEMENTS
    elif len({one.annotator for one in kept}) == 1:
        reason = Reason.ONE_ANNOTATOR
    else:
        reason = None if shared else Reason.NO_OVERLAP
    return tabulate(shared, order=order, numeric=numeric), reason


def _none(table: Table, reason: Reason) -> Agreement:
    return Agreement(None, None, None, len(table.items), len(table.item), reason)


def _measured(table: Table, rows: np.ndarray, statistic: Statistic, level: float, draws: int, seed: int) -> Agreement:
    """The statistic of the rows (one an item) and its percentile interval over items drawn with replacement.

    Equal rows are drawn together, a multinomial number of times, which is the same distribution and does not depend on the order of the items.
    """
    distinct, times = np.unique(rows, axis=0, return_counts=True)
    items = int(times.sum())
    value = float(statistic(times[None].astype(float), distinct)[0])
    generator, found = np.random.default_rng(seed), []
    at_once = max(1, _CELLS_AT_ONCE // len(times))
    for start in range(0, draws, at_once):
        drawn = generator.multinomial(items, times / items, size=min(at_once, draws - start))
        found.append(statistic(drawn.astype(float), distinct))
    values = np.sort(np.concatenate(found))
    values = values[np.isfinite(values)]
    if items < 2 or len(values) < draws / 2:
        return Agreement(value, None, None, items, len(table.item))
    tail = (1 - level) / 2
    low, high = values[int(tail * len(values))], values[min(len(values) - 1, int((1 - tail) * len(values)))]
    return Agreement(value, float(low), float(high), items, len(table.item))


def _one_minus(observed: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """1 - observed / expected, nan where nothing is expected."""
    known = expected > 1e-12
    return np.where(known, 1 - observed / np.where(known, expected, 1.0), np.nan)


def _alpha_nominal(drawn: np.ndarray, counts: np.ndarray) -> np.ndarray:
    size, totals = counts.sum(1), drawn @ counts
    total = totals.sum(1)
    within = size - (counts * (counts - 1)).sum(1) / (size - 1)
    return _one_minus(drawn @ within, total - (totals * (totals - 1)).sum(1) / (total - 1))


def _alpha_ordinal(drawn: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """With n_g values of rank g, Krippendorff's ordinal distance of c and k is the square of the difference of their middle ranks."""
    totals = drawn @ counts
    total, ranks, size = totals.sum(1), _middle_ranks(totals), counts.sum(1, keepdims=True)
    within = 2 * (size * (counts @ (ranks**2).T) - (counts @ ranks.T) ** 2) / (size - 1)
    expected = 2 * (total * (totals * ranks**2).sum(1) - (totals * ranks).sum(1) ** 2) / (total - 1)
    return _one_minus((drawn * within.T).sum(1), expected)


def _alpha_of_moments(drawn: np.ndarray, rows: np.ndarray) -> np.ndarray:
    totals = drawn @ rows
    return _one_minus(drawn @ (_mean_distance(rows) * rows[:, 0]), _mean_distance(totals) * totals[:, 0])


def _mean_distance(moments: np.ndarray) -> np.ndarray:
    """Mean of (x - y)^2 over ordered pairs of different judgements, from their number, sum and sum of squares. (rows, 3) to (rows,)"""
    count, total, squares = moments.T
    found = 2 * (count * squares - total**2) / (count * (count - 1))
    return np.where(found > 1e-10 * squares / count, found, 0.0)  # what rounding leaves of equal scores is no distance


def _moments(table: Table, scores: np.ndarray) -> np.ndarray:
    """Number, sum and sum of squares of the scores of each item. (items, 3)"""
    given, count = scores[table.value], len(table.items)
    return np.stack([np.bincount(table.item, weights=given**power, minlength=count) for power in (0, 1, 2)], axis=1)


def _sizes(table: Table, order: Sequence[Value] | None) -> np.ndarray:
    """A number a value, moved and stretched to mean 0 and deviation 1 so that squares keep their digits."""
    sizes = np.arange(len(table.values), dtype=float) if order is not None else np.array([float(value) for value in table.values])
    return (sizes - sizes.mean()) / (sizes.std() or 1.0)


def _middle_ranks(totals: np.ndarray) -> np.ndarray:
    """Middle rank of each value, as a share, from how often it was given. (draws, values)"""
    return (np.cumsum(totals, axis=1) - totals / 2) / totals.sum(1, keepdims=True)
