"""What annotators are told of their work: where they differ on the tasks that everybody labels first, and their own habits."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from accord.annotation.calibration import compare
from accord.annotation.panel import report_of
from accord.annotation.store import Store
from accord.web.access import JUDGES
from accord.web.pages import access_of, rendered
from accord.web.rendering import turns

router = APIRouter()


@router.get("/calibration", response_class=HTMLResponse)
def calibration(request: Request) -> Response:
    """Where people differ: for those who judge once they, and everybody who has begun, are done; names are not shown."""
    access = access_of(request)
    person = access.require(request)
    store: Store = request.app.state.store
    round = store.progress().round
    found = compare(store, round, person.id if person.role in JUDGES else None)
    if found.items and person.role in JUDGES:
        store.read(person.id, [item.task.id for item in found.items])
    tasks = [task.id for task in store.tasks(round=round, role="calibration")] if found.left and person.role == "admin" else []
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
    return HTMLResponse(rendered(request, "calibration.html", found=found, items=items, tasks=tasks, csrf=access.csrf_of(request)))


@router.get("/me", response_class=HTMLResponse)
def own(request: Request) -> Response:
    """An annotator's own habits in words, and nobody else's."""
    person = access_of(request).require(request, "annotator", "admin")
    return HTMLResponse(rendered(request, "own.html", report=report_of(request.app.state.store, person.id)))
