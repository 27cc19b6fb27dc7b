"""What is true, and how reliable each annotator is, from labels alone (Dawid & Skene 1979, Applied Statistics 28)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from accord.annotation.judgements import Judgement, Table, Value, counted, tabulate
from accord.errors import DataError

_LEAST = 1e-300


@dataclass(frozen=True)
class DawidSkene:
    """A fitted model. Classes are the values that were given."""

    table: Table
    posterior: np.ndarray
    """Probability of each class for each item. (items, classes)"""
    confusion: np.ndarray
    """Probability that an annotator gives a value where a class is true. (annotators, true classes, given values)"""
    prior: np.ndarray
    """Share of each class. (classes,)"""
    log_likelihoods: tuple[float, ...]
    """Log-probability of all judgements (and known classes), nats, after each update."""
    objectives: tuple[float, ...]
    """The same plus the log-density of the smoothing prior up to a constant: what no update lowers. Equal to the first without smoothing."""
    converged: bool

    @cached_property
    def labels(self) -> dict[str, Value]:
        """The likeliest class of each item; of equally likely ones the first."""
        return {item: self.table.values[int(place)] for item, place in zip(self.table.items, self.posterior.argmax(1), strict=True)}

    @cached_property
    def certainty(self) -> dict[str, float]:
        """Probability of that class."""
        return {item: float(value) for item, value in zip(self.table.items, self.posterior.max(1), strict=True)}

    @cached_property
    def accuracy(self) -> dict[str, float]:
        """Probability that each annotator is right about an item drawn at random."""
        right = np.einsum("k,akk->a", self.prior, self.confusion)
        return {name: float(value) for name, value in zip(self.table.annotators, right, strict=True)}


def fit_dawid_skene(
    judgements: Sequence[Judgement],
    *,
    known: Mapping[str, Value] | None = None,
    smoothing: float = 0.01,
    alike: bool = False,
    tolerance: float = 1e-8,
    most_updates: int = 2000,
) -> DawidSkene:
    """Expectation maximization from the shares of votes.

    Annotators are taken to err independently given the truth, so items that are hard for everyone and annotators who copy make it too sure; and what most
    of them say is taken to be right more often than not, because labels alone cannot tell a team from its mirror image.

    A small team needs `known` items. Accuracies come from who agrees with whom: of two answers, annotators right with p and q have labels correlated by
    (2 p - 1)(2 q - 1). At 0.7 and 0.55 that is 0.04, which 500 items measure to plus or minus 0.045; with three such annotators alone the result is
    better than a majority vote on one draw and worse on the next. Fifty known items settle it; so do nine annotators.

    Args:
        known: the class of items for which it is known, as of gold items. None: of no item.
        smoothing: judgements added to every cell of every confusion matrix and items added to every class: the mode under Dirichlet(1 + smoothing).
            0 is maximum likelihood, which gives annotators with few labels certainties of 0 and 1.
        alike: True gives each annotator one accuracy, with errors spread evenly over the other classes (the "one-coin" model): steadier with few labels.
            False gives each a whole confusion matrix.
        tolerance: stops when an update gains less, in nats a judgement.
        most_updates: stops there in any case, with `converged` False.
    Raises:
        DataError: without judgements, or if an annotator judged an item twice.
    """
    known = known or {}
    table = tabulate(counted(judgements), also=known.values())
    if not table.items:
        raise DataError("There are no judgements to fit. Collect some, or check that they are not all skipped or repeats.")
    possible = np.array([[known.get(item, value) == value for value in table.values] for item in table.items])
    posterior = np.where(possible.all(1, keepdims=True), table.counts / table.per_item[:, None], possible)
    likelihoods: list[float] = []
    objectives: list[float] = []
    while True:
        prior, confusion = _maximize(table, posterior, smoothing, alike)
        posterior, likelihood = _expect(table, prior, confusion, possible)
        likelihoods.append(likelihood)
        objectives.append(likelihood + smoothing * _log_density(prior, confusion, alike))
        converged = len(objectives) > 1 and objectives[-1] - objectives[-2] < tolerance * len(table.item)
        if converged or len(objectives) == most_updates:
            return DawidSkene(table, posterior, confusion, prior, tuple(likelihoods), tuple(objectives), converged)


def known_accuracy_posterior(
    judgements: Sequence[Judgement],
    accuracies: Mapping[str, float],
    *,
    classes: Sequence[Value] | None = None,
    prior: Sequence[float] | None = None,
) -> dict[str, dict[Value, float]]:
    """Probability of each class for each item, when it is known how often each annotator is right; errors fall evenly on the other classes.

    Args:
        accuracies: of every annotator, above 0 and below 1.
        classes: all possible values; None: those given.
        prior: share of each class; None: all equal.
    Raises:
        DataError: an annotator without an accuracy, or one of 0 or 1, which no evidence could move.
    """
    table = tabulate(counted(judgements), order=classes)
    for name in table.annotators:
        if not 0.0 < accuracies.get(name, 0.0) < 1.0:
            raise DataError(f'Annotator "{name}" needs an accuracy above 0 and below 1 and has {accuracies.get(name, "none")}.')
    count = len(table.values)
    known = np.array([accuracies[name] for name in table.annotators])
    confusion = _even(known, count)
    posterior, _ = _expect(table, np.full(count, 1 / count) if prior is None else np.asarray(prior, dtype=float), confusion)
    return {item: dict(zip(table.values, map(float, row), strict=True)) for item, row in zip(table.items, posterior, strict=True)}


def majority_vote(judgements: Sequence[Judgement]) -> dict[str, Value | None]:
    """The value most annotators gave to each item; None where several were given equally often."""
    votes: dict[str, Counter[Value]] = {}
    for one in counted(judgements):
        if one.value is not None:
            votes.setdefault(one.item, Counter())[one.value] += 1
    found: dict[str, Value | None] = {}
    for item, counter in votes.items():
        best = max(counter.values())
        winners = [value for value, count in counter.items() if count == best]
        found[item] = winners[0] if len(winners) == 1 else None
    return found


def majority_accuracy(accuracy: float, count: int) -> float:
    """How often the majority of `count` independent annotators is right about one of two answers (Condorcet 1785); a drawn vote is a coin.

    Args:
        accuracy: of each of them, 0 to 1.
        count: annotators, at least 1.
    """
    terms = [math.comb(count, right) * accuracy**right * (1 - accuracy) ** (count - right) for right in range(count + 1)]
    return sum(terms[count // 2 + 1 :]) + (0.5 * terms[count // 2] if count % 2 == 0 else 0.0)


def _logs(confusion: np.ndarray) -> np.ndarray:
    """Logarithms that stay finite where a cell is 0."""
    return np.log(np.maximum(confusion, _LEAST))


def _expect(table: Table, prior: np.ndarray, confusion: np.ndarray, possible: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    """Posterior of each item over its possible classes, and the log-likelihood of all judgements and of what is known."""
    given = _logs(confusion)[table.annotator, :, table.value]
    joint = np.stack([np.bincount(table.item, weights=column, minlength=len(table.items)) for column in given.T], axis=1)
    joint += np.log(np.maximum(prior, _LEAST))
    if possible is not None:
        joint = np.where(possible, joint, -np.inf)
    most = joint.max(1, keepdims=True)
    scaled = np.exp(joint - most)
    whole = scaled.sum(1, keepdims=True)
    return scaled / whole, float((most + np.log(whole)).sum())


def _maximize(table: Table, posterior: np.ndarray, smoothing: float, alike: bool) -> tuple[np.ndarray, np.ndarray]:
    """Prior and confusion matrices that the posteriors ask for."""
    annotators, count = len(table.annotators), len(table.values)
    shares = posterior.sum(0) + smoothing
    cells = table.annotator * count + table.value
    counts = np.stack(
        [
            np.bincount(cells, weights=posterior[table.item, true], minlength=annotators * count).reshape(annotators, count)
            for true in range(count)
        ],
        axis=1,
    )
    if alike:
        right = np.einsum("akk->a", counts)
        known = (right + smoothing) / (counts.sum((1, 2)) + count * smoothing)
        return shares / shares.sum(), _even(known, count)
    counts += smoothing
    rows = counts.sum(2, keepdims=True)
    # Without smoothing a class that is never true has no row; any will do, because nothing weighs it.
    return shares / shares.sum(), np.where(rows > 0, counts / np.where(rows > 0, rows, 1.0), 1 / count)


def _even(accuracies: np.ndarray, count: int) -> np.ndarray:
    """Confusion matrices of annotators who are right that often and err evenly. (annotators, count, count)"""
    wrong = (1 - accuracies) / max(1, count - 1)
    return wrong[:, None, None] + (accuracies - wrong)[:, None, None] * np.eye(count)


def _log_density(prior: np.ndarray, confusion: np.ndarray, alike: bool) -> float:
    """What one unit of smoothing adds to the objective: of each annotator's whole matrix, or of an accuracy and its spread errors."""
    rows = confusion[:, :1] if alike else confusion
    return float(_logs(rows).sum() + np.log(np.maximum(prior, _LEAST)).sum())
