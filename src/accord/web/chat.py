"""A chat that learns: a question, two answers side by side, and numbers that say how far the model has moved.

Which answer is better is stored as on every page for judging (`labelling`); the learner finds it in the store.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from accord.recipes.learn_state import Asked, Look, State
from accord.recipes.learn_thread import Background, Question
from accord.reporting.charts import Line, line_chart
from accord.types import Message
from accord.web.access import COOKIE
from accord.web.labelling import shown
from accord.web.pages import access_of, rendered, signed_in
from accord.web.rendering import render

PAGE = "/chat"
JUDGES = ("annotator", "admin")
router = APIRouter()


class Turn(BaseModel):
    """One message of the conversation so far."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["user", "assistant"]
    content: str = Field(max_length=20_000)


class Conversation(BaseModel):
    """What was said, and the question at its end."""

    model_config = ConfigDict(extra="forbid")
    messages: list[Turn] = Field(min_length=1, max_length=200)


def mount(app: FastAPI, background: Background) -> None:
    """Put the chat into a project's site, whose store the learner shares."""
    app.state.background = background
    app.state.templates.globals["links"] = ((PAGE, "Chat"), *app.state.templates.globals["links"])
    app.include_router(router)


def background_of(request: Request) -> Background:
    """Who answers and learns."""
    found: Background = request.app.state.background
    return found


@router.get(PAGE, response_class=HTMLResponse)
def chat(request: Request) -> Response:
    """The page; the person at this machine is signed in as they come."""
    access = access_of(request)
    if access.who(request) is None:
        if not access.local:
            raise HTTPException(401, "You are not signed in. Open the link that you were given.")
        return signed_in(request, access.local_secret(), to=PAGE)
    person = access.require(request, *JUDGES)
    learner = background_of(request).learner
    secret = request.cookies[COOKIE]
    return HTMLResponse(rendered(request, "chat.html", person=person, csrf=access.csrf(secret), learner=learner))


@router.post("/api/chat/ask")
def ask(request: Request, given: Conversation) -> dict[str, Any]:
    """Ask; the answers are looked for under the id that comes back."""
    person = access_of(request).require(request, *JUDGES)
    messages = [Message(turn.role, turn.content) for turn in given.messages]
    return {"question": background_of(request).ask(messages, person.id).id}


@router.get("/api/chat/question/{question}")
def question(request: Request, question: str) -> dict[str, Any]:
    """How far the answers to a question are."""
    person = access_of(request).require(request, *JUDGES)
    return _question(background_of(request).question(question, person.id))


def _question(found: Question) -> dict[str, Any]:
    assignment = found.assignment
    return {
        "texts": list(found.texts),
        "problem": found.problem,
        "assignment": shown(assignment) if assignment is not None else None,
        "forgotten": len(found.messages) - sum(m.role != "system" for m in assignment.task.prompt) if assignment is not None else 0,
    }


@router.get("/api/chat/state")
def state(request: Request, seen: int = -1) -> dict[str, Any]:
    """Where learning stands.

    Args:
        seen: version of the charts that the page has; the same are not sent again.
    """
    access_of(request).require(request, *JUDGES)
    background = background_of(request)
    background.sync()
    found = background.learner.state()
    return {
        "doing": background.doing,
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
    access_of(request).require(request, "admin")
    return {"folder": str(background_of(request).learner.save())}
