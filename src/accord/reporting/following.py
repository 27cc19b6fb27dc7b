"""Following runs while they are being written: what is new since a position, as events. No thread, no waiting: whoever calls says when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from accord.errors import DataError
from accord.reporting.curves import row_of
from accord.reporting.monitored import signatures
from accord.reporting.run_files import CHUNK, Added, Position, lines_after, signature
from accord.reporting.runs import METRICS, ROLLOUTS, Runs


@dataclass(frozen=True)
class Event:
    """Something to tell whoever watches.

    Args:
        name: rows (new rows of metrics), again (the file was written anew, or there is too much: read the curves again), state (how a run
            stands), samples (there are new answers), monitors (they said something new), gone (the run is no longer there).
        data: JSON-able; `run` is the run's place in the list that is followed.
    """

    name: str
    data: dict[str, Any]


class Follower:
    """Follows some runs from a position in each of their metrics.

    Args:
        runs: where they lie.
        names: which.
        positions: those of the curves that the watcher has; the start for those that are missing.
    """

    def __init__(self, runs: Runs, names: Sequence[str], positions: Sequence[Position] = ()) -> None:
        self.runs = runs
        rest = [Position()] * (len(names) - len(positions))
        self._followed = [_One(number, name, position) for number, (name, position) in enumerate(zip(names, [*positions, *rest]))]

    @property
    def place(self) -> str:
        """Where to go on: what `places` reads."""
        return ",".join(str(one.position) for one in self._followed)

    @property
    def over(self) -> bool:
        """True once no run is left to follow, or its curves have to be read again first."""
        return all(one.gone for one in self._followed) or any(one.again for one in self._followed)

    def poll(self) -> list[Event]:
        """What is new, run by run. Files that have not changed are not opened."""
        return [event for one in self._followed if not one.gone for event in one.poll(self.runs)]


def places(text: str, count: int) -> list[Position]:
    """Positions from what `Follower.place` gave, for as many runs; the start for each that is missing or nonsense."""
    parts = text.split(",")[:count] if len(text) < 100 * count else []
    return [Position.of(part) for part in parts] + [Position()] * (count - len(parts))


class _One:
    def __init__(self, number: int, name: str, position: Position) -> None:
        self.number, self.name, self.position = number, name, position
        self.gone = self.again = False
        self._metrics: tuple[int, int] | None = None
        self._rollouts: tuple[int, int] | None = None
        self._monitors: tuple[Any, Any] = (None, None)
        self._state: dict[str, Any] | None = None

    def poll(self, runs: Runs) -> list[Event]:
        try:
            folder = runs.folder(self.name)
            changed = self._changed(signature(folder / METRICS))
            found = self._rows(lines_after(folder / METRICS, self.position) if changed else None)
            state = runs.summary(self.name).to_json()
        except DataError:
            self.gone = True
            return [Event("gone", {"run": self.number})]
        if {**state, "written": 0} != {**(self._state or {}), "written": 0}:
            self._state = state
            found.append(Event("state", {"run": self.number, **state}))
        answers = signature(folder / ROLLOUTS)
        if answers != self._rollouts:
            self._rollouts = answers
            found.append(Event("samples", {"run": self.number}))
        said = signatures(folder)
        if said != self._monitors:
            self._monitors = said
            found.append(Event("monitors", {"run": self.number}))
        return found

    def _changed(self, now: tuple[int, int] | None) -> bool:
        before, self._metrics = self._metrics, now
        return now is not None and now != before

    def _rows(self, added: Added | None) -> list[Event]:
        if added is None:
            return []
        if added.rewritten or added.left > CHUNK:
            self.again = True
            return [Event("again", {"run": self.number})]
        self.position = added.position
        if added.left:
            self._metrics = None  # half a line, or more lines: look again whether or not the file changes
        rows = [asdict(row) for row in map(row_of, added.lines) if row is not None]
        return [Event("rows", {"run": self.number, "rows": rows})] if rows else []
