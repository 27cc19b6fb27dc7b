"""The pages themselves, and signing in by an invitation."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from accord.annotation.calibration import in_words
from accord.annotation.records import texts_of
from accord.annotation.refusals import Unknown
from accord.annotation.store import Store
from accord.web.access import COOKIE, JUDGES, READS_QUALITY, Access, Gate
from accord.web.rendering import render, turns

router = APIRouter()
YEAR = 365 * 24 * 3600


def rendered(request: Request, template: str, **values: Any) -> str:
    """A template as HTML. Its links are those that the person who asks may follow."""
    person = gate_of(request).who(request)
    reads = person is not None and person.role in READS_QUALITY
    return str(request.app.state.templates.get_template(template).render(reads=reads, **values))


def gate_of(request: Request) -> Gate:
    """What guards this application, whoever may use it."""
    found: Gate = request.app.state.access
    return found


def access_of(request: Request) -> Access:
    """What guards a project's site."""
    found: Access = request.app.state.access
    return found


@router.get("/", response_class=HTMLResponse)
def annotate(request: Request) -> Response:
    """Where people judge; the person at this machine is signed in as they come."""
    if (first := signing_in(request, "/")) is not None:
        return first
    access = access_of(request)
    person = access.require(request, *JUDGES)
    return HTMLResponse(rendered(request, "annotate.html", person=person, csrf=access.csrf_of(request)))


@router.get("/join/{secret}")
def join(request: Request, secret: str) -> Response:
    """An invitation: signs in and leaves the secret out of the address."""
    access = access_of(request)
    if not access.joins.take(request.client.host if request.client else "?"):
        raise HTTPException(429, "Too many tries. Wait a minute.")
    if not 16 <= len(secret) <= 200 or access.store.annotator_of_secret(secret) is None:
        raise HTTPException(404, "This invitation is not known. Ask for a new link.")
    return signed_in(request, secret)


def signing_in(request: Request, to: str) -> Response | None:
    """Where the site knows people and not yet who asks: a session for the person at this machine, and back to the page. None: nobody has to sign in.

    Raises:
        HTTPException: 401 for anybody else.
    """
    access = gate_of(request)
    if not isinstance(access, Access) or access.who(request) is not None:
        return None
    if not access.local:
        raise HTTPException(401, "You are not signed in. Open the link that you were given.")
    return signed_in(request, access.local_secret(), to=to)


def signed_in(request: Request, secret: str, *, to: str = "/") -> Response:
    """To a page of ours, with a session."""
    answer = RedirectResponse(to, status_code=303)
    answer.set_cookie(COOKIE, secret, max_age=YEAR, httponly=True, samesite="strict", secure=request.url.scheme == "https", path="/")
    return answer


@router.get("/guideline", response_class=HTMLResponse)
def guideline(request: Request) -> Response:
    """What annotators go by."""
    access_of(request).require(request)
    try:
        found = request.app.state.store.guideline()
    except Unknown:
        return HTMLResponse(rendered(request, "guideline.html", version=None, body=""))
    return HTMLResponse(rendered(request, "guideline.html", version=found.version, body=render(found.text)))


@router.get("/settle/{task}", response_class=HTMLResponse)
def settle(request: Request, task: str) -> Response:
    """A disputed task with what was said about it, to be settled; to an administrator who may still be asked about it, without what was said.

    Nobody is asked about a complete one: it is shown, and whoever has read it is not asked should somebody take an answer back.
    """
    access = access_of(request)
    person = access.require(request, "admin")
    store: Store = request.app.state.store
    asked = store.task(task)
    state = store.state(task)
    reads = state == "closed" or task in store.readable(person.id, [task])
    if reads:
        store.read(person.id, [task])
    said = [one for one in store.annotations(task=task) if one.kind in (asked.kind, "skip", "flag")] if reads else []
    names = {person.id: person.name for person in store.annotators()}
    return HTMLResponse(
        rendered(
            request,
            "settle.html",
            task=asked,
            retired=state == "retired",
            prompt=turns(asked.prompt),
            answers=[turns(completion.messages) for completion in asked.completions],
            reads_others=reads,
            said=[(one, in_words(one, asked), texts_of(one)) for one in said],
            names=names,
            csrf=access.csrf_of(request),
        )
    )
