"""Who answers on a page, whatever the page is for: one model, one that learns, or several that are compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from accord.annotation.project import Project
from accord.annotation.refusals import Conflict
from accord.annotation.results import Assignment
from accord.annotation.store import Store
from accord.recipes.learn_state import State
from accord.types import Message

Kind = Literal["chat", "learn", "compare"]
Watch = Callable[[int, str], None]
"""Told the place of an answer on the page and its text so far."""


@dataclass(frozen=True)
class Reply:
    """An answer that nobody is asked to judge."""

    text: str
    forgotten: int = 0
    """Turns that the model had no positions for."""


@dataclass(frozen=True)
class Kept:
    """Where questions, answers and what is said of them lie."""

    project: Project
    store: Store
    """Opened; whoever opened the partner has it closed."""


class Partner(ABC):
    """Whoever answers questions. Threads may ask how it stands; one at a time has it answer."""

    kind: Kind
    title: str
    """What is open, for people."""
    places: int = 1
    """Answers to a question."""
    problem: str | None = None
    """Why it learns no more; None: it does, or never did."""

    @abstractmethod
    def propose(self, messages: Sequence[Message], annotator: str, watch: Watch | None = None) -> Assignment | Reply:
        """Answer the last of some turns: with answers to judge, kept for whoever asked, or with one.

        Args:
            messages: turns of the user and the assistant by turns, from and to the user's.
            watch: sees the answers grow, at the places where they will stand.
        Raises:
            AccordError: if there is nothing to answer, or nothing to judge.
        """

    @property
    def kept(self) -> Kept | None:
        """Where it keeps what is asked; None keeps nothing."""
        return None

    def sync(self) -> None:
        """See what was stored meanwhile; nothing to see where nothing learns."""
        return None

    def state(self) -> State | None:
        """Where learning stands; None where nothing learns."""
        return None

    def save(self) -> Path:
        """Write what was learned. Raises Conflict where nothing learns."""
        raise Conflict("Nothing is learned here, so there is nothing to save.")

    def close(self) -> str:
        """Let go of everything; what was kept, in words."""
        if self.kept is not None:
            self.kept.store.close()
        return ""
