"""Streams of server-sent events: how one is written, how many there may be, and that they end when the server does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import StreamingResponse

MOST = 64
BEAT_SECONDS = 15.0
"""Between two signs of life on a quiet stream."""
BEAT = ": still here\n\n"
RETRY = "retry: 2000\n\n"
"""Milliseconds after which a browser asks again."""


class Streams:
    """The streams of one site that are open."""

    def __init__(self) -> None:
        self.open = 0
        self.stopping: Callable[[], bool] = lambda: False
        """Says whether the server is about to stop; streams end then."""


def streams_of(request: Request) -> Streams:
    """Those of this application."""
    found: Streams = request.app.state.streams
    return found


def sent(name: str, data: dict[str, Any], place: str = "") -> str:
    """An event as it is sent.

    Args:
        place: where the browser goes on if the stream breaks (`Last-Event-ID`). "": it begins anew.
    """
    identity = f"id: {place}\n" if place else ""
    return f"{identity}event: {name}\ndata: {json.dumps(data, allow_nan=False)}\n\n"


def stream(streams: Streams, events: AsyncIterator[str]) -> StreamingResponse:
    """An answer that goes on until the events end, or whoever asked goes away.

    Raises:
        HTTPException: 503 if there are too many.
    """
    if streams.open >= MOST:
        raise HTTPException(503, "Too many pages are watching. Close some, and reload this one.")

    async def counted() -> AsyncIterator[str]:
        streams.open += 1
        try:
            yield RETRY
            async for event in events:
                yield event
        finally:
            streams.open -= 1

    return StreamingResponse(counted(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
