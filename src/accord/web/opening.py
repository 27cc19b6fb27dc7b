"""Opening a model from a page: nothing is loaded before somebody asks for it, and what was open is closed first."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from accord.annotation.refusals import Unknown
from accord.recipes.checkpoints import Checkpoint, checkpoints
from accord.recipes.partner import Kind
from accord.recipes.seat import LONGEST_ANSWER, MOST_COMPARED, Seat, Wish
from accord.web.access import JUDGES
from accord.web.pages import gate_of, rendered

router = APIRouter(prefix="/api/seat")


class Asked(BaseModel):
    """What to open: names of `checkpoints`."""

    model_config = ConfigDict(extra="forbid")
    kind: Kind
    models: list[str] = Field(max_length=100)
    max_new_tokens: int = 128
    temperature: float = Field(default=0.7, allow_inf_nan=False)


def seat_of(request: Request) -> Seat:
    """Where models are open in this application."""
    found: Seat = request.app.state.seat
    return found


def opening_page(request: Request, kind: Kind) -> Response:
    """What opens a chat, or a comparison; to whoever may only look it says who opens one."""
    gate, seat = gate_of(request), seat_of(request)
    person = gate.require(request)
    values = {
        "kind": kind,
        "person": person,
        "csrf": gate.csrf_of(request),
        "may": person.role in JUDGES and seat.opener is not None,
        "models": list(_there(request).values()),
        "open": seat.partner,
        "most": MOST_COMPARED,
        "longest": LONGEST_ANSWER,
    }
    return HTMLResponse(rendered(request, "opening.html", **values))


def _there(request: Request) -> dict[str, Checkpoint]:
    return checkpoints(request.app.state.watched.runs, request.app.state.named)


@router.get("")
def state(request: Request) -> dict[str, Any]:
    """What is open, what is being opened, and why the last thing could not be."""
    gate_of(request).require(request, *JUDGES)
    seat = seat_of(request)
    partner = seat.partner
    return {
        "open": {"kind": partner.kind, "title": partner.title} if partner is not None else None,
        "opening": list(seat.opening.titles) if seat.opening is not None else None,
        "problem": seat.problem,
    }


@router.post("")
def open_models(request: Request, given: Asked) -> dict[str, Any]:
    """Begin to open something; `state` says when it is there."""
    gate_of(request).require(request, *JUDGES)
    there = _there(request)
    for name in given.models:
        if name not in there:
            raise Unknown(f"There is no model {name[:80]!r} to open here. Reload the page.")
    chosen = [there[name] for name in given.models]
    wish = Wish(given.kind, tuple(one.model for one in chosen), tuple(one.name for one in chosen), given.max_new_tokens, given.temperature)
    seat_of(request).open(wish)
    return {}


@router.post("/close")
def close(request: Request) -> dict[str, Any]:
    """Close what is open; a chat that learns saves first."""
    gate_of(request).require(request, *JUDGES)
    seat_of(request).leave()
    return {}
