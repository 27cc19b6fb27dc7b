"""One thing is open at a time: opening another closes it, what fails says why, what is written is dropped when it is closed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from accord.annotation.refusals import Conflict
from accord.errors import ConfigError
from accord.recipes.partner import Partner, Reply, Watch
from accord.recipes.question_thread import Answering
from accord.recipes.seat import Seat, Wish
from accord.types import Message


class Echo(Partner):
    """Says what was asked, a letter at a time, as slowly as it is told."""

    kind = "chat"

    def __init__(self, title: str, pause: threading.Event | None = None) -> None:
        self.title, self.pause, self.closed = title, pause, False

    def propose(self, messages: Sequence[Message], annotator: str, watch: Watch | None = None) -> Reply:
        text = messages[-1].content
        for end in range(1, len(text) + 1):
            if watch is not None:
                watch(0, text[:end])
            if self.pause is not None:
                self.pause.wait(0.05)
        return Reply(text)

    def close(self) -> str:
        self.closed = True
        return f"closed {self.title}"


def until(holds: Callable[[], Any]) -> Any:
    end = time.monotonic() + 20
    while not (found := holds()):
        assert time.monotonic() < end, "it never was"
        time.sleep(0.01)
    return found


def wish(name: str) -> Wish:
    return Wish("chat", (name,), (name,))


def test_opening_another_closes_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    seat = Seat(lambda wanted: Answering(Echo(wanted.titles[0])))
    assert seat.partner is None and seat.kept is None
    seat.open(wish("one"))
    one = until(lambda: seat.partner)
    seat.open(wish("two"))
    two = until(lambda: seat.opening is None and seat.partner)
    assert one.closed and not two.closed and two.title == "two" and "closed one" in capsys.readouterr().err
    assert seat.answering is not None
    question = seat.answering.ask([Message("user", "hello")], "me")
    until(lambda: question.done)
    assert question.reply == Reply("hello") and question.texts == ["hello"] and question.problem is None
    seat.close()
    assert two.closed and seat.partner is None
    seat.close()


def test_what_fails_says_why_and_the_next_may_come() -> None:
    def opener(wanted: Wish) -> Answering[Partner]:
        if wanted.titles[0] == "bad":
            raise ConfigError("There is no such model.")
        return Answering(Echo("good"))

    seat = Seat(opener)
    seat.open(wish("bad"))
    assert until(lambda: seat.problem) == "There is no such model." and seat.partner is None
    until(lambda: seat.opening is None)
    seat.open(wish("good"))
    until(lambda: seat.partner)
    assert seat.problem is None
    seat.close()


def test_one_is_opened_at_a_time() -> None:
    go = threading.Event()

    def opener(wanted: Wish) -> Answering[Partner]:
        go.wait(20)
        return Answering(Echo("slow"))

    seat = Seat(opener)
    seat.open(wish("slow"))
    with pytest.raises(Conflict, match="is being opened"):
        seat.open(wish("other"))
    go.set()
    seat.close()  # waits for it, and closes it too
    assert seat.partner is None


def test_what_is_there_from_the_start_stays() -> None:
    with Answering(Echo("fixed")) as answering:
        seat = Seat(taken=answering)
        with pytest.raises(Conflict, match="started for one chat"):
            seat.open(wish("other"))
        assert seat.partner is answering.partner


def test_closing_drops_what_is_being_written_and_what_waits() -> None:
    partner = Echo("slow", threading.Event())
    with Answering(partner) as answering:
        first = answering.ask([Message("user", "x" * 1000)], "me")
        second = answering.ask([Message("user", "y")], "other")
        until(lambda: len(first.texts[0]) > 2)
        before = time.monotonic()
    assert time.monotonic() - before < 5 and first.done and second.done
    assert "was closed" in (first.problem or "") and "was closed" in (second.problem or "")
