"""Calling reward functions: plain ones under a time limit, coroutines together on one event loop, whatever thread or loop this is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class TookTooLong(Exception):
    """A call that did not return in time."""


def call(function: Callable[[], T], timeout: float | None) -> T:
    """The result of a plain call.

    Args:
        timeout: seconds; what hangs is left behind in its thread (Python cannot stop one), so the run should end. None: no limit.
    Raises:
        TookTooLong: if it did not return in time. What the function raises passes through.
    """
    if timeout is None:
        return function()
    done: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            done.append((True, function()))
        except BaseException as error:
            done.append((False, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout)
    if not done:
        raise TookTooLong
    returned, value = done[0]
    if not returned:
        raise value
    return value


def call_together(coroutines: Sequence[Coroutine[Any, Any, Any]], timeouts: Sequence[float | None]) -> list[Any]:
    """The result or the exception of each, run at the same time; in a thread of its own where this one has a running loop already.

    Args:
        timeouts: seconds for each, None for no limit; one that takes longer is cancelled and gives `TookTooLong`.
    """

    async def limited(coroutine: Coroutine[Any, Any, Any], timeout: float | None) -> Any:
        task = asyncio.ensure_future(coroutine)
        done, _ = await asyncio.wait({task}, timeout=timeout)
        if not done:
            task.cancel()
            raise TookTooLong
        return task.result()

    async def gather() -> list[Any]:
        return await asyncio.gather(*(limited(*pair) for pair in zip(coroutines, timeouts, strict=True)), return_exceptions=True)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(gather())
    return _in_thread(gather)


def _in_thread(gather: Callable[[], Coroutine[Any, Any, list[Any]]]) -> list[Any]:
    found: list[list[Any]] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(gather())))
    thread.start()
    thread.join()
    return found[0]
