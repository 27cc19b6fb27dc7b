"""The thread in which a partner answers questions, so that whoever shows its page never waits for a model."""

from __future__ import annotations

import secrets
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from accord.annotation.refusals import Conflict, Unknown
from accord.annotation.results import Assignment
from accord.errors import AccordError
from accord.recipes.partner import Partner, Reply
from accord.types import Message

KEPT = 100
"""Questions that are remembered."""
PAUSE = 5.0
"""Seconds after which an idle thread looks for what was stored elsewhere."""
_CLOSED = "The model was closed before it had answered. Open it again, and ask again."
_Partner = TypeVar("_Partner", bound=Partner, covariant=True)


@dataclass
class Question:
    """What somebody asked, and how far its answers are."""

    id: str
    annotator: str
    messages: list[Message]
    texts: list[str]
    """So far, by the place on the page."""
    assignment: Assignment | None = None
    """The answers to judge, once they are there."""
    reply: Reply | None = None
    """The answer, where there is nothing to judge."""
    problem: str | None = None
    """Why there are none."""

    @property
    def done(self) -> bool:
        """Whether it was answered, or cannot be."""
        return self.assignment is not None or self.reply is not None or self.problem is not None


class Answering(Generic[_Partner]):
    """Has a partner answer, one question at a time, in a thread of its own. A context manager.

    Args:
        partner: whose model nobody else should keep busy.
    """

    def __init__(self, partner: _Partner) -> None:
        self.partner = partner
        self.doing = "idle"
        """idle, answering, or what a subclass does."""
        self._questions: dict[str, Question] = {}
        self._queue: deque[Question] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="partner", daemon=True)

    def __enter__(self) -> Answering[_Partner]:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop after the step that is being made; an answer that is being written is dropped."""
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
            asked = Question(secrets.token_hex(8), annotator, list(messages), [""] * self.partner.places)
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
        """Have the partner see what was stored meanwhile."""
        self.partner.sync()
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._next() is not None, PAUSE)
                if self._stopped:
                    self._drop()
                    return
                found = self._next()
            if found is None:
                self.partner.sync()
                continue
            self.doing, work = found
            try:
                work()
            finally:
                self.doing = "idle"

    def _drop(self) -> None:
        """Nobody waits for an answer that will not come."""
        for question in self._queue:
            question.problem = _CLOSED
        self._queue.clear()

    def _next(self) -> tuple[str, Callable[[], None]] | None:
        """What to do now, and its name."""
        return ("answering", partial(self._answer, self._queue[0])) if self._queue else None

    def _answer(self, question: Question) -> None:
        def watch(place: int, text: str) -> None:
            if self._stopped:
                raise Conflict(_CLOSED)
            question.texts[place] = text

        try:
            found = self.partner.propose(question.messages, question.annotator, watch)
            if isinstance(found, Reply):
                question.reply = found
            else:
                question.assignment = found
        except Exception as error:
            question.problem = explained(error)
        finally:
            with self._changed:
                self._queue.remove(question)


def explained(error: Exception) -> str:
    """One line for a page. What is a mistake of ours is printed here in full."""
    if not isinstance(error, AccordError):
        traceback.print_exception(error, file=sys.stderr)
    return " ".join(str(error).split())[:300] or type(error).__name__
