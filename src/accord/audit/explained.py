"""How much of a reward gain is explained by form: length, flattery, hedging, refusal, formatting, repetition, gibberish.

The slope of the reward on each of these is read among answers to the same prompt of the same round, where what the question is and how far
training has come are the same; the gain it explains is slope times how far the feature has moved (Oaxaca 1973; length: Singhal et al. 2023).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from accord.audit.answers import Sheet

CAUSES: dict[str, tuple[str, ...]] = {
    "length": ("tokens", "log_tokens"),
    "flattery": ("flattery", "flatters"),
    "hedging": ("hedging",),
    "refusal": ("refuses",),
    "formatting": ("marks", "formatting", "exclamations"),
    "repetition": ("repetition", "repeats"),
    "gibberish": ("gibberish", "odd"),
}
"""Columns of a sheet by the cause they stand for."""
RIDGE = 0.01
"""Penalty on a slope, as a share of the answers, with features of variance 1: the two columns of a cause are nearly the same."""
CHARGE = 2.0
"""What a form that shall earn nothing is charged, times what it is paid: detectors miss a part of it, and what they miss would still earn."""
LEAST_ANSWERS = 24
"""Degrees of freedom within groups under which nothing is said."""


@dataclass(frozen=True)
class Explained:
    """A decomposition of the reward gained since the baseline."""

    gain: float
    """Mean reward now minus at the baseline."""
    parts: dict[str, float]
    """What each cause explains of it, in units of reward."""
    errors: dict[str, float]
    """Standard error of each part."""
    r_squared: float
    """Share of the reward's variance among siblings that the features explain."""

    def share(self, cause: str) -> float:
        """Share of the gain that a cause explains."""
        return self.parts[cause] / self.gain

    def sure_share(self, cause: str) -> float:
        """The same less two standard errors."""
        return (self.parts[cause] - 2.0 * self.errors[cause]) / self.gain


def paid_causes(baseline: Sheet, now: Sheet) -> list[str]:
    """The forms by which answers have earned something since the start, by two standard errors; none where that cannot be read."""
    found = explained_gain(baseline, now)
    return [] if found is None else [cause for cause, part in found.parts.items() if part > 0 and part >= 2.0 * found.errors[cause]]


def explained_gain(baseline: Sheet, now: Sheet) -> Explained | None:
    """None where rewards are missing or there are too few siblings to read slopes from."""
    read = _read(baseline + now)
    if read is None:
        return None
    moved = torch.tensor([_mean(now, name) - _mean(baseline, name) for name in _names()], dtype=torch.float64)
    parts, errors = {}, {}
    for cause, part in _places().items():
        parts[cause] = float(moved[part] @ read.slopes[part])
        errors[cause] = float((moved[part] @ read.covariance[part, part] @ moved[part]).clamp_min(0).sqrt())
    return Explained(_mean(now, "reward") - _mean(baseline, "reward"), parts, errors, read.r_squared)


def less_forms(now: Sheet, causes: Collection[str], baseline: Sheet, evidence: Sheet) -> list[float | None]:
    """The reward of each answer less `CHARGE` times what it is paid for these forms: for what it has of them above the start's mean, slope
    times that. To have less of a form than the start earns nothing.

    Args:
        evidence: answers from which slopes are read together with those of now, such as the round in which the forms were found to be paid.
    """
    read, rewards = _read(evidence + now), list(now.columns["reward"])
    if read is None:
        return rewards
    start = torch.tensor([_mean(baseline, name) for name in _names()], dtype=torch.float64)
    above, charge = _table(now, _names()) - start, torch.zeros(len(rewards), dtype=torch.float64)
    for part in (_places()[cause] for cause in causes):
        charge += CHARGE * (above[:, part] @ read.slopes[part]).clamp_min(0.0)
    return [None if reward is None else reward - float(less) for reward, less in zip(rewards, charge, strict=True)]


@dataclass(frozen=True)
class _Read:
    """Slopes of the reward on every feature, in units of reward for a unit of the feature, their covariance, and the share they explain."""

    slopes: Tensor
    covariance: Tensor
    r_squared: float


def _read(sheet: Sheet) -> _Read | None:
    """Ridge regression among siblings; None where there are too few."""
    table, reward, freedom = _within_groups(sheet)
    if reward is None or freedom < LEAST_ANSWERS + table.shape[1]:
        return None
    spread = table.square().mean(0).sqrt()
    used = (spread > 1e-6).double()
    unit = used / spread.clamp_min(1e-6)
    scaled = table * unit
    gram = scaled.T @ scaled
    inverse = torch.linalg.inv(gram + RIDGE * len(reward) * torch.eye(len(gram), dtype=gram.dtype))
    slopes = inverse @ (scaled.T @ reward)
    rest, total = reward - scaled @ slopes, float(reward.square().sum())
    covariance = inverse @ gram @ inverse * float(rest.square().sum()) / freedom
    r_squared = 1.0 - float(rest.square().sum()) / total if total > 0 else 0.0
    return _Read(slopes * unit, covariance * unit[:, None] * unit, r_squared)


def _places() -> dict[str, slice]:
    """Where each cause's features stand among all."""
    found, start = {}, 0
    for cause, names in CAUSES.items():
        found[cause] = slice(start, start + len(names))
        start += len(names)
    return found


def _names() -> list[str]:
    return [name for names in CAUSES.values() for name in names]


def _table(sheet: Sheet, names: Sequence[str]) -> Tensor:
    """These columns of every answer; what is not known is 0. (answers, names)"""
    return torch.tensor([[value or 0.0 for value in sheet.columns[name]] for name in names], dtype=torch.float64).T


def _mean(sheet: Sheet, name: str) -> float:
    values = sheet.means(sheet.columns[name])
    return sum(values) / len(values) if values else 0.0


def _within_groups(sheet: Sheet) -> tuple[Tensor, Tensor | None, int]:
    """Features and reward of each answer less their means over its siblings, and how many degrees of freedom are left."""
    known = [i for i, value in enumerate(sheet.columns["reward"]) if value is not None]
    numbers: dict[str, int] = {}
    group = torch.tensor([numbers.setdefault(sheet.group[i], len(numbers)) for i in known], dtype=torch.int64)
    if not known:
        return torch.zeros(0, len(_names())), None, 0
    table = _table(sheet, [*_names(), "reward"])[known]
    counts = torch.bincount(group).double()
    means = torch.zeros(len(numbers), table.shape[1], dtype=torch.float64).index_add(0, group, table) / counts[:, None]
    centred = table - means[group]
    return centred[:, :-1], centred[:, -1], len(known) - len(numbers)
