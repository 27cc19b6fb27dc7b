"""A chat: a question, and an answer; or one that learns: two answers side by side, and numbers that say how far the model has moved.

Which answer is better is stored as on every page for judging (`labelling`); the learner finds it in the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from accord.annotation.people import Annotator
from accord.annotation.refusals import Conflict
from accord.recipes.learn_state import Asked, Look, State
from accord.recipes.partner import Partner
from accord.recipes.question_thread import Answering, Question
from accord.recipes.seat import Seat
from accord.reporting.charts import Line, line_chart
from accord.types import Message
from accord.web.access import JUDGES
from accord.web.labelling import shown
from accord.web.opening import opening_page, seat_of
from accord.web.pages import gate_of, rendered, signing_in
from accord.web.rendering import render, turns
from accord.web.streams import BEAT, BEAT_SECONDS, Streams, sent, stream, streams_of

PAGE = "/chat"
LONGEST_TURN = 100_000
"""Characters: the longest answer that a page can ask for is far below."""
LOOK_SECONDS = 0.15
"""Between two looks at an answer that is being written."""


class Turn(BaseModel):
    """One message of the conversation so far."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["user", "assistant"]
    content: str = Field(max_length=LONGEST_TURN)


class Conversation(BaseModel):
    """What was said, and the question at its end."""

    model_config = ConfigDict(extra="forbid")
    messages: list[Turn] = Field(min_length=1, max_length=200)


def mount(app: FastAPI, answering: Answering[Partner]) -> None:
    """Put the chat into a project's site, whose store the learner shares."""
    app.state.seat = Seat(taken=answering)
    app.state.templates.globals["links"] = ((PAGE, "Chat"), *app.state.templates.globals["links"])
    app.include_router(router)


def answering_of(request: Request) -> Answering[Partner]:
    """Who answers. Raises Conflict where nothing is open."""
    found = seat_of(request).answering
    if found is None:
        raise Conflict("No model is open here. Open one first: the pages Chat and Compare do.")
    return found


def _judge(request: Request) -> Annotator:
    return gate_of(request).require(request, *JUDGES)


Judge = Annotated[Annotator, Depends(_judge)]
asking = APIRouter()
"""Questions and their answers as they are written, for every page that asks."""
router = APIRouter()


@router.get(PAGE, response_class=HTMLResponse)
def chat(request: Request) -> Response:
    """The page; where no chat is open, what opens one."""
    if (first := signing_in(request, PAGE)) is not None:
        return first
    gate, partner = gate_of(request), seat_of(request).partner
    if partner is None or partner.kind == "compare":
        return opening_page(request, "chat")
    person = gate.require(request, *JUDGES)
    values = {
        "person": person,
        "csrf": gate.csrf_of(request),
        "partner": partner,
        "learner": partner if partner.kind == "learn" else None,
        "may_leave": seat_of(request).opener is not None,
    }
    return HTMLResponse(rendered(request, "chat.html", **values))


@asking.post("/api/chat/ask")
def ask(request: Request, given: Conversation, person: Judge) -> dict[str, Any]:
    """Ask; the answers are looked for under the id that comes back."""
    messages = [Message(turn.role, turn.content) for turn in given.messages]
    return {"question": answering_of(request).ask(messages, person.id).id}


@asking.get("/api/chat/question/{question}")
def question(request: Request, question: str, person: Judge) -> dict[str, Any]:
    """How far the answers to a question are."""
    return _question(answering_of(request).question(question, person.id))


@asking.get("/api/chat/events/{question}")
async def events(request: Request, question: str, person: Judge) -> StreamingResponse:
    """The same as it happens (server-sent events): `texts` while answers grow, then `done`."""
    found = answering_of(request).question(question, person.id)
    return stream(streams_of(request), _written(found, streams_of(request)))


async def _written(found: Question, streams: Streams) -> AsyncIterator[str]:
    known: list[str] = []
    quiet = 0.0
    while not streams.stopping():
        if found.done:
            yield sent("done", await run_in_threadpool(_question, found))
            return
        texts = list(found.texts)
        if texts != known:
            known, quiet = texts, 0.0
            yield sent("texts", {"texts": texts})
        elif quiet >= BEAT_SECONDS:
            quiet = 0.0
            yield BEAT
        quiet += LOOK_SECONDS
        await asyncio.sleep(LOOK_SECONDS)


def _question(found: Question) -> dict[str, Any]:
    assignment, reply = found.assignment, found.reply
    forgotten = len(found.messages) - sum(m.role != "system" for m in assignment.task.prompt) if assignment is not None else 0
    return {
        "texts": list(found.texts),
        "problem": found.problem,
        "assignment": shown(assignment) if assignment is not None else None,
        "said": turns([*found.messages, Message("assistant", reply.text)]) if reply is not None else None,
        "forgotten": reply.forgotten if reply is not None else forgotten,
    }


router.include_router(asking)


@router.get("/api/chat/state")
def state(request: Request, person: Judge, seen: int = -1) -> dict[str, Any]:
    """Where learning stands.

    Args:
        seen: version of the charts that the page has; the same are not sent again.
    """
    answering = answering_of(request)
    answering.sync()
    found = answering.partner.state()
    if found is None:
        raise HTTPException(404, "Nothing learns here.")
    return {
        "doing": answering.doing,
        "clicks": found.clicks,
        "waiting": found.waiting,
        "steps": found.steps,
        "first": _numbers(found.first),
        "newest": _numbers(found.newest),
        "probe": {"prompt": found.probe, "start": _look(found.at_start), "now": _look(found.now)},
        "problem": found.problem,
        "version": len(found.asked),
        "charts": charts(found) if seen != len(found.asked) else None,
    }


def charts(found: State) -> dict[str, str]:
    """Length and KL over the preferences given, as SVG."""
    curve = found.curve
    clicks = [point.clicks for point in curve]
    size: dict[str, Any] = {"x_label": "preferences", "width": 360, "height": 170}
    return {
        "length": line_chart([Line("mean length, tokens", clicks, [point.tokens for point in curve])], y_label="length", **size),
        "kl": line_chart(
            [Line("KL to the start, nats an answer", clicks, [point.kl_nats for point in curve], hue=1)], y_label="KL", **size
        ),
    }


def _numbers(asked: Asked | None) -> dict[str, float] | None:
    return {"tokens": asked.tokens, "kl_nats": asked.kl_nats} if asked is not None else None


def _look(look: Look | None) -> dict[str, Any] | None:
    return {"html": str(render(look.text)), "tokens": look.tokens, "step": look.step} if look is not None else None


@router.post("/api/chat/save")
def save(request: Request) -> dict[str, Any]:
    """Write adapter, lineage and labels."""
    gate_of(request).require(request, "admin")
    return {"folder": str(answering_of(request).partner.save())}
