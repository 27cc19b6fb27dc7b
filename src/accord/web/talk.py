"""The page on which people talk with a model and judge two answers to each turn; they ask as in the chat, and judgements go the way of every
page for judging (`labelling`)."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, Response

from accord.recipes.partner import Partner
from accord.recipes.question_thread import Answering
from accord.recipes.seat import Seat
from accord.web import chat
from accord.web.access import JUDGES
from accord.web.pages import gate_of, rendered, signing_in

PAGE = "/talk"
router = APIRouter()


def mount(app: FastAPI, answering: Answering[Partner]) -> None:
    """Put the page into a project's site, with a link in the head of every page."""
    app.state.seat = Seat(taken=answering)
    app.state.templates.globals["links"] = (("/", "Judge"), (PAGE, "Talk"), *app.state.templates.globals["links"])
    app.include_router(router)
    app.include_router(chat.asking)


@router.get(PAGE, response_class=HTMLResponse)
def talk(request: Request) -> Response:
    """The page; the person at this machine is signed in as they come."""
    if (first := signing_in(request, PAGE)) is not None:
        return first
    person = gate_of(request).require(request, *JUDGES)
    return HTMLResponse(rendered(request, "talk.html", person=person, csrf=gate_of(request).csrf_of(request)))
