"""What a person sees while it trains: one bar with the numbers that matter, or plain lines when the output is not a terminal."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import Any

from accord.training import processes
from accord.training.metrics import readable


class Progress:
    """A context manager around the loop. Shows step, chosen metrics, tokens per second, time left.

    Args:
        total, done: steps of the run, and those it had behind it when this process began.
        tokens: tokens it had behind it then (`num_tokens`).
        names: metrics to show.
    """

    def __init__(self, total: int, done: int, tokens: int, names: Sequence[str]) -> None:
        self.total, self.done, self.tokens, self.names = total, done, tokens, list(names)
        self.bar: Any = None
        self.task: Any = None
        self.started = time.perf_counter()
        self.last_line = -math.inf

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
        seconds = time.perf_counter() - self.started
        # Over this process's whole time, evaluations and sampling included: what the user waits for.
        speed = (row["num_tokens"] - self.tokens) / max(seconds, 1e-9)
        text = " · ".join(part for part in (readable(row, self.names), f"{speed:,.0f} tokens/s") if part)
        if self.bar is not None:
            self.bar.update(self.task, completed=step, description=text)
        elif processes.is_main() and (seconds - self.last_line > 5 or step == self.total):
            self.last_line = seconds
            left = seconds / max(step - self.done, 1) * (self.total - step)
            print(f"  step {step}/{self.total} · {text} · {seconds:.0f} s, about {left:.0f} s left", file=sys.stderr, flush=True)
