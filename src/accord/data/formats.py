"""Every layout of rows that accord knows, and which one a row is in."""

from __future__ import annotations

from collections.abc import Mapping

from accord.data.layouts import argilla, comparisons, dialogues, label_tools, rankings, steps, trl
from accord.data.layouts.base import Format
from accord.errors import ConfigError

FORMATS: list[Format] = [
    *argilla.FORMATS,
    *label_tools.FORMATS,
    *steps.FORMATS,
    *comparisons.FORMATS,
    *rankings.FORMATS,
    *dialogues.FORMATS,
    *trl.FORMATS,
]
"""From the most particular to the most general: the first that is recognised is taken."""


def detect(row: Mapping[str, object]) -> Format | None:
    """The layout of a row, or None if no layout is recognised."""
    return next((layout for layout in FORMATS if layout.detect(row)), None)


def named(name: str) -> Format:
    """The layout of that name.

    Raises:
        ConfigError: if there is none; the message lists the names.
    """
    for layout in FORMATS:
        if layout.name == name:
            return layout
    raise ConfigError(f'There is no data format "{name}". The formats are: {", ".join(layout.name for layout in FORMATS)}.')
