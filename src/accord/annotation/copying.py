"""Two annotators whose answers go together more than the items explain: one may have copied, or both may be one person.

Labels of independent annotators are related only through the items. If each annotator's mean answer moves linearly with one hidden quantity of the item
(which answer is better, and by how much), the correlation of two annotators is the product of two loadings (Spearman 1904). Loadings fitted to all other
pairs predict what a pair should show. Unlike a truth inferred from votes this allows for items that are hard for everyone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from accord.annotation.judgements import TIE, Judgement, Table, counted, tabulate

LEAST_ANNOTATORS = 5
"""Of four, the pair that copies cannot be told from the two others."""


@dataclass(frozen=True)
class CommonAnswers:
    """Two annotators on the items that both judged."""

    first: str
    second: str
    items: int
    agreed: int
    """Items on which both said the same."""
    correlation: float
    expected: float
    """Correlation that their correlations with everyone else predict."""
    p_value: float
    """One-sided normal probability of a correlation so far above the expected one; both taken as estimates."""


def common_answers(
    judgements: Sequence[Judgement], *, least_items: int = 20, explained: Sequence[CommonAnswers] = ()
) -> list[CommonAnswers]:
    """Every two annotators with enough common items, the most improbable first; none in a team of fewer than five, which cannot show it.

    A pair that copies also makes the honest others look alike: read `suspects`, which takes the worst pair out before it looks at the next. Sides have to be
    shuffled for each annotator apart, or two who always press left answer alike.

    Args:
        least_items: fewer common ones are not looked at.
        explained: pairs left out of everything, because it is known why they agree.
    """
    table = tabulate(counted(judgements))
    names = table.annotators
    if len(names) < LEAST_ANNOTATORS:
        return []
    sizes, labels = _as_numbers(table), np.full((len(names), len(table.items)), -1)
    labels[table.annotator, table.item] = table.value
    correlations, common = _correlations(np.where(labels >= 0, sizes[labels], np.nan), least_items)
    for pair in explained:
        first, second = names.index(pair.first), names.index(pair.second)
        common[first, second] = common[second, first] = 0
    everyone = _loadings(correlations, common, np.full(len(names), 0.5), rounds=200)
    found: list[CommonAnswers] = []
    for first, second in combinations(range(len(names)), 2):
        count = int(common[first, second])
        if not count:
            continue
        others = common.copy()
        others[first, second] = others[second, first] = 0
        loadings = _loadings(correlations, others, everyone, rounds=40)
        expected, correlation = float(loadings[first] * loadings[second]), float(correlations[first, second])
        deviation = _deviation(loadings, others, first, second, count)
        p_value = 0.5 * math.erfc((correlation - expected) / deviation / math.sqrt(2)) if math.isfinite(deviation) else 1.0
        agreed = int(((labels[first] == labels[second]) & (labels[first] >= 0)).sum())
        found.append(CommonAnswers(names[first], names[second], count, agreed, correlation, expected, p_value))
    return sorted(found, key=lambda pair: (pair.p_value, pair.first, pair.second))


def suspects(judgements: Sequence[Judgement], *, chance: float = 0.001, excess: float = 0.1, least_items: int = 20) -> list[CommonAnswers]:
    """Pairs worth a question, the most improbable first: improbable even after looking at so many pairs (Bonferroni), and by a margin that matters.

    Args:
        chance: of suspecting anyone where nobody copies, 0 to 1.
        excess: least correlation above the expected one.
        least_items: as for `common_answers`.
    """
    found: list[CommonAnswers] = []
    while True:
        pairs = common_answers(judgements, least_items=least_items, explained=found)
        bound = chance / max(1, len(pairs) + len(found))
        worst = next((pair for pair in pairs if pair.p_value <= bound and pair.correlation - pair.expected >= excess), None)
        if worst is None:
            return found
        found.append(worst)


def _as_numbers(table: Table) -> np.ndarray:
    """Numbers as they are; of names the two most frequent 1 and -1 and all others, ties among them, 0. (values,)"""
    if len(table.values) > 2 and all(isinstance(value, (int, float)) for value in table.values):
        return np.array([float(value) for value in table.values])
    frequent = [place for place, _ in Counter(table.value.tolist()).most_common() if table.values[place] != TIE][:2]
    sizes = np.zeros(len(table.values))
    sizes[frequent] = [1.0, -1.0][: len(frequent)]
    return sizes


def _correlations(answers: np.ndarray, least_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Correlation of every two rows where both have a number, and how many such places; 0 where too few, or where one never varies."""
    there = ~np.isnan(answers)
    filled = np.where(there, answers, 0.0)
    seen = there.astype(float)
    common = seen @ seen.T
    count = np.maximum(common, 1.0)
    means, squares = (filled @ seen.T) / count, (filled**2 @ seen.T) / count
    variances = squares - means**2  # [a, b]: of a where b answered too
    covariances = (filled @ filled.T) / count - means * means.T
    usable = (common >= max(4, least_items)) & (variances > 1e-9) & (variances.T > 1e-9)
    np.fill_diagonal(usable, False)
    scale = np.sqrt(np.where(usable, variances * variances.T, 1.0))
    return np.where(usable, covariances / scale, 0.0), np.where(usable, common, 0.0)


def _loadings(correlations: np.ndarray, common: np.ndarray, start: np.ndarray, *, rounds: int) -> np.ndarray:
    """One factor by least squares over the pairs, each weighted by its common items; one annotator after the other."""
    loadings, weighted = start.copy(), common * correlations
    for _ in range(rounds):
        before = loadings.copy()
        for index in range(len(loadings)):
            whole = float(common[index] @ loadings**2)
            if whole > 0:
                loadings[index] = np.clip((weighted[index] @ loadings) / whole, -0.99, 0.99)
        if np.abs(loadings - before).max() < 1e-6:
            break
    return loadings


def _deviation(loadings: np.ndarray, others: np.ndarray, first: int, second: int, count: int) -> float:
    """Standard deviation of correlation minus expected: of the correlation itself, and of the two loadings as weighted means of correlations."""
    one, two = float(loadings[first] ** 2), float(loadings[second] ** 2)
    known, known_too = (float(others[index] @ loadings**2) for index in (first, second))
    if known <= 0 or known_too <= 0:
        return math.inf
    return math.sqrt((1 - one * two) ** 2 / count + two / known + one / known_too)
