"""Who may look at pages that change nothing: whoever reaches this machine's own address, anybody else with the link that was printed."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from accord.web.access import Bucket, Gate

COOKIE = "accord_ui"
"""Not that of a project's site: browsers share cookies between the ports of a host."""
router = APIRouter()


@dataclass
class Visitors(Gate):
    """What a request may do.

    Args:
        token: what the link has that lets people in; new each time the server starts. None lets in whoever reaches it.
        hosts: as `Gate`.
    """

    token: str | None
    hosts: frozenset[str] | None
    requests: Bucket = field(default_factory=lambda: Bucket(20, 100))
    joins: Bucket = field(default_factory=lambda: Bucket(0.2, 10))

    def knows(self, token: str) -> bool:
        """Whether it is the token of this server."""
        return self.token is None or hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode())

    def require(self, request: Request) -> None:
        """Check token and rate.

        Raises:
            HTTPException: 401 or 429, with one line.
        """
        if not self.knows(request.cookies.get(COOKIE, "")):
            raise HTTPException(401, "You are not signed in. Open the link that accord ui printed.")
        if not self.requests.take(address_of(request)):
            raise HTTPException(429, "Too many requests. Wait a moment.")


def address_of(request: Request) -> str:
    """The address that a request came from."""
    return request.client.host if request.client else "?"


@router.get("/join/{token}")
def join(request: Request, token: str) -> Response:
    """The link that was printed: signs in and leaves the token out of the address."""
    visitors: Visitors = request.app.state.access
    if not visitors.joins.take(address_of(request)):
        raise HTTPException(429, "Too many tries. Wait a minute.")
    if visitors.token is None or not visitors.knows(token):
        raise HTTPException(404, "This link is not known. accord ui prints a new one each time it starts.")
    answer = RedirectResponse("/", status_code=303)
    answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=request.url.scheme == "https", path="/")
    return answer
