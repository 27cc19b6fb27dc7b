"""Metrics that name their reduction, so that any split into micro-batches or processes logs the same number."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from accord.training import processes


class Metrics:
    """Collects parts of metrics; `compute` reduces them.

    ratio: sum of numerators over sum of denominators (a mean with its weights). maximum, minimum: over all parts.
    """

    def __init__(self) -> None:
        self._parts: dict[str, tuple[str, float, float]] = {}

    def ratio(self, name: str, numerator: Tensor | float, denominator: Tensor | float) -> None:
        kind, top, bottom = self._parts.get(name, ("ratio", 0.0, 0.0))
        self._parts[name] = (kind, top + float(numerator), bottom + float(denominator))

    def mean(self, name: str, values: Tensor) -> None:
        """A ratio whose denominator is the number of values."""
        self.ratio(name, values.detach().double().sum(), values.numel())

    def total(self, name: str, value: Tensor | float) -> None:
        """A plain sum over micro-batches and processes."""
        kind, top, _ = self._parts.get(name, ("total", 0.0, 1.0))
        self._parts[name] = (kind, top + float(value), 1.0)

    def maximum(self, name: str, value: Tensor | float) -> None:
        _, top, _ = self._parts.get(name, ("maximum", -math.inf, 1.0))
        self._parts[name] = ("maximum", max(top, float(value)), 1.0)

    def minimum(self, name: str, value: Tensor | float) -> None:
        _, top, _ = self._parts.get(name, ("minimum", math.inf, 1.0))
        self._parts[name] = ("minimum", min(top, float(value)), 1.0)

    def merge(self, other: Metrics) -> None:
        for name, (kind, top, bottom) in other._parts.items():
            if kind == "ratio":
                self.ratio(name, top, bottom)
            else:
                getattr(self, kind)(name, top)

    def compute(self) -> dict[str, float]:
        """The reduced values over all processes. A mean over nothing is left out."""
        whole = Metrics()
        for parts in processes.gather_objects(self._parts):
            other = Metrics()
            other._parts = parts
            whole.merge(other)
        return {name: top / bottom for name, (_, top, bottom) in whole._parts.items() if bottom}


def readable(metrics: dict[str, Any], names: list[str]) -> str:
    """`loss 0.69 · margin 0.1` for the names that are there."""
    return " · ".join(f"{name.split('/')[-1]} {metrics[name]:.4g}" for name in names if isinstance(metrics.get(name), (int, float)))
