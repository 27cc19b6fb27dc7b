"""What the page for judging asks: the next task, drafts, answers, taking back. JSON in and out."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from accord.annotation.refusals import Conflict
from accord.annotation.results import Assignment, Idle
from accord.annotation.store import Store
from accord.recipes.seat import Seat
from accord.types import AnnotationKind, Message
from accord.web.access import JUDGES
from accord.web.pages import gate_of
from accord.web.rendering import turns

router = APIRouter(prefix="/api")


class Held(BaseModel):
    """A task that the page holds."""

    model_config = ConfigDict(extra="forbid")
    task: str = Field(max_length=100)
    token: str = Field(max_length=100)


class Draft(Held):
    draft: dict[str, Any]


class Answer(Held):
    submission: str = Field(max_length=100)
    kind: AnnotationKind
    value: dict[str, Any]
    strength: int | None = None
    seconds: float | None = None
    rationale: str | None = None
    guideline_version: int | None = None


class Settled(BaseModel):
    """An answer that stands in place of the others."""

    model_config = ConfigDict(extra="forbid")
    task: str = Field(max_length=100)
    submission: str = Field(max_length=100)
    value: dict[str, Any]
    strength: int | None = None
    rationale: str | None = None


class Retired(BaseModel):
    """A task that is to be given to nobody any more, or again."""

    model_config = ConfigDict(extra="forbid")
    task: str = Field(max_length=100)
    again: bool = False


class Read(BaseModel):
    """Tasks whose judgements an administrator reads without having judged them."""

    model_config = ConfigDict(extra="forbid")
    tasks: list[str] = Field(max_length=10_000)


class TakeBack(BaseModel):
    model_config = ConfigDict(extra="forbid")
    submission: str = Field(max_length=100)


def store_of(request: Request) -> Store:
    """The store of the project, or of what is open in a chat. Raises Conflict where neither is there."""
    seat: Seat | None = getattr(request.app.state, "seat", None)
    if seat is None:
        found: Store = request.app.state.store
        return found
    kept = seat.kept
    if kept is None:
        raise Conflict("Nothing is open here that could be judged. Open a chat that learns, or a comparison.")
    return kept.store


def shown(assignment: Assignment) -> dict[str, Any]:
    """What the page may see of an assignment, its texts as HTML too."""
    found = assignment.shown()
    as_messages = [[Message(**message) for message in found["prompt"]], *([Message(**m) for m in answer] for answer in found["answers"])]
    prompt, *answers = map(turns, as_messages)
    return {**found, "prompt": prompt, "answers": answers}


def outcome(assignment: Assignment | Idle | None) -> dict[str, Any]:
    """The task that the annotator has now, or why there is none."""
    if isinstance(assignment, Assignment):
        return {"assignment": shown(assignment), "reason": None}
    return {"assignment": None, "reason": assignment.reason if assignment is not None else None}


@router.get("/progress")
def progress(request: Request) -> dict[str, Any]:
    """How far the round is, and how many answers of this annotator stand in it."""
    person = gate_of(request).require(request)
    found = store_of(request).progress()
    return {
        "mine": found.by_annotator.get(person.id, 0),
        "answers": found.answers,
        "missing": found.missing,
        "closed": found.closed,
        "tasks": found.tasks,
        "round": found.round,
        "phase": found.phase,
    }


@router.post("/next")
def next_task(request: Request) -> dict[str, Any]:
    """The task to judge now; the same one until it is answered."""
    person = gate_of(request).require(request, *JUDGES)
    return outcome(store_of(request).next_task(person.id))


@router.post("/draft")
def draft(request: Request, given: Draft) -> dict[str, Any]:
    """Keep what is not finished."""
    person = gate_of(request).require(request, *JUDGES)
    return {"expires": store_of(request).save_draft(person.id, given.task, given.token, given.draft)}


@router.post("/submit")
def submit(request: Request, given: Answer) -> dict[str, Any]:
    """Store an answer; the reply means that it is on disk. Sent again with the same submission id it is stored once."""
    person = gate_of(request).require(request, *JUDGES)
    stored = store_of(request).submit(
        person.id,
        given.task,
        given.token,
        given.submission,
        given.kind,
        given.value,
        strength=given.strength,
        seconds=given.seconds,
        rationale=given.rationale,
        guideline_version=given.guideline_version,
    )
    return {"annotation": stored.id}


@router.post("/release")
def release(request: Request, given: Held) -> dict[str, Any]:
    """Give a task back unanswered."""
    person = gate_of(request).require(request, *JUDGES)
    store_of(request).release(person.id, given.task, given.token)
    return {}


@router.post("/undo")
def undo(request: Request, given: TakeBack) -> dict[str, Any]:
    """Take the newest answer back; its task is on the page again."""
    person = gate_of(request).require(request, *JUDGES)
    return outcome(store_of(request).undo(person.id, given.submission))


@router.post("/settle")
def settle(request: Request, given: Settled) -> dict[str, Any]:
    """Settle a disputed task."""
    person = gate_of(request).require(request, "admin")
    stored = store_of(request).adjudicate(
        person.id, given.task, given.submission, given.value, strength=given.strength, rationale=given.rationale
    )
    return {"annotation": stored.id}


@router.post("/read")
def read(request: Request, given: Read) -> dict[str, Any]:
    """Show an administrator what was said of some tasks, and ask them about these no more."""
    person = gate_of(request).require(request, "admin")
    store_of(request).read(person.id, given.tasks)
    return {}


@router.post("/retire")
def retire(request: Request, given: Retired) -> dict[str, Any]:
    """Give a task to nobody any more, or out again; what was said of it stays."""
    gate_of(request).require(request, "admin")
    store = store_of(request)
    (store.reopen if given.again else store.retire)(given.task)
    return {}
