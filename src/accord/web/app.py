"""The application: routes, headers on every answer, and errors as one line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.staticfiles import StaticFiles

from accord.annotation.refusals import Conflict, LeaseLost, Unknown
from accord.annotation.store import Store
from accord.errors import AccordError
from accord.web import feedback, labelling, pages, quality
from accord.web.access import Access, Gate
from accord.web.streams import Streams

MAX_BODY = 1_500_000
"""Bytes of a request."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
STATUS: tuple[tuple[type[AccordError], int, str], ...] = (
    (Unknown, 404, "unknown"),
    (LeaseLost, 409, "lease"),
    (Conflict, 409, "conflict"),
    (AccordError, 400, "refused"),
)


def create_app(store: Store, access: Access, *, title: str, folder: Path | None = None) -> FastAPI:
    """The site of one project.

    Args:
        title: the project's name, in the head of every page.
        folder: the project's, where the accuracies of reward models lie. None: none are known.
    """
    app = bare_app(access, title=title, links=(("/guideline", "Guideline"),), reader_links=(("/quality", "Quality"),))
    app.state.store, app.state.folder = store, folder
    for part in (pages, labelling, feedback, quality):
        app.include_router(part.router)
    return app


def bare_app(access: Gate, *, title: str, links: Sequence[tuple[str, str]], reader_links: Sequence[tuple[str, str]] = ()) -> FastAPI:
    """A site without pages: templates, static files, the headers, and errors as one line.

    Args:
        title: in the head of every page.
        links: address and name of the pages that the head of every page leads to.
        reader_links: the same for those who see how annotators work.
    """
    app = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None)
    templates = Environment(loader=PackageLoader("accord.web"), undefined=StrictUndefined, autoescape=select_autoescape())
    templates.globals |= {"title": title, "links": tuple(links), "reader_links": tuple(reader_links)}
    app.state.access, app.state.templates, app.state.streams = access, templates, Streams()
    app.mount("/static", StaticFiles(directory=Path(str(resources.files("accord.web") / "static"))), name="static")
    app.middleware("http")(_guarded)
    app.add_exception_handler(AccordError, _refused)
    app.add_exception_handler(StarletteHTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    return app


async def _guarded(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Every request: by a name of ours, no larger than it may be; every answer: with the headers."""
    try:
        request.app.state.access.check_host(request)
        length = request.headers.get("content-length", "0")
        if request.method not in ("GET", "HEAD") and (
            not length.isdigit() or int(length) > MAX_BODY or "transfer-encoding" in request.headers
        ):
            raise HTTPException(413, f"A request has at most {MAX_BODY} bytes and says how many.")
        response = await call_next(request)
    except HTTPException as error:
        response = _line(error.status_code, "http", str(error.detail))
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _line(status: int, code: str, text: str) -> JSONResponse:
    return JSONResponse({"code": code, "error": text}, status_code=status)


async def _refused(request: Request, error: Exception) -> Response:
    status, code = next((status, code) for kind, status, code in STATUS if isinstance(error, kind))
    return _line(status, code, str(error))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    if "text/html" in request.headers.get("accept", "") and request.method == "GET":
        return HTMLResponse(pages.rendered(request, "message.html", line=str(error.detail)), status_code=error.status_code)
    return _line(error.status_code, "http", str(error.detail))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    return _line(422, "invalid", f"{where or 'The body'}: {first['msg']}.")
