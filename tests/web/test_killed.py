"""Many annotators at once while the server is killed again and again: every acknowledged answer is there exactly once, and no task has more than it wants."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from accord.annotation.project import Project
from accord.annotation.store import Store
from live_site import numbered
from postgres_server import running

OVERLAP = 2


class Server:
    """`accord annotate` in a process of its own, on a port that stays the same."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, 0
        self.start()

    def start(self) -> None:
        """Start and wait for the line with the address."""
        command = [sys.executable, "-m", "accord", "annotate", str(self.folder), "--port", str(self.port), "--open-browser", "no"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.port = int(line.split("http://127.0.0.1:")[1].split()[0])

    def kill(self) -> None:
        """SIGKILL, in the middle of whatever it does."""
        self.process.kill()
        self.process.wait()


def annotator(port: int, secret: str, acknowledged: dict[str, str], draw: random.Random) -> None:
    """Judge until nothing is left; a request without a reply is sent again, as the page does."""
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)

    def ask(method: str, path: str, **options: Any) -> httpx.Response:
        while True:
            try:
                reply = client.request(method, path, **options)
                if reply.status_code not in (429, 500, 502, 503):
                    return reply
            except httpx.TransportError:
                pass
            time.sleep(0.05)

    ask("GET", f"/join/{secret}")
    token = ask("GET", "/").text.partition('name="csrf" content="')[2].partition('"')[0]
    headers = {"X-CSRF-Token": token}
    while True:
        found = ask("POST", "/api/next", json={}, headers=headers).json()
        held = found["assignment"]
        if held is None:
            if found["reason"] != "wait":
                return
            time.sleep(0.2)
            continue
        name = f"{secret[-4:]}-{draw.getrandbits(64):x}"
        body = {"task": held["task"], "token": held["token"], "submission": name, "kind": "pair", "value": {"choice": draw.randrange(2)}}
        reply = ask("POST", "/api/submit", json=body, headers=headers)
        if reply.status_code == 200:
            acknowledged[name] = reply.json()["annotation"]


def judged_while_killed(project: Project, *, people: int, tasks: int, kills: int) -> dict[str, str]:
    """Run it; returns the annotation that each submission was told to have become."""
    secrets = [f"secret of annotator number {number:04d}" for number in range(people)]
    with project.open_store() as store:
        store.add_tasks(numbered(number, f"first {number}", f"second {number}") for number in range(tasks))
        for secret in secrets:
            store.add_annotator(secret[-4:], secret=secret)
    server = Server(project.folder)
    acknowledged: list[dict[str, str]] = [{} for _ in secrets]
    threads = [
        threading.Thread(target=annotator, args=(server.port, secret, acknowledged[number], random.Random(number)))
        for number, secret in enumerate(secrets)
    ]
    try:
        for thread in threads:
            thread.start()
        total, draw = tasks * OVERLAP, random.Random(5)
        for kill in range(kills):
            while sum(map(len, acknowledged)) < total * (kill + 1) // (kills + 2):
                time.sleep(0.02)
            time.sleep(draw.random() * 0.1)
            server.kill()
            server.start()
        for thread in threads:
            thread.join(600)
    finally:
        server.kill()
    assert not any(thread.is_alive() for thread in threads)
    return {name: key for one in acknowledged for name, key in one.items()}


def compare(store: Store, said: dict[str, str], tasks: int) -> None:
    """Nothing lost, nothing twice, exactly as many answers on each task as it wants, by different people."""
    stored = list(store.annotations())
    ids = Counter(annotation.id for annotation in stored)
    assert set(said.values()) <= ids.keys() and max(ids.values()) == 1
    assert len(set(said.values())) == len(said)
    by_task: dict[str, list[str]] = {}
    for annotation in stored:
        by_task.setdefault(annotation.task, []).append(annotation.annotator)
    assert len(by_task) == tasks and all(len(names) == len(set(names)) == OVERLAP for names in by_task.values())
    assert store.progress().closed == tasks


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """What project.yaml says of it: None is a file in the project."""
    if request.param == "sqlite":
        yield None
        return
    with running() as server:
        yield server.new(empty=True)


@pytest.mark.parametrize(
    ("people", "tasks", "kills"), [(8, 60, 2), pytest.param(30, 1500, 5, marks=pytest.mark.slow)], ids=["small", "3000 answers"]
)
def test_a_killed_server_loses_nothing(database: str | None, tmp_path: Path, people: int, tasks: int, kills: int) -> None:
    project = Project.new(tmp_path / "project", overlap=OVERLAP, gold_rate=0.0, repeat_rate=0.0, database=database)
    said = judged_while_killed(project, people=people, tasks=tasks, kills=kills)
    assert len(said) == tasks * OVERLAP
    with project.open_store() as store:
        assert (store.database.file is None) == (database is not None)
        compare(store, said, tasks)
