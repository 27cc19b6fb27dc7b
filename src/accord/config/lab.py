"""Options of `accord lab`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class LabOptions:
    """Over-optimisation where the true reward is known."""

    level: str = "all"
    """exact (policies written down, seconds), bigram (tiny, sampled, under a minute), all (these two), or model (the starter, eight minutes an arm on two cores)."""
    seeds: int = 6
    """Worlds, labels and reward models to average over. 1 shows a single one. Level model: for its arms single and worst-case; the others run once."""
    arms: str | None = None
    """Of level model: names between semicolons. None runs all; what is there is not made again."""
    output_dir: str | None = None
    """Folder of the page and of the numbers. None is runs/lab."""
