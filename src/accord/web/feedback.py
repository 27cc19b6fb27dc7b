"""What annotators are told of their work: where they differ on the tasks that everybody labels first, and their own habits."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from accord.annotation.calibration import compare
from accord.annotation.panel import report_of
from accord.annotation.store import Store
from accord.web.pages import access_of, rendered
from accord.web.rendering import turns

router = APIRouter()


@router.get("/calibration", response_class=HTMLResponse)
def calibration(request: Request) -> Response:
    """Where people differ: for annotators once they, and everybody who has begun, are done; names are not shown."""
    person = access_of(request).require(request)
    store: Store = request.app.state.store
    found = compare(store, store.progress().round, None if person.role in ("viewer", "admin") else person.id)
    items = [
        {
            "task": item.task.id,
            "prompt": turns(item.task.prompt),
            "answers": [turns(completion.messages) for completion in item.task.completions],
            "mine": item.mine,
            "said": item.said,
        }
        for item in found.items
        if item.differs
    ]
    return HTMLResponse(rendered(request, "calibration.html", found=found, items=items))


@router.get("/me", response_class=HTMLResponse)
def own(request: Request) -> Response:
    """An annotator's own habits in words, and nobody else's."""
    person = access_of(request).require(request, "annotator", "admin")
    return HTMLResponse(rendered(request, "own.html", report=report_of(request.app.state.store, person.id)))
