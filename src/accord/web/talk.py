"""The page on which people talk with a model and judge two answers to each turn; judgements go the way of every page for judging (`labelling`)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, Response

from accord.recipes.question_thread import Answering
from accord.recipes.talk import Talker
from accord.types import Message
from accord.web.access import JUDGES
from accord.web.chat import Conversation
from accord.web.labelling import shown
from accord.web.pages import gate_of, rendered, signing_in

PAGE = "/talk"
router = APIRouter()


def mount(app: FastAPI, answering: Answering[Talker]) -> None:
    """Put the page into a project's site, with a link in the head of every page."""
    app.state.talking = answering
    app.state.templates.globals["links"] = (("/", "Judge"), (PAGE, "Talk"), *app.state.templates.globals["links"])
    app.include_router(router)


@router.get(PAGE, response_class=HTMLResponse)
def talk(request: Request) -> Response:
    """The page; the person at this machine is signed in as they come."""
    if (first := signing_in(request, PAGE)) is not None:
        return first
    person = gate_of(request).require(request, *JUDGES)
    return HTMLResponse(rendered(request, "talk.html", person=person, csrf=gate_of(request).csrf_of(request)))


@router.post("/api/talk/ask")
def ask(request: Request, given: Conversation) -> dict[str, Any]:
    """Say something; the answers are looked for under the id that comes back."""
    person = gate_of(request).require(request, *JUDGES)
    talking: Answering[Talker] = request.app.state.talking
    return {"question": talking.ask([Message(turn.role, turn.content) for turn in given.messages], person.id).id}


@router.get("/api/talk/question/{question}")
def question(request: Request, question: str) -> dict[str, Any]:
    """How far the two answers are; once they are there, the pair to judge and how many old turns the model had no room for."""
    person = gate_of(request).require(request, *JUDGES)
    talking: Answering[Talker] = request.app.state.talking
    found = talking.question(question, person.id)
    pair = found.assignment
    return {
        "texts": list(found.texts),
        "problem": found.problem,
        "assignment": shown(pair) if pair is not None else None,
        "forgotten": len(found.messages) - len(pair.task.prompt) if pair is not None else 0,
    }
