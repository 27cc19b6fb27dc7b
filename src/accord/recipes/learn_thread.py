"""The thread in which a learner answers and trains."""

from __future__ import annotations

import sys
from collections.abc import Callable

from accord.recipes.learn import Learner
from accord.recipes.question_thread import Answering, explained

LAG = 1
"""Preferences that may wait to be learned from while a question is answered: with more of them, learning comes first."""


class Background(Answering[Learner]):
    """Questions first, as long as neither learning nor the look at the fixed question has fallen behind."""

    def _next(self) -> tuple[str, Callable[[], None]] | None:
        if self.partner.look_is_late and not self.partner.problem:
            return "looking", self._look
        behind = 0 if self.partner.problem else len(self.partner.waiting())
        if behind <= LAG and (found := super()._next()) is not None:
            return found
        if behind:
            return "learning", self._learn
        return ("looking", self._look) if self.partner.look_is_due and not self.partner.problem else None

    def _learn(self) -> None:
        try:
            self.partner.step()
        except Exception as error:
            self.partner.problem = explained(error)
            print(f"Training has stopped, answers go on: {self.partner.problem}", file=sys.stderr, flush=True)

    def _look(self) -> None:
        try:
            self.partner.look()
        except Exception as error:
            self.partner.problem = explained(error)
