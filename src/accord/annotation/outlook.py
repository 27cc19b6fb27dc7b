"""What would help next: the ceiling that people set, labels still to go, answers that are still wanted, and how many comparisons decide between two models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from accord.annotation.accuracies import Measured
from accord.annotation.learning_curve import Ceiling, LabelsToGo, ceiling, labels_to_go
from accord.annotation.panel import Panel
from accord.annotation.results import Progress
from accord.annotation.stopping import Planned, planned

TARGET = 0.75
"""Accuracy for which labels to go are told when nobody names another."""


@dataclass(frozen=True)
class Outlook:
    """What more labels would bring, and when to stop."""

    reward: Measured | None
    """The reward model that the ceiling is about; None: none was measured."""
    ceiling: Ceiling | None
    """None where no reward model was measured."""
    measured: tuple[Measured, ...]
    to_go: LabelsToGo
    planned: tuple[Planned, ...]
    words: tuple[str, ...]
    """All of it, a line each."""


def outlook(
    panel: Panel, progress: Progress, measured: Sequence[Measured], *, accuracy: float | None = None, target: float = TARGET
) -> Outlook:
    """What a round's labels and the reward models so far say of the next ones.

    Args:
        panel, progress: of the round.
        measured: held-out accuracies of reward models, in any order.
        accuracy: of the reward model that the ceiling is about, 0 to 1. None: that of the one with most labels.
        target: held-out accuracy for which labels to go are told, 0 to 1.
    """
    newest = max(measured, key=lambda one: one.labels, default=None)
    reward = newest if accuracy is None else Measured(0, accuracy, 0, "")
    limit = None if reward is None else ceiling(reward.accuracy, panel.same_decided.value)
    to_go = labels_to_go([(one.labels, one.accuracy) for one in measured], target)
    words = [limit.words if limit is not None else _unknown(panel), *_learned(measured, to_go), *_wanted(panel, progress)]
    return Outlook(reward, limit, tuple(measured), to_go, planned(), tuple(words))


def _unknown(panel: Panel) -> str:
    agreed = panel.same_decided.value
    people = "" if agreed is None else f", annotators agree {agreed:.2f}"
    return (
        f"No reward model was measured on these labels yet{people}. accord reward --data PROJECT --eval_data PROJECT@heldout measures one."
    )


def _learned(measured: Sequence[Measured], to_go: LabelsToGo) -> list[str]:
    """Labels to go, and what the next thousand bring."""
    if not measured:
        return []
    if to_go.curve is None:
        return [to_go.words]
    gain = 100 * to_go.curve.gain_per_thousand
    return [to_go.words, f"The next 1,000 labels are expected to add {gain:.1f} points; under 0.2 they are better spent elsewhere."]


def _wanted(panel: Panel, progress: Progress) -> list[str]:
    """Answers that the round still wants, and the time that they take."""
    paces = [one.median_seconds for one in panel.annotators if one.median_seconds is not None]
    if not progress.missing:
        return []
    many = f"{progress.missing:,} answer{'s are' if progress.missing > 1 else ' is'} still wanted in this round"
    if not paces:
        return [f"{many}."]
    pace = median(paces)
    return [f"{many}: {progress.missing:,} × {pace:.0f} s (the annotators' median) = {_duration(progress.missing * pace)} of judging."]


def _duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{minutes} minute{'s' * (minutes > 1)}"
