"""What a person sees while it trains: one bar with the numbers that matter, or plain lines when the output is not a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from accord.training import processes
from accord.training.metrics import readable


class Progress:
    """A context manager around the loop. Shows step, chosen metrics, tokens per second, time left."""

    def __init__(self, total: int, done: int, names: Sequence[str]) -> None:
        self.total, self.done, self.names = total, done, list(names)
        self.bar: Any = None
        self.task: Any = None
        self.started = time.perf_counter()
        self.last_line = 0.0

    def __enter__(self) -> Progress:
        if processes.is_main() and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            columns = (
                MofNCompleteColumn(),
                BarColumn(bar_width=24),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self.bar = RichProgress(*columns, console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task("", total=self.total, completed=self.done)
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.bar is not None:
            self.bar.stop()

    def advance(self, step: int, row: dict[str, Any]) -> None:
        text = readable(row, self.names)
        if self.bar is not None:
            self.bar.update(self.task, completed=step, description=text)
        elif processes.is_main() and (time.perf_counter() - self.last_line > 5 or step == self.total):
            self.last_line = time.perf_counter()
            seconds = self.last_line - self.started
            left = seconds / max(step - self.done, 1) * (self.total - step)
            print(f"  step {step}/{self.total} · {text} · {seconds:.0f} s, about {left:.0f} s left", file=sys.stderr, flush=True)
