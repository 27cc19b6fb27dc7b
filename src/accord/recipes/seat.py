"""The one place of a process where models are open, to chat with, to teach or to compare: opening another closes what is there."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

from accord.annotation.refusals import Conflict
from accord.errors import ConfigError
from accord.recipes.partner import Kept, Kind, Partner
from accord.recipes.question_thread import Answering, explained

MOST_COMPARED = 4
"""Models side by side: as many answers as a person reads before choosing."""
LONGEST_ANSWER = 4096
"""Tokens."""
LAST_WAIT = 5.0
"""Seconds that the end of the process waits for a model that is just being opened."""


@dataclass(frozen=True)
class Wish:
    """What somebody wants opened.

    Args:
        kind: chat, learn or compare.
        models: names as `open_model` takes them; one, or two to `MOST_COMPARED` to compare.
        titles: what they are called for people.
        max_new_tokens: longest answer.
        temperature: as `SamplingConfig`.
    Raises:
        ConfigError: if it cannot be.
    """

    kind: Kind
    models: tuple[str, ...]
    titles: tuple[str, ...]
    max_new_tokens: int = 128
    temperature: float = 0.7

    def __post_init__(self) -> None:
        count, least, most = len(self.models), *((2, MOST_COMPARED) if self.kind == "compare" else (1, 1))
        if not least <= count <= most:
            wanted = "one model" if most == 1 else f"two to {most} models"
            raise ConfigError(f"{count} models are chosen: choose {wanted}.")
        if len(set(self.titles)) < len(self.titles):
            raise ConfigError(f"{', '.join(self.titles)}: the same model twice says nothing about either.")
        if not 1 <= self.max_new_tokens <= LONGEST_ANSWER:
            raise ConfigError(f"An answer may have 1 to {LONGEST_ANSWER} tokens, not {self.max_new_tokens}.")
        if not 0 <= self.temperature <= 5 or (self.kind == "learn" and self.temperature == 0):
            raise ConfigError(f"The temperature is {self.temperature:g}; it is from 0 to 5, and above 0 for a chat that learns.")


class Seat:
    """What is open now, and whoever answers for it. For several threads.

    Args:
        opener: opens what is wished for, not started. None: what is there stays, and nothing else can be opened.
        taken: what is there from the start, running.
    """

    def __init__(self, opener: Callable[[Wish], Answering[Partner]] | None = None, taken: Answering[Partner] | None = None) -> None:
        self.opener = opener
        self.answering = taken
        self.opening: Wish | None = None
        """What is being opened."""
        self.problem: str | None = None
        """Why the last thing could not be opened."""
        self._lock, self._leaving = threading.Lock(), threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def partner(self) -> Partner | None:
        """Who answers here; None: nothing is open."""
        found = self.answering  # once: another thread may close it meanwhile
        return found.partner if found is not None else None

    @property
    def kept(self) -> Kept | None:
        """Where what is said here is kept."""
        partner = self.partner
        return partner.kept if partner is not None else None

    def open(self, wish: Wish) -> None:
        """Close what is there and open something else, in a thread: look at `opening` and `problem`.

        Raises:
            Conflict: if something is just being opened, or nothing else may be.
        """
        with self._lock:
            if self.opener is None:
                raise Conflict("This server was started for one chat. Start accord ui to open something else.")
            if self.opening is not None:
                raise Conflict(f"{', '.join(self.opening.titles)} is being opened. Wait until it is there.")
            self.opening, self.problem = wish, None
            self._thread = threading.Thread(target=self._open, args=(self.opener, wish), name="opener", daemon=True)
            self._thread.start()

    def _open(self, opener: Callable[[Wish], Answering[Partner]], wish: Wish) -> None:
        try:
            self.leave()
            self.answering = opener(wish).__enter__()
        except Exception as error:
            self.problem = explained(error)
            print(f"{', '.join(wish.titles)} could not be opened: {self.problem}", file=sys.stderr, flush=True)
        finally:
            self.opening = None

    def close(self) -> None:
        """`leave`, at the end of the process: what is being opened is closed too, if it is there in a few seconds."""
        thread = self._thread
        if thread is not None:
            thread.join(LAST_WAIT)
        self.leave()

    def leave(self) -> None:
        """Close what is there; it saves what it learned. Whoever opens or closes at the same time waits until that is done."""
        with self._leaving:
            found, self.answering = self.answering, None
            if found is None:
                return
            found.__exit__()
            if words := found.partner.close():
                print(words, file=sys.stderr, flush=True)
