"""What reward functions noted (`rewards.notes`), carried with the answers of a round through processes and selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from accord.data.packing import Unit
from accord.errors import ConfigError
from accord.rewards.notes import Notes
from accord.types import Rollout


def with_notes(units: list[Unit], taken: Notes) -> list[Unit]:
    """The units with what reward functions noted: a column's values with the answers they belong to, metrics with the first unit."""
    start = 0
    for unit in units:
        end = start + len(unit.branches)
        unit.data["noted"] = [{name: values[i] for name, values in taken.columns.items()} for i in range(start, end)]
        start = end
    if units:
        units[0].data["noted_metrics"] = taken.metrics
    return units


def noted_metrics(units: Sequence[Unit]) -> dict[str, float]:
    """The mean of what reward functions logged under each name, over all processes and batches of a round."""
    found: dict[str, list[float]] = {}
    for unit in units:
        for name, values in unit.data.get("noted_metrics", {}).items():
            found.setdefault(name, []).extend(values)
    return {name: sum(values) / len(values) for name, values in sorted(found.items())}


def with_metrics(metrics: dict[str, float], noted: dict[str, float]) -> dict[str, float]:
    """Both.

    Raises:
        ConfigError: if a reward function logged under a name that means something else here.
    """
    if taken := sorted(metrics.keys() & noted.keys()):
        raise ConfigError(f"log_metric({taken[0]!r}): the trainer logs something else by that name. Choose another.")
    return {**metrics, **noted}


def judged_rollouts(unit: Unit) -> list[Rollout]:
    """The answers of a unit with their scores and what reward functions noted of them.

    Raises:
        ConfigError: if a reward function noted a column that the data have.
    """
    found: list[Rollout] = []
    for rollout, score, noted in zip(unit.data["rollouts"], unit.data["scores"], unit.data["noted"], strict=True):
        if taken := sorted(rollout.columns.keys() & noted.keys()):
            raise ConfigError(f"log_extra({taken[0]!r}): the data have a column of that name. Choose another.")
        found.append(replace(rollout, score=score, columns={**rollout.columns, **noted}))
    return found
