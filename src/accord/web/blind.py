"""Checkpoints side by side, blind: ask, vote, and only then see whose answers they were. Votes go the way of every judgement (`labelling`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from accord.annotation.refusals import Conflict
from accord.web.access import JUDGES
from accord.web.chat import Judge
from accord.web.opening import opening_page, seat_of
from accord.web.pages import gate_of, rendered

if TYPE_CHECKING:
    from accord.recipes.blind import Comparison  # which needs torch, and this page does not

PAGE = "/compare"
router = APIRouter()


class TakeBack(BaseModel):
    """Take the newest vote back; sent again with the same id it is taken back once."""

    model_config = ConfigDict(extra="forbid")
    submission: str = Field(max_length=100)


def comparison_of(request: Request) -> Comparison:
    """The comparison that is open. Raises Conflict where there is none."""
    partner = seat_of(request).partner
    if partner is None or partner.kind != "compare":
        raise Conflict("No comparison is open here. Open one on the page Compare.")
    return cast("Comparison", partner)


@router.get(PAGE, response_class=HTMLResponse)
def compare(request: Request) -> Response:
    """The page; where no comparison is open, what opens one."""
    partner, gate = seat_of(request).partner, gate_of(request)
    if partner is None or partner.kind != "compare":
        return opening_page(request, "compare")
    person = gate.require(request, *JUDGES)
    comparison = cast("Comparison", partner)
    values = {
        "person": person,
        "csrf": gate.csrf_of(request),
        "names": sorted(author.name for author in comparison.authors),
        "places": comparison.places,
        "project": comparison.project.folder,
    }
    return HTMLResponse(rendered(request, "blind.html", **values))


@router.get("/api/compare/revealed/{task}")
def revealed(request: Request, task: str, person: Judge) -> dict[str, Any]:
    """Who wrote the answer at each place, once this person has voted."""
    return {"places": comparison_of(request).revealed(task, person.id)}


@router.get("/api/compare/tallies")
def tallies(request: Request, person: Judge) -> dict[str, Any]:
    """How each two stand: counts, the first one's win rate with an interval that holds at every look, and what that says."""
    found, others = comparison_of(request).tallies()
    rows = [
        {
            **{name: getattr(one, name) for name in ("first", "second", "wins", "ties", "losses", "words")},
            **{name: getattr(one.interval, name) for name in ("mean", "low", "high", "count")},
        }
        for one in found
    ]
    return {"pairs": rows, "others": others}


@router.post("/api/compare/take-back")
def take_back(request: Request, given: TakeBack, person: Judge) -> dict[str, Any]:
    """Take the newest vote back for good: it counts no more, and its question is not asked again."""
    comparison_of(request).take_back(person.id, given.submission)
    return {}
