"""The thread in which a learner answers and trains, so that whoever shows its page never waits for the model."""

from __future__ import annotations

import secrets
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from accord.annotation.refusals import Conflict, Unknown
from accord.annotation.results import Assignment
from accord.errors import AccordError
from accord.recipes.learn import Learner
from accord.training.setup import say
from accord.types import Message

LAG = 1
"""Preferences that may wait to be learned from while a question is answered: with more of them, learning comes first."""
KEPT = 100
"""Questions that are remembered."""
PAUSE = 5.0
"""Seconds after which an idle thread looks for preferences given elsewhere."""


@dataclass
class Question:
    """What somebody asked, and how far its two answers are."""

    id: str
    annotator: str
    messages: list[Message]
    texts: list[str] = field(default_factory=lambda: ["", ""])
    """So far, by the place on the page."""
    assignment: Assignment | None = None
    """The pair to judge, once both answers are there."""
    problem: str | None = None
    """Why there are none."""

    @property
    def done(self) -> bool:
        """Whether it was answered, or cannot be."""
        return self.assignment is not None or self.problem is not None


class Background:
    """Runs a learner in a thread of its own: questions first, as long as learning has not fallen behind. A context manager.

    Args:
        learner: whose model nobody else should keep busy.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.doing = "idle"
        """idle, answering, learning or looking (at the fixed prompt)."""
        self._questions: dict[str, Question] = {}
        self._queue: deque[Question] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="learner", daemon=True)

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def ask(self, messages: Sequence[Message], annotator: str) -> Question:
        """Queue a question; look at it again with `question`.

        Raises:
            Conflict: if this annotator's last question is still being answered.
        """
        with self._changed:
            if any(each.annotator == annotator for each in self._queue):
                raise Conflict("Your last question is still being answered.")
            asked = Question(secrets.token_hex(8), annotator, list(messages))
            self._queue.append(asked)
            self._questions[asked.id] = asked
            while len(self._questions) > KEPT:
                self._questions.pop(next(iter(self._questions)))
            self._changed.notify_all()
        return asked

    def question(self, question: str, annotator: str) -> Question:
        """One that this annotator asked. Raises Unknown."""
        found = self._questions.get(question)
        if found is None or found.annotator != annotator:
            raise Unknown(f"There is no question {question[:60]!r} of yours. Ask it again.")
        return found

    def sync(self) -> None:
        """Have the learner see what was stored meanwhile, and learn from it."""
        self.learner.sync()
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._next() is not None, PAUSE)
                if self._stopped:
                    return
                found = self._next()
            if found is None:
                self.learner.sync()
                continue
            self.doing, work = found
            try:
                work()
            finally:
                self.doing = "idle"

    def _next(self) -> tuple[str, Callable[[], None]] | None:
        """What to do now, and its name."""
        behind = 0 if self.learner.problem else len(self.learner.waiting())
        if self._queue and behind <= LAG:
            return "answering", partial(self._answer, self._queue[0])
        if behind:
            return "learning", self._learn
        return ("looking", self._look) if self.learner.look_is_due and not self.learner.problem else None

    def _answer(self, question: Question) -> None:
        def watch(place: int, text: str) -> None:
            question.texts[place] = text

        try:
            question.assignment = self.learner.propose(question.messages, question.annotator, watch)
        except Exception as error:
            question.problem = explained(error)
        finally:
            with self._changed:
                self._queue.remove(question)

    def _learn(self) -> None:
        try:
            self.learner.step()
        except Exception as error:
            self.learner.problem = explained(error)
            say(f"Training has stopped, answers go on: {self.learner.problem}")

    def _look(self) -> None:
        try:
            self.learner.look()
        except Exception as error:
            self.learner.problem = explained(error)


def explained(error: Exception) -> str:
    """One line for a page. What is a mistake of ours is printed here in full."""
    if not isinstance(error, AccordError):
        traceback.print_exception(error, file=sys.stderr)
    return " ".join(str(error).split())[:300] or type(error).__name__
