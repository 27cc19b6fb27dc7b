"""Options of `accord lab`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class LabOptions:
    """Over-optimisation where the true reward is known."""

    level: str = "all"
    """exact (policies written down, seconds), bigram (a tiny language model trained by sampling, under a minute), or all of them."""
    seeds: int = 6
    """Worlds, labels and reward models to average over. 1 shows a single one."""
    output_dir: str | None = None
    """Folder of the page and of the numbers. None is runs/lab."""
