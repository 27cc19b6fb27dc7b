"""What reward functions say beside their scores, with TRL's arguments: columns of the answers (`log_extra`), metrics (`log_metric`), and the run's state.

The notes of a round are those taken inside `taking`; outside of one, nothing is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from accord.errors import ConfigError


class Notes:
    """Notes on one batch of answers.

    Args:
        count: how many answers are scored together; a column has one value for each.
        state: makes the run's `transformers.TrainerState` when a function asks for it; None: there is no run, and functions get None.
    """

    def __init__(self, count: int = 0, state: Callable[[], Any] | None = None) -> None:
        self.count, self._state = count, state
        self.columns: dict[str, list[Any]] = {}
        self.metrics: dict[str, list[float]] = {}

    def arguments(self, wanted: Callable[[str], bool]) -> dict[str, Any]:
        """What is passed to a function, of the arguments that it takes."""
        found: dict[str, Any] = {"log_extra": self.log_extra, "log_metric": self.log_metric}
        if wanted("trainer_state"):
            found["trainer_state"] = self._state() if self._state else None
        return {name: value for name, value in found.items() if wanted(name)}

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        """A column of the answers, kept with them in `rollouts.jsonl`.

        Raises:
            ConfigError: if there is not one value an answer, or the column is there already.
        """
        if len(values) != self.count:
            raise ConfigError(f"log_extra({column!r}) got {len(values)} values for {self.count} answers. Give one each.")
        if column in self.columns:
            raise ConfigError(f"log_extra({column!r}) was called twice for the same answers. Choose another name for one of the columns.")
        self.columns[column] = list(values)

    def log_metric(self, name: str, value: float) -> None:
        """A number of this batch of answers; the mean of the round's is logged.

        Raises:
            ConfigError: if it is no finite number.
        """
        if isinstance(value, (str, bytes)) or not math.isfinite(number := float(value)):
            raise ConfigError(f"log_metric({name!r}) got {value!r}. Give a finite number.")
        self.metrics.setdefault(name, []).append(number)


_current: ContextVar[Notes | None] = ContextVar("notes", default=None)


def current(count: int) -> Notes:
    """The notes being taken, or some that nobody will read."""
    return _current.get() or Notes(count)


@contextmanager
def taking(count: int, state: Callable[[], Any]) -> Iterator[Notes]:
    """Take notes of what is scored inside."""
    notes = Notes(count, state)
    token = _current.set(notes)
    try:
        yield notes
    finally:
        _current.reset(token)
