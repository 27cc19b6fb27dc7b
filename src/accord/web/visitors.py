"""Who may use a site without a project of its own: whoever reaches this machine's own address, and anybody else, to look, with the link that was printed."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from accord.annotation.people import Annotator
from accord.web.access import LOCAL_USER, Bucket, Gate

COOKIE = "accord_ui"
"""Not that of a project's site: browsers share cookies between the ports of a host."""
ME, GUEST = Annotator(LOCAL_USER, "me", "admin", False, 0), Annotator("guest", "guest", "viewer", False, 0)
router = APIRouter()


@dataclass
class Visitors(Gate):
    """What a request may do.

    Args:
        token: what the link has that lets people in, to look; new each time the server starts. None lets in whoever reaches it, to do everything.
        hosts: as `Gate`.
        key: the secret that the pages of this server are known by.
    """

    token: str | None
    hosts: frozenset[str] | None
    requests: Bucket = field(default_factory=lambda: Bucket(20, 100))
    joins: Bucket = field(default_factory=lambda: Bucket(0.2, 10))
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    def knows(self, token: str) -> bool:
        """Whether it is the token of this server."""
        return self.token is None or hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode())

    def look(self, request: Request) -> None:
        """Check token and rate.

        Raises:
            HTTPException: 401 or 429, with one line.
        """
        if not self.knows(request.cookies.get(COOKIE, "")):
            raise HTTPException(401, "You are not signed in. Open the link that accord ui printed.")
        if not self.requests.take(address_of(request)):
            raise HTTPException(429, "Too many requests. Wait a moment.")

    def require(self, request: Request, *roles: str) -> Annotator:
        """The person at this machine, or a guest, who looks."""
        self.look(request)
        found = GUEST if self.token is not None else ME
        if roles and found.role not in roles:
            raise HTTPException(
                403, "Models are opened, and answers judged, at the machine that accord ui runs on. From here its runs can be watched."
            )
        if request.method not in ("GET", "HEAD"):
            self.check_ours(request)
        return found

    def csrf_of(self, request: Request) -> str:
        """One for the server's life: only pages of ours can read it."""
        return hmac.new(self.key, b"csrf", hashlib.sha256).hexdigest()


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
