"""Who may do what: sessions, roles, forged requests, and how many requests a second.

A session is the secret of an invitation in a cookie that scripts cannot read; the store keeps its hash alone. Every change needs a token in a
header that only this site's own pages know.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import HTTPException, Request

from accord.annotation.people import Annotator
from accord.annotation.refusals import Conflict
from accord.annotation.store import Store
from accord.recipes.partner import Kept
from accord.writing import write_text

COOKIE = "accord_session"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
LOCAL_USER = "me"
"""Who judges where nobody was invited: the person at this machine."""
KEY_FILE = "server.key"
JUDGES, READS_QUALITY = ("annotator", "admin"), ("admin", "viewer")
"""Roles that judge, and roles that see how annotators work; annotators judge without knowing each other's answers."""


def is_loopback(host: str) -> bool:
    """Whether a host to listen on can be reached from this machine alone."""
    return host in LOOPBACK


def server_key(folder: Path) -> bytes:
    """The project's secret that sessions of this machine's own user come from; made, readable by its owner alone, when first needed."""
    path = folder / KEY_FILE
    if not path.exists():
        write_text(path, secrets.token_hex(32) + "\n")
        path.chmod(0o600)
    return bytes.fromhex(path.read_text(encoding="utf-8").strip())


@dataclass
class Bucket:
    """So many requests a second, and a burst of so many at once."""

    rate: float
    burst: float
    clock: Callable[[], float] = time.monotonic
    _left: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, who: str) -> bool:
        """True if one more is allowed now."""
        now = self.clock()
        with self._lock:
            if len(self._left) > 10_000:
                self._left = {name: (left, at) for name, (left, at) in self._left.items() if left + (now - at) * self.rate < self.burst}
            left, at = self._left.get(who, (self.burst, now))
            left = min(self.burst, left + (now - at) * self.rate)
            self._left[who] = (left - 1 if left >= 1 else left, now)
            return left >= 1


class Gate(ABC):
    """What every site asks of a request first, whoever may use it.

    `hosts` are the names that the site is asked for by; another one is refused (DNS rebinding). None takes any, for a proxy that checks them.
    """

    hosts: frozenset[str] | None

    @abstractmethod
    def look(self, request: Request) -> None:
        """Raises HTTPException 401, 403 or 429 unless whoever asks may look at the runs."""

    @abstractmethod
    def require(self, request: Request, *roles: str) -> Annotator:
        """Who asks, after checking session, role and rate; for a change also that it comes from a page of ours.

        Raises:
            HTTPException: 401, 403 or 429, with one line.
        """

    @abstractmethod
    def csrf_of(self, request: Request) -> str:
        """What a page that is given to whoever asks sends back in `X-CSRF-Token` to show that it is ours."""

    def who(self, request: Request) -> Annotator | None:
        """The annotator who asks; None on a site that has none."""
        return None

    def check_host(self, request: Request) -> None:
        """Raises HTTPException 421 if the site is asked for by a name that is not its own."""
        if self.hosts is not None and request.headers.get("host", "") not in self.hosts:
            raise HTTPException(421, "This server does not answer to that name.")

    def check_ours(self, request: Request) -> None:
        """Raises HTTPException 403 for a change that no page of ours asks for."""
        expected, given = self.csrf_of(request), request.headers.get("x-csrf-token", "")
        if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace")):
            raise HTTPException(403, "The request did not come from a page of this site. Reload the page.")
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
            raise HTTPException(403, "The request came from another site.")


@dataclass
class Access(Gate):
    """What a request may do.

    Args:
        store: knows the annotators.
        key: `server_key`.
        local: True lets whoever reaches this machine's own address judge as its user. False asks for an invitation.
        hosts: as `Gate`.
    """

    store: Store
    key: bytes
    local: bool
    hosts: frozenset[str] | None
    requests: Bucket = field(default_factory=lambda: Bucket(20, 60))
    joins: Bucket = field(default_factory=lambda: Bucket(0.2, 10))

    def local_secret(self) -> str:
        """The secret of this machine's own user, who is added to the project when first needed."""
        secret = hmac.new(self.key, LOCAL_USER.encode(), hashlib.sha256).hexdigest()
        if self.store.annotator_of_secret(secret) is None:
            try:
                self.store.add_annotator("me", "admin", id=LOCAL_USER, secret=secret)
            except Conflict:  # added meanwhile, or the project came from another machine with its own key
                self.store.add_annotator("me", "admin", secret=secret)
        return secret

    def who(self, request: Request) -> Annotator | None:
        """Whose session a request belongs to."""
        secret = request.cookies.get(COOKIE, "")
        return self.store.annotator_of_secret(secret) if 16 <= len(secret) <= 200 else None

    def csrf_of(self, request: Request) -> str:
        """That of the session that a request belongs to."""
        return self.csrf(request.cookies.get(COOKIE, ""))

    def csrf(self, secret: str) -> str:
        """What the pages of a session send back."""
        return hmac.new(self.key, f"csrf {secret}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    def look(self, request: Request) -> None:
        """Runs are for those who see how the work goes: who judges does not know whose answers they are."""
        if not self.local:
            self.require(request, *READS_QUALITY)

    def require(self, request: Request, *roles: str) -> Annotator:
        """As `Gate.require`."""
        found = self.who(request)
        if found is None:
            raise HTTPException(401, "You are not signed in. Open the link that you were given.")
        if roles and found.role not in roles:
            raise HTTPException(403, f"This needs the role {' or '.join(roles)}; yours is {found.role}.")
        if not self.requests.take(found.id):
            raise HTTPException(429, "Too many requests. Wait a moment.")
        if request.method not in ("GET", "HEAD"):
            self.check_ours(request)
        return found


def know_this_user(kept: Kept) -> None:
    """Have a project know the person at this machine, as its own site would."""
    Access(kept.store, server_key(kept.project.folder), True, None).local_secret()
