"""schemathesis makes requests from each site's own OpenAPI schema, valid and broken ones: by nobody and by every role none is answered with a 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi import APIRouter, FastAPI
from hypothesis import HealthCheck, settings
from schemathesis.python.asgi import HOST

import tiny_demo
from accord.config.options import ChatOptions, LearnOptions
from accord.recipes.learn import open_learner
from accord.recipes.learn_thread import Background
from accord.recipes.seat import Seat
from accord.web import blind, chat, feedback, labelling, opening, pages, quality, watch
from accord.web.access import COOKIE, Access, Bucket, server_key
from accord.web.app import create_app
from accord.web.ui import ui_site
from accord.web.visitors import Visitors
from live_site import numbered, of_kind

ROLES = ("nobody", "annotator", "viewer", "admin")
QUICK = settings(max_examples=10, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
STREAMS = r"^/api/(runs/(events|changes)|chat/events/.*)$"
"""Answers that need not end."""


def described(*routers: APIRouter) -> Any:
    """What some routes say of themselves."""
    app = FastAPI()
    for router in routers:
        app.include_router(router)
    return schemathesis.openapi.from_dict(app.openapi())


LEARNING = described(pages.router, labelling.router, feedback.router, quality.router, chat.router).exclude(path_regex=STREAMS)
HELD = LEARNING.include(path_regex="^/api/(draft|submit|release|settle)$")
WATCHING = described(watch.router, chat.router, blind.router, opening.router, labelling.router).exclude(path_regex=STREAMS)


@pytest.fixture(scope="module")
def learning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """Pages for judging and for the chat that learns, with a task of each kind, by invitation."""
    folder = tmp_path_factory.mktemp("learning")
    learner = open_learner(ChatOptions(tiny_demo.model_folder(folder / "model"), max_new_tokens=2), LearnOptions(True, str(folder / "run")))
    with learner.store as store, Background(learner) as background:
        pairs = [numbered(number, f"first {number}", f"second {number}") for number in range(2)]
        store.add_tasks([*pairs, numbered(2, "a", "b", "c"), of_kind("rating", 3, "an answer"), of_kind("steps", 4, "one", "two")])
        access = Access(store, server_key(folder), False, frozenset({HOST}))
        access.requests = access.joins = Bucket(1e9, 1e9)
        for role in ROLES[1:]:
            store.add_annotator(role, role, id=role, secret=f"the secret of the {role}")
        app = create_app(store, access, title="Test")
        chat.mount(app, background)
        yield app


@pytest.fixture(scope="module")
def watching(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """The site of `accord ui`, in which nothing is open and nothing can be opened."""
    return ui_site(tmp_path_factory.mktemp("runs"), Visitors(None, frozenset({HOST}), Bucket(1e9, 1e9)), Seat())


def test_the_routes_are_those_of_the_sites(learning: FastAPI, watching: FastAPI) -> None:
    assert learning.openapi()["paths"].keys() == LEARNING.raw_schema["paths"].keys()
    assert watching.openapi()["paths"].keys() - WATCHING.raw_schema["paths"].keys() == {"/", "/join/{token}"}


def signed_in(app: FastAPI, role: str) -> dict[str, str]:
    """Headers of somebody with that role."""
    if role == "nobody":
        return {}
    secret = f"the secret of the {role}"
    return {"Cookie": f"{COOKIE}={secret}", "X-CSRF-Token": app.state.access.csrf(secret)}


def trouble(reply: Any) -> str | None:
    """What is wrong with a reply; None where it is no 500 and says whatever was not done in one line."""
    if reply.status_code >= 500:
        return str(reply.text)
    if reply.status_code >= 400 and reply.headers["content-type"][0].startswith("application/json"):
        said = reply.json()
        if set(said) != {"code", "error"} or "\n" in said["error"] or "Traceback" in said["error"]:
            return json.dumps(said)
    return None


@LEARNING.parametrize()
@QUICK
def test_any_request(case: schemathesis.Case, learning: FastAPI) -> None:
    for role in ROLES:
        assert trouble(case.call(app=learning, headers=signed_in(learning, role), allow_redirects=False)) is None


@HELD.parametrize()
@settings(QUICK, max_examples=60)
def test_any_answer_to_a_task_that_is_held(case: schemathesis.Case, learning: FastAPI) -> None:
    """The same with the ids of a lease, so that what is inside the body is looked at."""
    if isinstance(case.body, dict):
        held = learning.state.store.next_task("admin")
        case.body |= {"task": held.task.id, **({"token": held.token} if "token" in case.body else {})}
    assert trouble(case.call(app=learning, headers=signed_in(learning, "admin"), allow_redirects=False)) is None


@WATCHING.parametrize()
@QUICK
def test_any_request_to_the_site_that_watches(case: schemathesis.Case, watching: FastAPI) -> None:
    for headers in ({}, {"X-CSRF-Token": watching.state.access.csrf_of(None)}):
        assert trouble(case.call(app=watching, headers=headers, allow_redirects=False)) is None
