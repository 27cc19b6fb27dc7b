"""How much of a reward gain is explained by form: length, flattery, hedging, refusal, formatting, repetition, gibberish.

The slope of the reward on each of these is read among answers to the same prompt of the same round, where what the question is and how far
training has come are the same; the gain it explains is slope times how far the feature has moved (Oaxaca 1973; length: Singhal et al. 2023).
"""

from __future__ import annotations

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


def explained_gain(baseline: Sheet, now: Sheet) -> Explained | None:
    """None where rewards are missing or there are too few siblings to read slopes from."""
    both = baseline + now
    table, reward, freedom = _within_groups(both)
    if reward is None or freedom < LEAST_ANSWERS + table.shape[1]:
        return None
    spread = table.square().mean(0).sqrt()
    used = spread > 1e-6
    scaled = torch.where(used, table / spread.clamp_min(1e-6), torch.zeros_like(table))
    gram = scaled.T @ scaled
    inverse = torch.linalg.inv(gram + RIDGE * len(reward) * torch.eye(len(gram), dtype=gram.dtype))
    slopes = inverse @ (scaled.T @ reward)
    rest = reward - scaled @ slopes
    covariance = inverse @ gram @ inverse * float(rest.square().sum()) / freedom
    moved = torch.tensor([_mean(now, name) - _mean(baseline, name) for name in _names()], dtype=torch.float64)
    moved = torch.where(used, moved / spread.clamp_min(1e-6), torch.zeros_like(moved))
    parts, errors, start = {}, {}, 0
    for cause, names in CAUSES.items():
        part = slice(start, start + len(names))
        parts[cause] = float(moved[part] @ slopes[part])
        errors[cause] = float((moved[part] @ covariance[part, part] @ moved[part]).clamp_min(0).sqrt())
        start += len(names)
    total = float(reward.square().sum())
    r_squared = 1.0 - float(rest.square().sum()) / total if total > 0 else 0.0
    return Explained(_mean(now, "reward") - _mean(baseline, "reward"), parts, errors, r_squared)


def _names() -> list[str]:
    return [name for names in CAUSES.values() for name in names]


def _mean(sheet: Sheet, name: str) -> float:
    values = sheet.means(sheet.columns[name])
    return sum(values) / len(values) if values else 0.0


def _within_groups(sheet: Sheet) -> tuple[Tensor, Tensor | None, int]:
    """Features and reward of each answer less their means over its siblings, and how many degrees of freedom are left."""
    known = [i for i, value in enumerate(sheet.columns["reward"]) if value is not None]
    numbers: dict[str, int] = {}
    group = torch.tensor([numbers.setdefault(sheet.group[i], len(numbers)) for i in known], dtype=torch.int64)
    rows = [[sheet.columns[name][i] or 0.0 for name in [*_names(), "reward"]] for i in known]
    if not rows:
        return torch.zeros(0, len(_names())), None, 0
    table = torch.tensor(rows, dtype=torch.float64)
    counts = torch.bincount(group).double()
    means = torch.zeros(len(numbers), table.shape[1], dtype=torch.float64).index_add(0, group, table) / counts[:, None]
    centred = table - means[group]
    return centred[:, :-1], centred[:, -1], len(known) - len(numbers)
