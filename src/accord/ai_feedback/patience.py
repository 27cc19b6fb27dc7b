"""Not more requests than a server takes: a steady pace, and a pause for everybody when it asks for one."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

LONGEST_WAIT = 600.0
"""Seconds that a server may ask to wait before the run stops and says so."""


class Stopped(Exception):
    """Another request has failed for good: this one is not worth waiting for."""


class Pace:
    """Shared by all threads that ask one server.

    Args:
        per_minute: requests that may begin in a minute, spread evenly. None: no limit.
    """

    def __init__(self, per_minute: float | None = None) -> None:
        self._gap = 0.0 if per_minute is None else 60.0 / per_minute
        self._next = 0.0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def wait(self) -> None:
        """Return when a request may begin.

        Raises:
            Stopped: if it never may.
        """
        with self._lock:
            begin = max(self._next, time.monotonic())
            self._next = begin + self._gap
        self._sleep(begin - time.monotonic())

    def pause(self, seconds: float, *, everybody: bool) -> None:
        """Wait after a failure.

        Args:
            everybody: True: the server asked for it, so no request begins before. False: it is this request alone that waits, some
                part of the time more or less, so that requests which failed together do not come back together.
        """
        if everybody:
            with self._lock:
                self._next = max(self._next, time.monotonic() + seconds)
        else:
            self._sleep(seconds * random.uniform(0.75, 1.25))

    def start(self) -> None:
        """Requests may begin, also after a `stop`."""
        self._stopped.clear()

    def stop(self) -> None:
        """Let everybody who waits go, with `Stopped`."""
        self._stopped.set()

    def _sleep(self, seconds: float) -> None:
        if self._stopped.wait(max(0.0, seconds)):
            raise Stopped


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, in either form of Retry-After or in retry-after-ms; None where it does not."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * scale)
        except (KeyError, ValueError):
            continue
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError):
        return None
