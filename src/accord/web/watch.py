"""Pages on which training is watched: the runs of a folder, each with its curves and answers, and several side by side. They change nothing."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from accord.annotation.project import GUIDELINE
from accord.errors import DataError
from accord.reporting.curves import Curves
from accord.reporting.following import Event, Follower, places
from accord.reporting.run_files import read_object, read_whole
from accord.reporting.runs import (
    METRICS,
    ROLLOUTS,
    STAGE,
    Runs,
    differences,
    duration,
    folder_of,
    lineage_of,
    parents_of,
    project_seen,
    settings_of,
)
from accord.reporting.sampled_answers import Answer, sampled
from accord.types import Message
from accord.web import visitors
from accord.web.app import bare_app
from accord.web.pages import rendered
from accord.web.rendering import render, turns
from accord.web.visitors import Visitors

MOST_COMPARED = 8
"""Runs on one page: as many colours as can be told apart."""
MOST_STREAMS = 64
POLL_SECONDS, LIST_SECONDS, BEAT_SECONDS = 1.0, 2.0, 15.0
"""Between two looks at the files of a run, two looks at the list, and two signs of life on a quiet stream."""
RETRY = "retry: 2000\n\n"
"""Milliseconds after which a browser asks again."""


class Watched:
    """What the pages read from: the runs, and the curves that were asked for last.

    Args:
        stopping: says whether the server is about to stop; streams end then.
    """

    def __init__(self, root: Path, *, kept: int = 32) -> None:
        self.root, self.runs, self.kept = root, Runs(root), kept
        self.stopping: Callable[[], bool] = lambda: False
        self.streams = 0
        self._curves: OrderedDict[str, Curves] = OrderedDict()
        self._lock = threading.Lock()

    def curves(self, name: str) -> dict[str, Any]:
        """The curves of a run, read on from where they were read to. Raises DataError if there is no such run."""
        folder = self.runs.folder(name)
        with self._lock:
            found = self._curves.setdefault(name, Curves(folder / METRICS))
            self._curves.move_to_end(name)
            while len(self._curves) > self.kept:
                self._curves.popitem(last=False)
        found.update()
        return {"run": name, **found.to_json()}


def watch_site(root: Path, access: Visitors) -> FastAPI:
    """The site on which the runs below a folder are watched."""
    app = bare_app(access, title=f"accord: {root.resolve().name}", links=(("/runs", "Runs"),))
    app.state.watched = Watched(root)
    app.include_router(visitors.router)
    app.include_router(router)
    return app


def watched_of(request: Request) -> Watched:
    """What this application shows."""
    found: Watched = request.app.state.watched
    return found


def _let_in(request: Request) -> None:
    access: Visitors = request.app.state.access
    access.require(request)


Names = Annotated[list[str], Query(alias="run", max_length=MOST_COMPARED)]
Name = Annotated[str, Query(alias="run", max_length=1000)]
router = APIRouter(dependencies=[Depends(_let_in)])


@router.get("/")
def first() -> Response:
    """To the list."""
    return RedirectResponse("/runs", status_code=303)


@router.get("/runs", response_class=HTMLResponse)
def runs(request: Request) -> Response:
    """All runs, and the label projects beside them."""
    return HTMLResponse(rendered(request, "runs.html", **_listed(request)))


@router.get("/runs/table", response_class=HTMLResponse)
def table(request: Request) -> Response:
    """The rows of that page alone."""
    return HTMLResponse(rendered(request, "runs_table.html", **_listed(request)))


def _listed(request: Request) -> dict[str, Any]:
    watched = watched_of(request)
    return {
        "runs": watched.runs.listed(),
        "projects": watched.runs.projects(),
        "found": watched.runs.found(),
        "root": watched.root,
        "now": time.time(),
        "duration": duration,
        "most": MOST_COMPARED,
    }


@router.get("/runs/show", response_class=HTMLResponse)
def show(request: Request, name: Name) -> Response:
    """One run: how it stands, its curves and answers, what it was made of."""
    watched = watched_of(request)
    with _there():
        summary, (record, _) = watched.runs.summary(name), watched.runs.read(name)
        stage = read_object(watched.runs.folder(name) / STAGE)
    return HTMLResponse(
        rendered(
            request,
            "run.html",
            run=summary,
            names=[name],
            settings=settings_of(record),
            lineage=lineage_of(record, stage),
            parents=parents_of(watched.root, record),
            readable=bool(record),
            now=time.time(),
            duration=duration,
        )
    )


@router.get("/runs/compare", response_class=HTMLResponse)
def compare(request: Request, names: Names) -> Response:
    """Several runs on the same axes, and the settings in which they differ."""
    watched, names = watched_of(request), list(dict.fromkeys(names))
    with _there():
        found = [watched.runs.summary(name) for name in names]
        different, shared = differences([watched.runs.read(name)[0] for name in names])
    return HTMLResponse(rendered(request, "compare.html", runs=found, names=names, different=different, shared=shared))


@router.get("/projects/show", response_class=HTMLResponse)
def project(request: Request, name: Annotated[str, Query(alias="project", max_length=1000)]) -> Response:
    """A label project from outside: its guideline, its frozen rounds, and the command that opens it."""
    root = watched_of(request).root
    with _there():
        seen, folder = project_seen(root, name), folder_of(root, name, project=True)
    text = (read_whole(folder / GUIDELINE) or b"").decode("utf-8", "replace")
    return HTMLResponse(
        rendered(request, "project.html", project=seen, folder=folder, guideline=render(text), now=time.time(), duration=duration)
    )


@router.get("/api/runs/curves")
def curves(request: Request, name: Name) -> dict[str, Any]:
    """Curves of a run, thinned for charts, and the position up to which they were read."""
    with _there():
        return watched_of(request).curves(name)


@router.get("/api/runs/samples")
def samples(request: Request, name: Name) -> dict[str, Any]:
    """Answers of the first round and of the newest."""
    with _there():
        found = sampled(watched_of(request).runs.folder(name) / ROLLOUTS)
    return {"start": [_answer(one) for one in found.start], "now": [_answer(one) for one in found.now], "unreadable": found.unreadable}


def _answer(answer: Answer) -> dict[str, Any]:
    return {
        "prompt": turns(answer.prompt),
        "answer": turns([Message("assistant", answer.text)]),
        **{name: getattr(answer, name) for name in ("cut", "tokens", "score", "error", "parts", "finished", "round")},
    }


@router.get("/api/runs/events")
async def events(request: Request, names: Names, after: Annotated[str, Query(max_length=1000)] = "") -> StreamingResponse:
    """What happens to some runs, as it happens (server-sent events, as `following.Event` has them).

    Args:
        after: where to begin: the positions of the curves that the page has, separated by commas. `Last-Event-ID` goes before it.
    """
    watched = watched_of(request)
    begin = places(request.headers.get("last-event-id", after), len(names))
    follower = Follower(watched.runs, names, begin)
    with _there():
        for name in names:
            watched.runs.folder(name)
    return _stream(watched, _told(watched, follower))


@router.get("/api/runs/changes")
async def changes(request: Request) -> StreamingResponse:
    """One event each time that the list of runs is another."""
    watched = watched_of(request)
    return _stream(watched, _changes(watched))


async def _told(watched: Watched, follower: Follower) -> AsyncIterator[str]:
    quiet = 0.0
    while not watched.stopping():
        found = await run_in_threadpool(follower.poll)
        for event in found:
            yield _sent(event, follower.place)
        if follower.over:
            return
        quiet = 0.0 if found else quiet + POLL_SECONDS
        if quiet >= BEAT_SECONDS:
            quiet = 0.0
            yield ": still here\n\n"
        await asyncio.sleep(POLL_SECONDS)


async def _changes(watched: Watched) -> AsyncIterator[str]:
    known: Any = None
    quiet = 0.0
    while not watched.stopping():
        found = await run_in_threadpool(lambda: (watched.runs.listed(), watched.runs.projects()))
        if known is not None and found != known:
            yield _sent(Event("changed", {}))
            quiet = 0.0
        elif quiet >= BEAT_SECONDS:
            yield ": still here\n\n"
            quiet = 0.0
        known, quiet = found, quiet + LIST_SECONDS
        await asyncio.sleep(LIST_SECONDS)


def _sent(event: Event, place: str = "") -> str:
    identity = f"id: {place}\n" if place else ""
    return f"{identity}event: {event.name}\ndata: {json.dumps(event.data, allow_nan=False)}\n\n"


def _stream(watched: Watched, events: AsyncIterator[str]) -> StreamingResponse:
    if watched.streams >= MOST_STREAMS:
        raise HTTPException(503, "Too many pages are watching. Close some, and reload this one.")

    async def counted() -> AsyncIterator[str]:
        watched.streams += 1
        try:
            yield RETRY
            async for event in events:
                yield event
        finally:
            watched.streams -= 1

    return StreamingResponse(counted(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


@contextmanager
def _there() -> Iterator[None]:
    """A run that is not there is 404."""
    try:
        yield
    except DataError as error:
        raise HTTPException(404, str(error)) from error
