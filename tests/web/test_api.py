"""The site's requests one by one: who may do what, and that whatever is sent, one clear line comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from accord.annotation.project import Project
from accord.annotation.store import Store
from accord.errors import ConfigError
from accord.web.access import COOKIE, Access, Bucket, server_key
from accord.web.app import HEADERS, MAX_BODY, create_app
from accord.web.serve import Listening, hosts_of, site_address
from live_site import numbered

SECRET = "a secret of an invitation"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    project = Project.new(tmp_path / "project", gold_rate=0.0, repeat_rate=0.0)
    with project.open_store() as found:
        found.add_tasks([numbered(number, f"first {number}", f"second {number}") for number in range(3)])
        yield found


def client_of(store: Store, tmp_path: Path, *, local: bool = True) -> TestClient:
    access = Access(store, server_key(tmp_path), local, frozenset({"testserver"}))
    access.requests, access.joins = Bucket(20, 60, clock=lambda: 0.0), Bucket(1, 10, clock=lambda: 0.0)
    return TestClient(create_app(store, access, title="Test"), follow_redirects=False, raise_server_exceptions=True)


class Person:
    """Somebody at the page, who sends what its script would send."""

    def __init__(self, site: TestClient, secret: str | None = None) -> None:
        self.client = client = TestClient(site.app, follow_redirects=False)
        self.cookie = client.get(f"/join/{secret}" if secret else "/").cookies[COOKIE]
        page = client.get("/")
        self.csrf = page.text.partition('name="csrf" content="')[2].partition('"')[0]

    def post(self, path: str, body: Any, **headers: str) -> Any:
        sent = {"X-CSRF-Token": self.csrf, "Content-Type": "application/json", **headers}
        return self.client.post(f"/api/{path}", content=json.dumps(body), headers=sent)

    def next(self) -> dict[str, Any]:
        return self.post("next", {}).json()["assignment"]

    def submit(self, held: dict[str, Any], name: str, **changes: Any) -> Any:
        body = {"task": held["task"], "token": held["token"], "submission": name, "kind": "pair", "value": {"choice": 0}}
        return self.post("submit", {**body, **changes})


def test_an_answer_sent_twice_is_stored_once(store: Store, tmp_path: Path) -> None:
    me = Person(client_of(store, tmp_path))
    held = me.next()
    first, again = me.submit(held, "s1", strength=2), me.submit(held, "s1", strength=2)
    assert first.status_code == again.status_code == 200 and first.json() == again.json()
    assert [annotation.strength for annotation in store.annotations()] == [2]
    assert me.submit(held, "s2").status_code == 409


def test_the_page_is_not_told_what_an_annotator_must_not_know(store: Store, tmp_path: Path) -> None:
    held = Person(client_of(store, tmp_path)).next()
    assert set(held) == {"task", "kind", "prompt", "answers", "shown_order", "token", "expires", "draft", "guideline_version"}
    assert "hidden-author" not in str(held)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"task": "nothing"}, 404),
        ({"task": "../../etc/passwd"}, 404),
        ({"task": "' OR 1=1 --"}, 404),
        ({"token": "0" * 32}, 409),
        ({"kind": "ranking"}, 400),
        ({"kind": "nonsense"}, 422),
        ({"value": {"choice": 7}}, 400),
        ({"value": {"choice": "tie"}, "strength": 3}, 400),
        ({"value": "x"}, 422),
        ({"strength": 9}, 400),
        ({"seconds": -1}, 400),
        ({"submission": "no id!"}, 400),
        ({"extra": 1}, 422),
        ({"rationale": "half of a character: \ud800"}, 400),
    ],
)
def test_what_cannot_be_stored_is_refused_in_one_line(store: Store, tmp_path: Path, changes: dict[str, Any], status: int) -> None:
    me = Person(client_of(store, tmp_path))
    answer = me.submit(me.next(), "s1", **changes)
    assert answer.status_code == status, answer.text
    assert "\n" not in answer.json()["error"] and answer.json()["error"] and list(store.annotations()) == []


def test_every_answer_carries_the_headers(store: Store, tmp_path: Path) -> None:
    client = client_of(store, tmp_path)
    for path in ("/", "/guideline", "/static/annotate.js", "/nothing", "/api/progress", "/join/short"):
        answer = client.get(path)
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS, path
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


def test_nobody_without_a_session_and_no_forged_request(store: Store, tmp_path: Path) -> None:
    client = client_of(store, tmp_path, local=False)
    assert client.get("/").status_code == 401 and client.post("/api/next", json={}).status_code == 401
    store.add_annotator("Ada", secret=SECRET)
    ada = Person(client, SECRET)
    assert ada.next()["task"]
    assert ada.client.post("/api/next", json={}).status_code == 403  # no token
    assert ada.post("next", {}, **{"X-CSRF-Token": "0" * 64}).status_code == 403
    assert ada.post("next", {}, Origin="https://evil.example").status_code == 403
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421
    session = client.get(f"/join/{SECRET}").headers["set-cookie"]
    assert "HttpOnly" in session and "SameSite=strict" in session


def test_roles(store: Store, tmp_path: Path) -> None:
    client = client_of(store, tmp_path, local=False)
    store.add_annotator("Viewer", "viewer", secret=SECRET)
    client.cookies.set(COOKIE, SECRET)
    assert client.get("/guideline").status_code == 200 and client.get("/api/progress").status_code == 200
    assert client.get("/").status_code == 403 and "viewer" in client.get("/").json()["error"]


def test_annotators_neither_see_nor_reach_what_others_said(store: Store, tmp_path: Path) -> None:
    client = client_of(store, tmp_path, local=False)
    store.add_annotator("Ada", secret=SECRET)
    ada = Person(client, SECRET)
    assert "/quality" not in ada.client.get("/").text and "/quality" in Person(client_of(store, tmp_path)).client.get("/").text
    assert ada.client.get("/quality").status_code == ada.client.get(f"/settle/{ada.next()['task']}").status_code == 403


def test_another_annotators_task_and_draft_are_out_of_reach(store: Store, tmp_path: Path) -> None:
    client = client_of(store, tmp_path, local=False)
    for name in ("Ada", "Bob"):
        store.add_annotator(name, secret=f"{SECRET} {name}")
    ada, bob = (Person(client, f"{SECRET} {name}") for name in ("Ada", "Bob"))
    held = ada.next()
    assert ada.post("draft", {"task": held["task"], "token": held["token"], "draft": {"rationale": "mine"}}).status_code == 200
    assert bob.submit(held, "s1").status_code == 409
    assert bob.post("draft", {"task": held["task"], "token": held["token"], "draft": {}}).status_code == 409
    assert bob.next()["draft"] is None and ada.next()["draft"] == {"rationale": "mine"}


def test_large_requests_and_too_many_are_refused(store: Store, tmp_path: Path) -> None:
    client = client_of(store, tmp_path)
    me = Person(client)
    assert me.post("draft", {"task": "t", "token": "t", "draft": {"text": "x" * MAX_BODY}}).status_code == 413
    assert {me.post("next", {}).status_code for _ in range(100)} == {200, 429}
    assert {client.get(f"/join/{'x' * 20}").status_code for _ in range(20)} == {404, 429}


def test_a_bucket_fills_again() -> None:
    now = [0.0]
    bucket = Bucket(2.0, 3.0, clock=lambda: now[0])
    assert [bucket.take("a") for _ in range(4)] == [True, True, True, False] and bucket.take("b")
    now[0] = 0.5
    assert [bucket.take("a") for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"host": "0.0.0.0"}, "plain text"),
        ({"host": "192.168.1.5"}, "plain text"),
        ({"certificate": Path("c")}, "together"),
        ({"behind": "http://x"}, "https://"),
    ],
)
def test_labels_never_cross_the_network_in_plain_text(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Listening(**given)


def test_addresses_and_names() -> None:
    tls = Listening("0.0.0.0", certificate=Path("c"), key=Path("k"))
    assert site_address(tls, 443) == "https://0.0.0.0:443" and hosts_of(tls, 443) is None
    behind = Listening("10.0.0.1", behind="https://label.example.org/")
    assert site_address(behind, 8321) == "https://label.example.org" and hosts_of(behind, 8321) == {"label.example.org"}
    assert "127.0.0.1:8321" in (hosts_of(Listening(), 8321) or set())


def test_the_servers_key_is_its_owners_alone(tmp_path: Path) -> None:
    key = server_key(tmp_path)
    assert key == server_key(tmp_path) and len(key) == 32 and (tmp_path / "server.key").stat().st_mode & 0o077 == 0
