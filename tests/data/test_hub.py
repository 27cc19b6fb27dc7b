"""Hub datasets, from a small hub on this machine that records what is fetched from it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")
CODE = """
import sys
from accord.data.read import read_examples
from accord.errors import AccordError
for source in sys.argv[1:]:
    try:
        print(*(example.prompt[0].content for example in read_examples(source)))
    except AccordError as error:
        print(error.exit_code, error)
"""


REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Answers what `datasets` asks of the hub's web interface."""

    def __init__(self) -> None:
        self.datasets: dict[str, dict[str, bytes]] = {}
        """Files by name, by dataset."""
        self.fetched: list[str] = []
        """Files whose bytes were asked for."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                code, body, headers = hub.answer(self.path.split("?")[0], asks=self.command == "GET")
                self.send_response(code)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path: str, *, asks: bool) -> tuple[int, bytes, dict[str, str]]:
        for name, files in self.datasets.items():
            described = [
                {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()} for file, data in files.items()
            ]
            if path.startswith(f"/api/datasets/{name}/tree/{REVISION}"):
                folder = path.removeprefix(f"/api/datasets/{name}/tree/{REVISION}")
                return 200, json.dumps([] if folder else described).encode(), {"Content-Type": "application/json"}
            if path in (f"/api/datasets/{name}", f"/api/datasets/{name}/revision/{REVISION}"):
                return 200, json.dumps({"id": name, "sha": REVISION}).encode(), {"Content-Type": "application/json"}
            for file, data in files.items():
                if path.startswith(f"/datasets/{name}/resolve/") and path.endswith(f"/{file}"):
                    self.fetched += [file] * asks
                    return 200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": REVISION}
            if f"/{name}/" in path:
                return 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": REVISION}
        return 404, b"", {"X-Error-Code": "RepoNotFound"}

    def __enter__(self) -> Hub:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def read(hub: Hub, home: Path, *sources: str, **environment: str) -> list[str]:
    """What a new process prints of these sources, one line each."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *sources],
        env={
            **os.environ,
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def rows(*prompts: str) -> bytes:
    return "".join(json.dumps({"prompt": prompt, "completion": "y"}) + "\n" for prompt in prompts).encode()


CARD = """---
configs:
- config_name: main
  data_files: [{split: train, path: main.jsonl}]
- config_name: other
  data_files: [{split: train, path: other-train.jsonl}, {split: test, path: other-test.jsonl}]
---
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    found = Hub()
    found.datasets["ORG/splits"] = {"train.jsonl": rows("a", "b"), "test.jsonl": rows("c")}
    found.datasets["ORG/configs"] = {
        "README.md": CARD.encode(),
        "main.jsonl": rows("m"),
        "other-train.jsonl": rows("o"),
        "other-test.jsonl": rows("p"),
    }
    with found:
        yield found


def test_only_the_split_that_is_read_is_fetched(hub: Hub, tmp_path: Path) -> None:
    assert read(hub, tmp_path, "ORG/splits") == ["a b"]
    assert [name for name in hub.fetched if name.endswith(".jsonl")] == ["train.jsonl"]
    assert read(hub, tmp_path, "ORG/splits@test", "ORG/splits@dev") == [
        "c",
        '3 ORG/splits has the splits train, test and no split "dev"; name one of them: ORG/splits@train.',
    ]
    assert read(hub, tmp_path, "ORG/splits", "ORG/splits@test") == ["a b", "c"]  # from the cache
    assert [name for name in hub.fetched if name.endswith(".jsonl")] == ["train.jsonl", "test.jsonl"]


def test_what_was_read_once_is_read_without_the_hub(hub: Hub, tmp_path: Path) -> None:
    read(hub, tmp_path, "ORG/splits@test", "ORG/configs/other")
    asked = len(hub.fetched)
    found = read(hub, tmp_path, "ORG/splits@test", "ORG/configs/other", "ORG/splits", HF_HUB_OFFLINE="1")
    assert found[:2] == ["c", "o"]
    assert found[2].startswith("4 There is no file ORG/splits here, and the hub dataset ORG/splits cannot be loaded")
    assert len(hub.fetched) == asked


def test_a_configuration_is_named_after_the_dataset(hub: Hub, tmp_path: Path) -> None:
    assert read(hub, tmp_path, "ORG/configs/other@test", "ORG/configs/main", "ORG/configs", "ORG/configs/none", "ORG/none") == [
        "p",
        "m",
        "3 ORG/configs has the configurations main, other; name one of them: ORG/configs/main.",
        "3 ORG/configs has the configurations main, other; name one of them: ORG/configs/main.",
        "3 There is no file ORG/none here and no dataset of that name on the hub that you may read.",
    ]
    assert "other-train.jsonl" not in hub.fetched
