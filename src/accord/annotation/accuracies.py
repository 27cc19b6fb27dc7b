"""How often reward models are right on what a project holds out: written by what trains them, read by what says whether more labels help.

The numbers lie beside a round's snapshot, in rounds/N/accuracy.json, so that backups have them. Nothing here opens the project's database.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accord.data.snapshots import ROUNDS
from accord.errors import ConfigError, DataError
from accord.writing import write_text

ACCURACY = "accuracy.json"
MOST_LABELS = 10**9


@dataclass(frozen=True)
class Measured:
    """One reward model on held-out pairs."""

    labels: int
    """That it learned from, 1 or more."""
    accuracy: float
    """Share of the pairs in which the preferred answer has the higher score, 0 to 1."""
    pairs: int
    """Held-out pairs; 0: not known."""
    by: str
    """Its run's folder; "": somebody typed it."""
    arm: str = ""
    """random or selected: it learned from pairs that chance, or a rule, chose, as many of each. "": from all labels."""


def keep(round_folder: Path, found: Iterable[Measured]) -> None:
    """Add measurements to those of a round; a run that is measured again replaces what it was."""
    known = {one.by: one for one in (*_read(round_folder / ACCURACY), *found)}
    body = {"schema": 1, "measured": [asdict(one) for one in known.values()]}
    write_text(round_folder / ACCURACY, json.dumps(body, ensure_ascii=False, indent=1) + "\n")


def kept(project: Path, *, arms: bool = False) -> list[Measured]:
    """Every run that was measured, as its newest round has it, by the number of labels.

    Args:
        arms: True gives those that learned from one arm alone. False gives those that learned from all labels.
    Raises:
        DataError: if a file of them is damaged.
    """
    folders = [folder for folder in (project / ROUNDS).glob("*") if folder.name.isdigit()]
    found = {one.by: one for folder in sorted(folders, key=lambda folder: int(folder.name)) for one in _read(folder / ACCURACY)}
    return sorted((one for one in found.values() if bool(one.arm) == arms), key=lambda one: (one.labels, one.by))


def typed(text: str, name: str = "measured") -> Measured:
    """What somebody typed, LABELS=ACCURACY.

    Args:
        name: of the field, for the message.
    Raises:
        ConfigError: if it is not that, or no share.
    """
    labels, _, share = text.partition("=")
    try:
        found = Measured(int(labels), float(share), 0, "")
    except ValueError as error:
        raise ConfigError(f"{name} {text}: it is LABELS=ACCURACY, for example 500=0.61.") from error
    if not 1 <= found.labels <= MOST_LABELS:
        raise ConfigError(f"{name} {text}: a reward model learns from 1 label or more, and nobody has {MOST_LABELS:,}.")
    return Measured(found.labels, check_share(found.accuracy, f"{name} {text}"), 0, "")


def check_share(value: float, name: str) -> float:
    """The value, after checking that it is a share from 0 to 1.

    Raises:
        ConfigError: naming the field.
    """
    if not 0 <= value <= 1:
        raise ConfigError(f"{name}: an accuracy is a share from 0 to 1.")
    return value


def _read(path: Path) -> list[Measured]:
    if not path.exists():
        return []
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["measured"]
        return [
            Measured(int(one["labels"]), float(one["accuracy"]), int(one["pairs"]), str(one["by"]), str(one.get("arm", "")))
            for one in found
        ]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is damaged ({type(error).__name__}). Remove it: it is written again when a reward model is measured."
        ) from error
