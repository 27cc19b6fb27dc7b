"""Whatever is sent to the site, it answers with one line and no 500, and nothing of it is stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accord.annotation.project import Project
from accord.annotation.store import Store
from accord.web.access import Access, Bucket, server_key
from accord.web.app import create_app
from live_site import numbered

SITE = "http://testserver"
POSTS = ("next", "draft", "submit", "release", "undo", "settle", "retire")
FIELDS = ("task", "token", "submission", "kind", "value", "strength", "seconds", "rationale", "guideline_version", "draft", "choice")
PAGES = (
    "/",
    "/guideline",
    "/quality",
    "/calibration",
    "/me",
    "/settle/",
    "/join/",
    "/api/progress",
    "/static/",
    "/static/..%2f..%2fapp.py",
    "/static/../app.py",
)
HOSTILE = st.one_of(
    st.sampled_from(["../../etc/passwd", "' OR 1=1 --", "<script>", "\x00", "a" * 300, "pair", "skip", "0", "{}", "%2e%2e", "\ud800"]),
    st.text(max_size=20),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), HOSTILE),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | HOSTILE, inner, max_size=5),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, dict[str, str], Store]]:
    folder = tmp_path_factory.mktemp("hostile")
    project = Project.new(folder / "project", gold_rate=0.0, repeat_rate=0.0)
    with project.open_store() as store:
        store.add_tasks([numbered(number, f"first {number}", f"second {number}") for number in range(3)])
        access = Access(store, server_key(folder), True, frozenset({"testserver"}))
        access.requests = access.joins = Bucket(1e9, 1e9)
        client = TestClient(create_app(store, access, title="Test"), follow_redirects=False, raise_server_exceptions=False)
        client.get("/")
        token = client.get("/").text.partition('name="csrf" content="')[2].partition('"')[0]
        yield client, {"X-CSRF-Token": token, "Content-Type": "application/json"}, store


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(path=st.sampled_from(POSTS), body=JSON)
def test_any_body(site: tuple[TestClient, dict[str, str], Store], path: str, body: Any) -> None:
    client, headers, store = site
    reply = client.post(f"/api/{path}", content=json.dumps(body), headers=headers)
    assert reply.status_code < 500, (reply.text, body)
    if reply.status_code >= 400:
        found = reply.json()
        assert set(found) == {"code", "error"} and "\n" not in found["error"] and "Traceback" not in found["error"]
    assert list(store.annotations(valid=False)) == []


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(path=st.sampled_from(POSTS), body=st.binary(max_size=60))
def test_any_bytes(site: tuple[TestClient, dict[str, str], Store], path: str, body: bytes) -> None:
    client, headers, _ = site
    assert client.post(f"/api/{path}", content=body, headers=headers).status_code < 500


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(page=st.sampled_from(PAGES), rest=st.text(alphabet="abc./%20<>'\"\\?&=:;-_~", max_size=12))
def test_any_address(site: tuple[TestClient, dict[str, str], Store], page: str, rest: str) -> None:
    client, _, _ = site
    # Whole: two slashes at the start of a path alone would be another host.
    reply = client.get(f"{client.base_url}{page}{rest}".replace("\\", "%5C"), headers={"accept": "text/html"})
    assert reply.status_code < 500, (page, rest)
    assert "def create_app" not in reply.text and "root:" not in reply.text


@pytest.mark.parametrize("header", ["X-CSRF-Token", "Origin", "Cookie", "Content-Length"])
@pytest.mark.parametrize("value", ["", "\x7f", "a" * 5000, "é".encode().decode("latin-1")])
def test_any_header(site: tuple[TestClient, dict[str, str], Store], header: str, value: str) -> None:
    client, headers, _ = site
    reply = client.post("/api/next", content="{}", headers={**headers, header: value.encode("latin-1")})  # type: ignore[dict-item]
    assert reply.status_code < 500, reply.text
