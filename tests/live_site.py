"""A project with tasks, and its site as a server really serves it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from accord.annotation.project import Project
from accord.annotation.store import Store
from accord.types import Completion, Message, Task, TaskKind, task_id
from accord.web.access import Access, server_key
from accord.web.app import create_app
from accord.web.serve import Listening, bind, hosts_of, site_address

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def answer(text: str) -> Completion:
    return Completion((Message("assistant", text),), source={"kind": "sample", "model": "hidden-author"})


def numbered(number: int, *texts: str) -> Task:
    prompt = (Message("user", f"Question {number}?"),)
    answers = tuple(answer(text) for text in texts)
    kind = "pair" if len(texts) == 2 else "ranking"
    return Task(task_id(kind, prompt, answers), kind, prompt, answers)


def of_kind(kind: TaskKind, number: int, *texts: str) -> Task:
    """A rating of the one answer, or the steps of the one solution."""
    prompt = (Message("user", f"Question {number}?"),)
    messages = tuple(Message("assistant", text) for text in texts)
    answers = (Completion(messages, source={"kind": "sample", "model": "hidden-author"}),)
    return Task(task_id(kind, prompt, answers), kind, prompt, answers)


@contextmanager
def running(server: uvicorn.Server, listener: socket.socket) -> Iterator[threading.Thread]:
    """The server in a thread, listening, until the block ends."""
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield thread
    server.should_exit = True
    thread.join(10)


def quiet_server(app: FastAPI) -> uvicorn.Server:
    """A server of an application that prints errors alone."""
    return uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))


@dataclass
class Site:
    """A site that is being served."""

    project: Project
    store: Store
    address: str
    access: Access
    server: uvicorn.Server


@contextmanager
def serving(folder: Path, tasks: list[Task], *, port: int = 0) -> Iterator[Site]:
    """Serve a new project, or the one that lies there already."""
    project = Project(folder) if (folder / "project.yaml").exists() else Project.new(folder, gold_rate=0.0, repeat_rate=0.0)
    listening = Listening(port=port)
    with project.open_store() as store, bind(listening) as listener:
        store.add_tasks(tasks)
        bound = listener.getsockname()[1]
        access = Access(store, server_key(folder), local=True, hosts=hosts_of(listening, bound))
        app = create_app(store, access, title="Test", folder=folder)
        server = quiet_server(app)
        with running(server, listener):
            yield Site(project, store, site_address(listening, bound), access, server)
