"""Options of `accord lab`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class LabOptions:
    """Over-optimisation where the true reward is known."""

    level: str = "all"
    """exact (policies written down, seconds), bigram (a tiny language model trained by sampling, under a minute), all (these two), or model (the starter, minutes an arm; what is there is not made again)."""
    seeds: int = 6
    """Worlds, labels and reward models to average over. 1 shows a single one. At level model so many for the arms single and worst-case, one for the others."""
    arms: str | None = None
    """Of level model: names between semicolons (they hold commas). None runs all."""
    output_dir: str | None = None
    """Folder of the page and of the numbers. None is runs/lab."""
