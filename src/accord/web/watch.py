"""Pages on which training is watched: the runs of a folder, each with its curves and answers, and several side by side. They change nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from accord.annotation.project import GUIDELINE
from accord.errors import DataError
from accord.reporting.curves import Curves
from accord.reporting.following import Follower, places
from accord.reporting.monitored import monitored, signatures
from accord.reporting.run_files import read_object, read_whole, signature
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
from accord.web.pages import gate_of, rendered
from accord.web.rendering import render, turns
from accord.web.streams import BEAT, BEAT_SECONDS, Streams, sent, stream, streams_of

LINK = ("/runs", "Runs")
MOST_COMPARED = 8
"""Runs on one page: as many colours as can be told apart."""
POLL_SECONDS, LIST_SECONDS = 1.0, 2.0
"""Between two looks at the files of a run, and two looks at the list."""


class Watched:
    """What the pages read from: the runs, and the curves that were asked for last."""

    def __init__(self, root: Path, *, kept: int = 32) -> None:
        self.root, self.runs, self.kept = root, Runs(root), kept
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


def mount(app: FastAPI, root: Path) -> None:
    """Put the pages of the runs below a folder into a site, which leads to them."""
    app.state.watched = Watched(root)
    app.include_router(router)


def watched_of(request: Request) -> Watched:
    """What this application shows."""
    found: Watched = request.app.state.watched
    return found


def _let_in(request: Request) -> None:
    gate_of(request).look(request)


Names = Annotated[list[str], Query(alias="run", max_length=MOST_COMPARED)]
Name = Annotated[str, Query(alias="run", max_length=1000)]
router = APIRouter(dependencies=[Depends(_let_in)])


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
        folder = watched.runs.folder(name)
    return HTMLResponse(
        rendered(
            request,
            "run.html",
            run=summary,
            names=[name],
            settings=settings_of(record),
            lineage=lineage_of(record, read_object(folder / STAGE)),
            parents=parents_of(watched.root, record),
            readable=bool(record),
            has_monitors=any(signatures(folder)),
            has_samples=signature(folder / ROLLOUTS) is not None,
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


@router.get("/api/runs/monitors")
def monitors(request: Request, name: Name) -> dict[str, Any]:
    """What the monitors said of the last round, and the alarms before; texts are what a model wrote, as text."""
    with _there():
        return asdict(monitored(watched_of(request).runs.folder(name)))


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
    streams = streams_of(request)
    return stream(streams, _told(streams, follower))


@router.get("/api/runs/changes")
async def changes(request: Request) -> StreamingResponse:
    """One event each time that the list of runs is another."""
    streams = streams_of(request)
    return stream(streams, _changes(streams, watched_of(request)))


async def _told(streams: Streams, follower: Follower) -> AsyncIterator[str]:
    quiet = 0.0
    while not streams.stopping():
        found = await run_in_threadpool(follower.poll)
        for event in found:
            yield sent(event.name, event.data, follower.place)
        if follower.over:
            return
        quiet = 0.0 if found else quiet + POLL_SECONDS
        if quiet >= BEAT_SECONDS:
            quiet = 0.0
            yield BEAT
        await asyncio.sleep(POLL_SECONDS)


async def _changes(streams: Streams, watched: Watched) -> AsyncIterator[str]:
    known: Any = None
    quiet = 0.0
    while not streams.stopping():
        found = await run_in_threadpool(lambda: (watched.runs.listed(), watched.runs.projects()))
        if known is not None and found != known:
            yield sent("changed", {})
            quiet = 0.0
        elif quiet >= BEAT_SECONDS:
            yield BEAT
            quiet = 0.0
        known, quiet = found, quiet + LIST_SECONDS
        await asyncio.sleep(LIST_SECONDS)


@contextmanager
def _there() -> Iterator[None]:
    """A run that is not there is 404."""
    try:
        yield
    except DataError as error:
        raise HTTPException(404, str(error)) from error
