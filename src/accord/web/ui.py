"""The site of `accord ui`: runs to watch, a model to chat with or to teach, and checkpoints to compare, under one head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import RedirectResponse, Response

from accord.recipes.seat import Seat
from accord.web import blind, chat, labelling, opening, visitors, watch
from accord.web.app import bare_app
from accord.web.visitors import Visitors


def ui_site(root: Path, access: Visitors, seat: Seat, named: Sequence[str] = ()) -> FastAPI:
    """The site over a folder of runs.

    Args:
        seat: where models are opened; nothing is at first.
        named: models that can be opened beside the runs, as `open_model` takes them.
    """
    links = (watch.LINK, (chat.PAGE, "Chat"), (blind.PAGE, "Compare"))
    app = bare_app(access, title=f"accord: {root.resolve().name}", links=links)
    app.state.seat, app.state.named = seat, tuple(named)
    watch.mount(app, root)
    for part in (chat, blind, opening, labelling, visitors):
        app.include_router(part.router)
    app.add_api_route("/", first)
    return app


def first() -> Response:
    """To the list of runs."""
    return RedirectResponse(watch.LINK[0], status_code=303)
