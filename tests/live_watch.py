"""A folder with runs, and the pages on which they are watched as a server really serves them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from accord.recipes.seat import Seat
from accord.types import Message, Rollout, Score, to_json
from accord.web.serve import Listening, bind, hosts_of, server_of, site_address
from accord.web.streams import Streams
from accord.web.ui import ui_site
from accord.web.visitors import Visitors
from live_site import running

RECORD: dict[str, Any] = {
    "schema": 1,
    "method": "ppo",
    "base": "models/stories260k",
    "adapters": ["sft", "policy"],
    "parents": [],
    "config": {"max_steps": -1, "logging_steps": 1, "kl_coef": 0.05},
    "data": {"prompts": {"rows": 10, "hash": "ab" * 20}},
    "seed": 42,
    "versions": {"accord": "0.1.0"},
    "skipped_checks": [],
    "finished": False,
    "metrics": {},
    "steps": 0,
    "total_steps": 48,
}


def metrics(steps: Sequence[int], **more: Any) -> str:
    """Lines of metrics.jsonl: a reward that rises, a KL that rises, answers that get shorter."""
    rows = [
        {
            "step": step,
            "objective/scores": step / 10,
            "objective/kl": step / 20,
            "completions/mean_length": 60 - step,
            "loss": 1 / (1 + step),
            "learning_rate": 1e-4,
            "step_seconds": 2.0,
            **more,
        }
        for step in steps
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_run(folder: Path, steps: Sequence[int] = range(1, 11), more: dict[str, Any] | None = None, **record: Any) -> Path:
    """A run's folder as a training process would have left it by now."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({**RECORD, **record}), encoding="utf-8")
    (folder / "metrics.jsonl").write_text(metrics(steps, **(more or {})), encoding="utf-8")
    return folder


def append(path: Path, text: str) -> None:
    """What a training process does after a step."""
    with open(path, "a", encoding="utf-8", newline="") as file:
        file.write(text)


def rollout(prompt: str, step: int, text: str, score: Score | None = None) -> str:
    """A line of rollouts.jsonl."""
    given = score or Score(0.5, {"brief": 0.25})
    return (
        json.dumps(to_json(Rollout(prompt, (Message("user", prompt),), (1,), (4, 5), text, (0.0, 0.0), "stop", 0, step, score=given)))
        + "\n"
    )


@dataclass
class Watching:
    """Pages that are being served."""

    root: Path
    address: str
    streams: Streams
    server: uvicorn.Server
    thread: threading.Thread


@contextmanager
def watching(root: Path, *, port: int = 0) -> Iterator[Watching]:
    """Serve the runs below a folder."""
    listening = Listening(port=port)
    with bind(listening) as listener:
        bound = listener.getsockname()[1]
        app = ui_site(root, Visitors(None, hosts_of(listening, bound)), Seat())
        server = server_of(app, listening)
        with running(server, listener) as thread:
            yield Watching(root, site_address(listening, bound), app.state.streams, server, thread)
