"""What the store gives back: a task to work on, why there is none, where a round stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from accord.annotation.rounds import Phase
from accord.data.annotation_values import alternatives
from accord.types import Arm, Purpose, Task


@dataclass(frozen=True)
class Assignment:
    """A task that an annotator holds for a while."""

    task: Task
    token: str
    """Proves that the answer comes from the page that the task was given to."""
    expires: float
    """Until when nobody else gets the place, in seconds since 1970; a saved draft moves it."""
    shown_order: tuple[int, ...]
    """Which of the task's answers stands at each place."""
    purpose: Purpose
    """Not for the annotator's eyes."""
    arm: Arm
    draft: dict[str, Any] | None
    """What was saved while the answer was being made, or the answer that was taken back."""
    guideline_version: int | None

    def shown(self) -> dict[str, Any]:
        """What an annotator may see, as a JSON-able dict: no authors, no right answer, no purpose. Answers stand in the order shown."""
        other = alternatives(self.task) if self.task.kind == "steps" else []
        return {
            "task": self.task.id,
            "kind": self.task.kind,
            "prompt": [{"role": m.role, "content": m.content} for m in self.task.prompt],
            "answers": [[{"role": m.role, "content": m.content} for m in self.task.completions[i].messages] for i in self.shown_order],
            "shown_order": list(self.shown_order),
            "token": self.token,
            "expires": self.expires,
            "draft": self.draft,
            "guideline_version": self.guideline_version,
            **({"alternatives": other} if other else {}),
        }


@dataclass(frozen=True)
class Idle:
    """Why there is no task now.

    calibration: the annotator has done it, and the round waits for `end_calibration`. wait: all that is left is with others; ask again in a while.
    done: nothing is left for this annotator. ended: the round is over. empty: there are no tasks.
    """

    reason: str


@dataclass(frozen=True)
class Added:
    """How many were added, and how many were there already."""

    added: int
    known: int


@dataclass(frozen=True)
class Progress:
    """Where a round stands."""

    round: int
    phase: Phase
    tasks: int
    """Of work: gold and calibration tasks are not counted in these four."""
    closed: int
    retired: int
    answers: int
    missing: int
    """Answers that open tasks still want."""
    gold: int
    calibration: int
    held: int
    """Leases that are live."""
    by_annotator: dict[str, int]
    """Standing answers of every purpose."""
