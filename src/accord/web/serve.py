"""Starting the server: where it listens, whom it lets in, and the link to open."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import threading
import time
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from accord.annotation.project import Project
from accord.errors import ConfigError, MachineError
from accord.recipes.seat import Seat
from accord.web.access import Access, is_loopback, server_key
from accord.web.app import create_app
from accord.web.ui import ui_site
from accord.web.visitors import Visitors

LAST_LOOK = 2.0
"""Seconds in which a page can still ask for the next task, and hear that there is none, before the server ends by itself."""


@dataclass(frozen=True)
class Listening:
    """Where the server listens, and what protects what is sent to it."""

    host: str = "127.0.0.1"
    port: int = 8321
    """0 takes one that is free."""
    certificate: Path | None = None
    key: Path | None = None
    """TLS, both files; without them nothing but this machine is let in, unless `behind` says who encrypts."""
    behind: str | None = None
    """Address under which a proxy or tunnel with TLS offers this server: https://label.example.org. None: there is none."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("TLS needs --tls-cert and --tls-key together.")
        if self.behind is not None and not self.behind.startswith("https://"):
            raise ConfigError(f"--behind {self.behind}: it is the https:// address that a proxy with TLS offers.")
        if not is_loopback(self.host) and self.certificate is None and self.behind is None:
            raise ConfigError(
                f"--host {self.host} would send invitations and labels over the network in plain text. Give --tls-cert and --tls-key, put a proxy "
                "with TLS before it (--behind https://NAME), or leave --host out and use an SSH tunnel (docs/team.md)."
            )


def site_address(listening: Listening, port: int) -> str:
    """The address that people open."""
    if listening.behind is not None:
        return listening.behind.rstrip("/")
    host = f"[{listening.host}]" if ":" in listening.host else listening.host
    return f"http{'s' if listening.certificate else ''}://{host}:{port}"


def hosts_of(listening: Listening, port: int) -> frozenset[str] | None:
    """By which names the site may be asked for; None where it listens on every address of the machine with TLS of its own."""
    if listening.behind is not None:
        return frozenset({listening.behind.removeprefix("https://").rstrip("/")})
    if is_loopback(listening.host):
        return frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]"))
    unspecified = listening.host in ("", "*") or _is_unspecified(listening.host)
    return None if unspecified else frozenset({f"{listening.host}:{port}"})


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def bind(listening: Listening) -> socket.socket:
    """A socket that listens there: who connects before the site runs waits and is not refused.

    Raises:
        MachineError: if the port is taken or the host is not this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in listening.host else socket.AF_INET
        found = socket.socket(family)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((listening.host, listening.port))
        found.listen()
        return found
    except OSError as error:
        raise MachineError(
            f"{listening.host}:{listening.port} cannot be listened on ({error.strerror}). Choose another with --port, or --port 0."
        ) from error


def serve(
    project: Project,
    listening: Listening,
    *,
    open_browser: bool = False,
    page: str = "",
    mount: Callable[[FastAPI], None] | None = None,
    until: Callable[[], bool] | None = None,
) -> None:
    """Serve a project until Ctrl-C. Every answer is on disk before it is acknowledged, so stopping loses nothing.

    Args:
        open_browser: True opens the page here. False prints its address alone.
        page: path of the page to open. "" is the one for judging.
        mount: puts more pages into the site. None: there are no more.
        until: asked every second from another thread; serving ends a moment after it says True. None: Ctrl-C alone ends it.
    """
    with project.open_store() as store, bind(listening) as listener:
        port = listener.getsockname()[1]
        local = is_loopback(listening.host) and listening.behind is None
        access = Access(store, server_key(project.folder), local, hosts_of(listening, port))
        app = create_app(store, access, title=project.settings.name or project.folder.name, folder=project.folder)
        if mount is not None:
            mount(app)
        address = site_address(listening, port)

        def opened() -> None:
            print(f"{project.folder}: {address}{page}   (Ctrl-C stops; every answer is stored as it comes)", flush=True)
            if not local:
                print(f"Invite people with: accord project invite {project.folder} NAME --site {address}", flush=True)
            if open_browser:
                _open(address + page)

        server = server_of(app, listening, opened)
        if until is not None:
            threading.Thread(target=_stop_when, args=(server, until), daemon=True).start()
        server.run([listener])


def _stop_when(server: uvicorn.Server, done: Callable[[], bool]) -> None:
    while not server.should_exit:
        time.sleep(1.0)
        if done():
            time.sleep(LAST_LOOK)
            server.should_exit = True


def _open(address: str) -> None:
    """Open a page here; browsers that are waited for are waited for beside the server that they ask."""
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


class _Server(uvicorn.Server):
    """Tells where the site is once Ctrl-C is the server's: one that came in between would end it with Python's warning of a coroutine."""

    def __init__(self, config: uvicorn.Config, opened: Callable[[], None]) -> None:
        super().__init__(config)
        self.opened = opened

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.opened()


def server_of(app: FastAPI, listening: Listening, opened: Callable[[], None] = lambda: None) -> uvicorn.Server:
    """What serves an application there until Ctrl-C; `run` takes the socket.

    Args:
        opened: called once, when pages are answered and Ctrl-C is heard.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",  # the pages have none, and a second Ctrl-C while it starts would print a traceback
        timeout_graceful_shutdown=3,
        ssl_certfile=listening.certificate,
        ssl_keyfile=str(listening.key) if listening.key else None,
        proxy_headers=listening.behind is not None,
    )
    server = _Server(config, opened)
    app.state.streams.stopping = lambda: server.should_exit
    return server


def serve_ui(
    folder: Path, listening: Listening, seat: Seat, named: Sequence[str] = (), *, open_browser: bool = False, page: str = ""
) -> None:
    """Serve the pages over a folder of runs until Ctrl-C, then close what is open. Watching writes nothing.

    Args:
        seat, named: as `ui.ui_site`.
        open_browser: True opens the page here. False prints its address alone.
        page: path of the page to open. "" is the list of runs.
    """
    with bind(listening) as listener:
        port = listener.getsockname()[1]
        token = None if is_loopback(listening.host) and listening.behind is None else secrets.token_urlsafe(24)
        app = ui_site(folder, Visitors(token, hosts_of(listening, port)), seat, named)
        address = site_address(listening, port) + (f"/join/{token}" if token else page)

        def opened() -> None:
            print(f"{folder}: {address}   (Ctrl-C stops)", flush=True)
            if open_browser:
                _open(address)

        try:
            server_of(app, listening, opened).run([listener])
        finally:
            seat.close()
