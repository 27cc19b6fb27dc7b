"""The watch over one run: keeps the answers of its start, looks at every round, and says which alarms rise and which fall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accord.audit.answers import Seen, Sheet, sheet_of
from accord.audit.comparing import Limits, Verdict
from accord.audit.monitors import verdicts

ENOUGH_ANSWERS, ENOUGH_PROMPTS, MOST_ROUNDS = 32, 8, 4
"""How many answers to how many prompts make the start, or what is now; and how many rounds at most are put together for it."""
SHOWN = 3
"""Answers that show an alarm."""


@dataclass(frozen=True)
class Looked:
    """What was found in one round."""

    verdicts: tuple[Verdict, ...]
    """Empty while the start is being collected."""
    risen: tuple[Verdict, ...]
    """Alarms that were not there a round ago."""
    samples: Mapping[str, list[dict[str, Any]]]
    """The answers that show it most, by the monitor's name: of alarms and what is on the way there."""

    @property
    def alarms(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.level == "alarm"]

    @property
    def clean(self) -> bool:
        """Whether nothing is even on the way to an alarm."""
        return all(verdict.level == "quiet" for verdict in self.verdicts)

    def with_verdict(self, verdict: Verdict, samples: list[dict[str, Any]], *, risen: bool) -> Looked:
        """What was found and one verdict more. risen: True for an alarm that was not there before."""
        more = {verdict.name: samples} if verdict.level != "quiet" else {}
        return Looked((*self.verdicts, verdict), (*self.risen, *((verdict,) if risen else ())), {**self.samples, **more})

    def metrics(self) -> dict[str, float]:
        """For the run's log."""
        if not self.verdicts:
            return {}
        values = {f"monitors/{verdict.name.replace(' ', '_')}": verdict.value for verdict in self.verdicts}
        return {**values, "monitors/alarms": float(len(self.alarms))}

    def rows(self) -> list[dict[str, Any]]:
        """Every verdict with the answers that show it: what `monitors.json` holds and the report shows."""
        return [{**row_of(verdict), "samples": self.samples.get(verdict.name, [])} for verdict in self.verdicts]


def row_of(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON, without what it says of each answer."""
    return {name: value for name, value in verdict.__dict__.items() if name != "suspect"}


class Watch:
    """Looks at a run round by round. Its state goes into checkpoints: a resumed run sees what it would have seen.

    Args:
        limits: what is allowed before an alarm.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.start: list[Sheet] = []
        """Rounds of the start: the policy is then the reference, or has hardly left it."""
        self.recent: list[Sheet] = []
        self.standing: list[str] = []
        """Names of the alarms of the last round."""

    @property
    def baseline(self) -> Sheet | None:
        """The answers of the start, once there are enough."""
        return _together(self.start) if _enough(self.start) else None

    @property
    def now(self) -> Sheet:
        """The answers that were last compared with the start."""
        return _together(self.recent)

    def look(self, answers: Sequence[Seen], round_number: int) -> Looked:
        """One round, in the order of training."""
        sheet = sheet_of(answers, round_number)
        if not _enough(self.start):
            self.start.append(sheet)
            return Looked((), (), {})
        self.recent.append(sheet)
        while len(self.recent) > 1 and _enough(self.recent[1:]):
            self.recent.pop(0)
        found = tuple(verdicts(_together(self.start), self.now, self.limits))
        alarms = [verdict for verdict in found if verdict.level == "alarm"]
        risen = tuple(verdict for verdict in alarms if verdict.name not in self.standing)
        self.standing = [verdict.name for verdict in alarms]
        return Looked(found, risen, {v.name: _samples(v, answers) for v in found if v.level != "quiet"})

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "start": [sheet.state() for sheet in self.start],
            "recent": [sheet.state() for sheet in self.recent],
            "standing": list(self.standing),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.start = [Sheet.of_state(one) for one in state["start"]]
        self.recent = [Sheet.of_state(one) for one in state["recent"]]
        self.standing = list(state["standing"])


def _together(sheets: Sequence[Sheet]) -> Sheet:
    found = sheets[0]
    for sheet in sheets[1:]:
        found = found + sheet
    return found


def _enough(sheets: Sequence[Sheet]) -> bool:
    answers, prompts = sum(map(len, sheets)), len({prompt for sheet in sheets for prompt in sheet.prompt})
    return len(sheets) >= MOST_ROUNDS or (answers >= ENOUGH_ANSWERS and prompts >= ENOUGH_PROMPTS)


def _samples(verdict: Verdict, answers: Sequence[Seen]) -> list[dict[str, Any]]:
    """The answers of the round that show it most, of different prompts."""
    own = verdict.suspect[len(verdict.suspect) - len(answers) :]
    order = sorted(range(len(answers)), key=lambda index: (-own[index], index))
    chosen: dict[str, dict[str, Any]] = {}
    for answer, value in ((answers[index], own[index]) for index in order):
        row = {
            "prompt_id": answer.prompt_id,
            "prompt": answer.prompt,
            "text": answer.text,
            "finished": answer.finished,
            "reward": answer.reward,
            "shows": value,
        }
        chosen.setdefault(answer.prompt_id, row)
        if len(chosen) == SHOWN:
            break
    return list(chosen.values())
