"""Holes of the reward that an alarm has named: from then on that form costs answers what it was paid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from accord.audit.answers import Seen, Sheet, sheet_of
from accord.audit.explained import less_forms
from accord.data.packing import Unit
from accord.rewards.mitigated import rewarded


class ClosedHoles:
    """Which forms are charged for, and the answers that showed that the reward paid for them. What it pays for a form is read among answers to
    the same prompt (`audit.explained`), of the round that is learned from and of those that showed it."""

    def __init__(self) -> None:
        self.causes: list[str] = []
        self.evidence: Sheet | None = None

    def close(self, causes: Iterable[str], evidence: Sheet) -> list[str]:
        """Close those of these forms that are open; returns them."""
        new = [cause for cause in dict.fromkeys(causes) if cause not in self.causes]
        if new:
            self.causes += new
            self.evidence = evidence if self.evidence is None else self.evidence + evidence
        return new

    def less(self, units: list[Unit], seen: Sequence[Seen], baseline: Sheet | None) -> list[Unit]:
        """The units with what is closed charged to their rewards; what they were stands in the part `unshaped`.

        Args:
            seen: their answers, as monitors see them.
            baseline: answers of the start: having as much of a form as they had costs and earns nothing.
        """
        if self.evidence is None or baseline is None:
            return units
        values = less_forms(sheet_of(seen, NOW), self.causes, baseline, self.evidence)
        found = iter(rewarded([score for unit in units for score in unit.data["scores"]], values))
        return [replace(unit, data={**unit.data, "scores": [next(found) for _ in unit.branches]}) for unit in units]

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        return {"causes": list(self.causes), "evidence": None if self.evidence is None else self.evidence.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.causes = list(state["causes"])
        self.evidence = None if state["evidence"] is None else Sheet.of_state(state["evidence"])


NOW = -1
"""The round number of what is learned from now, which groups its answers apart from the evidence."""
