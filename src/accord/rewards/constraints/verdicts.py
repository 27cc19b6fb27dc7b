"""Strict and loose verdicts on an answer under several constraints (Zhou et al. 2023, arXiv:2311.07911, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from accord.rewards.constraints.base import Constraint


@dataclass(frozen=True)
class Verdict:
    """Which constraints of one prompt an answer satisfies."""

    held: tuple[tuple[str, bool], ...]
    """Name and verdict of each constraint in the row's order; a second one with the same id is named `id#2`."""

    @property
    def share(self) -> float:
        """Share of the constraints that hold, 0 to 1."""
        return sum(holds for _, holds in self.held) / len(self.held)

    @property
    def all(self) -> bool:
        """Whether every constraint holds."""
        return all(holds for _, holds in self.held)

    @property
    def broken(self) -> list[str]:
        """Names of the constraints that do not hold."""
        return [name for name, holds in self.held if not holds]


def loose_variants(answer: str) -> list[str]:
    """The answer and its seven loose readings: without its first line, its last line, both, each of the four also without asterisks."""
    lines = answer.split("\n")
    cut = [answer, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*cut, *(variant.replace("*", "") for variant in cut)]


def judge(answer: str, constraints: Sequence[Constraint], *, loose: bool = False) -> Verdict:
    """The verdict on one answer.

    Args:
        loose: True: a constraint holds when any of `loose_variants` satisfies it, which forgives an introduction, a closing line and
            markdown; it never turns a held constraint into a broken one. False: the answer as it is.
    """
    variants = loose_variants(answer) if loose else [answer]
    seen: dict[str, int] = {}
    held: list[tuple[str, bool]] = []
    for constraint in constraints:
        seen[constraint.id] = seen.get(constraint.id, 0) + 1
        name = constraint.id if seen[constraint.id] == 1 else f"{constraint.id}#{seen[constraint.id]}"
        held.append((name, any(constraint.holds(variant) for variant in variants)))
    return Verdict(tuple(held))
