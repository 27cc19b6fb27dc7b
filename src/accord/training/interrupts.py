"""Ctrl-C while training: the first finishes the step (or the iteration) and saves, the second stops at once."""

from __future__ import annotations

import signal
from typing import Any


class Interrupts:
    """A context manager around the loop; `wanted` is True once somebody has pressed Ctrl-C."""

    def __init__(self) -> None:
        self.wanted = False
        self.previous: Any = None

    def __enter__(self) -> Interrupts:
        try:
            self.previous = signal.signal(signal.SIGINT, self._handle)
        except ValueError:  # not in the main thread: the caller handles interrupts
            self.previous = None
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)

    def _handle(self, number: int, frame: Any) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True
        print("\nStopping after this step and saving. Press Ctrl-C again to stop at once.", flush=True)
