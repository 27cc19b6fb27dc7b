"""A tiny model in a folder, and the stories model behind a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import tiny
from accord.models.opened import Opened, open_model
from ai_feedback.serving import JudgeServer, StoriesReplies


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with a chat template, that reads 2,048 tokens."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny.model(max_position_embeddings=2048).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_model(tiny_folder: Path) -> Opened:
    return open_model(str(tiny_folder), dtype="float32")


@pytest.fixture
def stories(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """A real trained model that is small enough for tests."""
    monkeypatch.setenv("ACCORD_STORIES260K", str(shared_data / "stories260k"))
    return open_model("stories260k", dtype="float32")


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    """A server that is told what to reply."""
    with JudgeServer() as served:
        yield served


@pytest.fixture
def stories_server(stories: Opened) -> Iterator[JudgeServer]:
    """A server that gives the stories model's own text and log-probabilities."""
    with JudgeServer(StoriesReplies(stories.policy.model, stories.tokenizer)) as served:
        yield served
