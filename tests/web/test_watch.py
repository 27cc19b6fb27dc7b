"""The pages on which training is watched, request by request: who may look, what is told as it happens, and that nothing leads out of the folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accord.cli import main
from accord.recipes.seat import Seat
from accord.web import streams
from accord.web.access import Bucket
from accord.web.app import HEADERS
from accord.web.serve import Listening, bind
from accord.web.ui import ui_site
from accord.web.visitors import COOKIE, Visitors
from accord.web.watch import MOST_COMPARED, router
from live_watch import Watching, append, metrics, rollout, watching, write_run

EVIL = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
PAGES = ("/runs", "/runs/table", "/runs/show?run=a", "/runs/compare?run=a&run=b", "/projects/show?project=labels")
DATA = ("/api/runs/curves?run=a", "/api/runs/samples?run=a", "/api/runs/monitors?run=a")
STREAMS = ("/api/runs/events?run=a", "/api/runs/changes")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    write_run(root / "a")
    write_run(root / "b", config={"kl_coef": 0.1, "logging_steps": 1}, parents=[{"adapter": "x", "run": "runs/a"}])
    (root / "labels").mkdir()
    (root / "labels" / "project.yaml").write_text("database: postgresql://me:secret@host/name")
    (root / "labels" / "guidelines.md").write_text(f"# Be kind\n\n{EVIL}\n\nand brief")
    (root / "labels" / "annotations.sqlite").write_bytes(b"not a database")
    return root


def client_of(root: Path, token: str | None = None) -> TestClient:
    access = Visitors(token, frozenset({"testserver"}), Bucket(1e9, 1e9), Bucket(1, 5, clock=lambda: 0.0))
    return TestClient(ui_site(root, access, Seat()), follow_redirects=False, raise_server_exceptions=False)


# -- who may look, and at what ------------------------------------------------------------------------------------------------------------


def test_every_answer_carries_the_headers(root: Path) -> None:
    client = client_of(root)
    for path in ("/", *PAGES, *DATA, "/static/watch.js", "/nothing", "/runs/show?run=nothing", "/runs/show"):
        answer = client.get(path)
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS, path
        assert answer.status_code == (404 if "nothing" in path else 422 if path == "/runs/show" else 303 if path == "/" else 200), path
    assert client.get("/runs", headers={"host": "evil.example"}).status_code == 421
    assert "text/html" in client.get("/runs/show?run=nothing", headers={"accept": "text/html"}).headers["content-type"]


def test_off_this_machine_nothing_without_the_token(root: Path) -> None:
    token = "a-token-that-was-printed"
    client = client_of(root, token)
    paths = {route.path for route in router.routes}  # type: ignore[attr-defined]
    assert len(paths) >= 10
    for path in (*paths, *PAGES, *DATA, *STREAMS):
        assert client.get(path).status_code == 401, path
    client.cookies.set(COOKIE, "another-token")
    assert client.get("/runs").status_code == 401
    client.cookies.clear()
    assert client.get("/join/another-token").status_code == 404 and client.get("/join/%ED%A0%80").status_code == 404
    joined = client.get(f"/join/{token}")
    assert joined.status_code == 303 and "HttpOnly" in joined.headers["set-cookie"] and "SameSite=strict" in joined.headers["set-cookie"]
    assert [client.get(path).status_code for path in (*PAGES, *DATA)] == [200] * (len(PAGES) + len(DATA))
    assert [client.get("/join/x").status_code for _ in range(3)][-1] == 429


def test_nothing_is_changed_and_no_method_but_get(root: Path) -> None:
    def seen() -> dict[str, Any]:
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}

    before, client = seen(), client_of(root)
    for path in (*PAGES, *DATA):
        client.get(path)
        assert client.post(path).status_code == client.put(path).status_code == client.delete(path).status_code == 405, path
    assert seen() == before


def test_requests_are_limited(root: Path) -> None:
    access = Visitors(None, frozenset({"testserver"}), requests=Bucket(1, 5, clock=lambda: 0.0))
    client = TestClient(ui_site(root, access, Seat()))
    assert [client.get("/runs/table").status_code for _ in range(6)] == [200] * 5 + [429]


HOSTILE = st.one_of(
    st.sampled_from(["../..", "/etc", "a/../../..", "\x00", "%2e%2e/", "a" * 2000, "<script>", "' OR 1=1", ".", "b/.", "\udcff", "labels"]),
    st.text(max_size=20),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(names=st.lists(HOSTILE, max_size=3), after=HOSTILE, path=st.sampled_from([*PAGES, *DATA, "/api/runs/events"]))
def test_any_name(root: Path, names: list[str], after: str, path: str) -> None:
    (root.parent / "run.json").write_text('{"method": "outside"}')
    encoded = [("run", name.encode("utf-8", "surrogatepass").decode("latin-1")) for name in names if name != "a"]
    query = httpx.QueryParams([*encoded, ("project", "../x"), ("after", after.encode("utf-8", "surrogatepass").decode("latin-1"))])
    client = client_of(root)
    reply = client.get(f"{path.partition('?')[0]}?{query}")
    assert reply.status_code < 500, (reply.text, names)
    assert "outside" not in reply.text and "Traceback" not in reply.text


# -- what the pages say -------------------------------------------------------------------------------------------------------------------


def test_the_list(root: Path) -> None:
    page = client_of(root).get("/runs").text
    assert page.count('name="run"') == 2 and "/runs/show?run=a" in page and "stories260k" in page
    assert re.search(r"10 of 48", page) and ">1<" in page and ">0.5<" in page and ">50<" in page
    assert "/projects/show?project=labels" in page


def test_a_project_is_shown_from_its_files_alone(root: Path) -> None:
    page = client_of(root).get("/projects/show?project=labels").text
    assert (
        "Be kind" in page and "and brief" in page and "accord annotate" in page and "secret" not in page and "<script>document" not in page
    )


def test_a_run_and_what_it_came_from(root: Path) -> None:
    page = client_of(root).get("/runs/show?run=b").text
    assert '<a href="/runs/show?run=a">runs/a</a>' in page and "10 rows, content hash abababababababab" in page and "kl_coef" in page
    (root / "b" / "run.json").write_text("{")
    assert "run.json cannot be read" in client_of(root).get("/runs/show?run=b").text


def test_comparing_shows_the_settings_that_differ(root: Path) -> None:
    client = client_of(root)
    page = client.get("/runs/compare?run=a&run=b&run=a").text
    assert page.count("data-swatch") == 2 and "<td>0.05</td><td>0.1</td>" in page and "2 runs side by side" in page
    assert client.get("/runs/compare").status_code == 422
    assert client.get("/runs/compare?" + "&".join(["run=a"] * (MOST_COMPARED + 1))).status_code == 422


def test_curves_go_on_where_they_were(root: Path) -> None:
    client = client_of(root)

    def reward() -> dict[str, Any]:
        found = client.get("/api/runs/curves?run=a").json()
        assert found["groups"][0]["title"] == "Reward"
        return found["groups"][0]["charts"][0]["lines"][0]

    assert reward()["points"][-1] == [10.0, 1.0]
    append(root / "a" / "metrics.jsonl", metrics([11], loss=float("nan")))
    assert reward()["points"][-1] == [11.0, 1.1]
    (root / "a" / "metrics.jsonl").write_text(metrics([1, 2]))
    assert [point[0] for point in reward()["points"]] == [1.0, 2.0]
    shutil.rmtree(root / "a")
    assert client.get("/api/runs/curves?run=a").status_code == 404


def test_what_a_model_wrote_is_markup_of_ours_alone(root: Path) -> None:
    (root / "a" / "rollouts.jsonl").write_text(rollout(EVIL, 0, f"{EVIL} **bold**") + "nonsense\n" + rollout(EVIL, 1, "later"))
    found = client_of(root).get("/api/runs/samples?run=a").json()
    html = found["start"][0]["answer"][0]["html"]
    assert "<strong>bold</strong>" in html and "<script" not in html and "<img" not in html
    assert found["now"][0]["round"] == 2 and found["unreadable"] == 1


def test_hostile_names_and_settings_are_text(root: Path) -> None:
    name = "<b onmouseover=alert(1)>\"'&run=a"
    write_run(root / name, method=EVIL, config={EVIL: EVIL}, base=EVIL, data={EVIL: {}}, more={EVIL: 1.0}, skipped_checks=[EVIL])
    client = client_of(root)
    query = httpx.QueryParams({"run": name})
    for path in ("/runs", f"/runs/show?{query}", f"/runs/compare?{query}&run=a"):
        page = client.get(path)
        assert page.status_code == 200 and "<script>document" not in page.text and "<b on" not in page.text and "<img" not in page.text, (
            path
        )
    links = re.findall(r'href="(/runs/show[^"]*)"', client.get("/runs").text)
    assert len(links) == 3 and all(client.get(link.replace("&amp;", "&")).status_code == 200 for link in links)
    assert client.get(f"/api/runs/curves?{query}").json()["groups"][-1]["charts"][0]["name"] == EVIL


# -- what is told as it happens -----------------------------------------------------------------------------------------------------------


class Stream:
    """A stream of events, read one by one."""

    def __init__(self, site: Watching, path: str, **headers: str) -> None:
        self.client = httpx.Client(timeout=20)
        self.reply = self.client.send(self.client.build_request("GET", site.address + path, headers=headers), stream=True)
        assert self.reply.status_code == 200 and self.reply.headers["content-type"].startswith("text/event-stream")
        self.lines = self.reply.iter_lines()

    def next(self) -> tuple[str, Any, str]:
        """Name, data and id of the next event."""
        found: dict[str, str] = {}
        for line in self.lines:
            if not line and "data" in found:
                return found["event"], json.loads(found["data"]), found.get("id", "")
            name, colon, value = line.partition(": ")
            if name and colon:
                found[name] = value
        raise EOFError

    def until(self, name: str) -> tuple[Any, str]:
        """Data and id of the next event of that name."""
        while True:
            found, data, place = self.next()
            if found == name:
                return data, place

    def close(self) -> None:
        self.reply.close()
        self.client.close()


@pytest.fixture
def site(root: Path) -> Iterator[Watching]:
    with watching(root) as found:
        yield found


def settled(condition: Any, seconds: float = 10.0) -> bool:
    """Whether it holds within so many seconds."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())


def test_rows_come_once_and_a_lost_connection_goes_on_where_it_was(site: Watching) -> None:
    path = site.root / "a" / "metrics.jsonl"
    position = httpx.get(f"{site.address}/api/runs/curves?run=a").json()["position"]
    stream = Stream(site, f"/api/runs/events?run=a&after={position}")
    assert stream.until("state")[0]["state"] == "running"
    append(path, metrics([11]) + '{"step": 12, "objective/sco')
    data, place = stream.until("rows")
    assert [row["step"] for row in data["rows"]] == [11.0]
    stream.close()
    append(path, 'res": 2.5}\n' + metrics([13]))
    # As a browser does: the same address, with the id of the last event.
    again = Stream(site, f"/api/runs/events?run=a&after={position}", **{"Last-Event-ID": place})
    rows = again.until("rows")[0]["rows"]
    assert [(row["step"], row["values"].get("objective/scores")) for row in rows] == [(12.0, 2.5), (13.0, 1.3)]
    again.close()


def test_a_resumed_run_is_said_to_be_another_file(site: Watching) -> None:
    path = site.root / "a" / "metrics.jsonl"
    stream = Stream(site, "/api/runs/events?run=b&run=a")
    assert {json.dumps(stream.until("rows")[0]["run"]) for _ in range(2)} == {"0", "1"}
    partial = path.with_name("partial")
    partial.write_text(metrics(range(1, 6)) + metrics(range(6, 40), step_seconds=3.0))
    os.replace(partial, path)
    assert stream.until("again")[0] == {"run": 1}
    with pytest.raises(EOFError):  # the curves have to be read again first: the stream has nothing more to say
        stream.until("rows")
    stream.close()


def test_finished_deleted_and_new_answers_are_told(site: Watching) -> None:
    stream, changes = Stream(site, "/api/runs/events?run=a"), Stream(site, "/api/runs/changes")
    stream.until("state")
    append(site.root / "a" / "rollouts.jsonl", rollout("p", 0, "x"))
    stream.until("samples")
    record = json.loads((site.root / "a" / "run.json").read_text())
    (site.root / "a" / "run.json").write_text(json.dumps({**record, "finished": True}))
    assert stream.until("state")[0]["state"] == "finished"
    shutil.rmtree(site.root / "a")
    assert stream.until("gone")[0] == {"run": 0}
    assert changes.next()[0] == "changed"
    for one in (stream, changes):
        one.close()
    assert httpx.get(f"{site.address}/api/runs/events?run=a").status_code == 404


def test_a_closed_page_is_forgotten_and_a_stopping_server_lets_go(site: Watching) -> None:
    stream = Stream(site, "/api/runs/events?run=a")
    stream.until("state")
    assert site.streams.open == 1
    stream.close()
    assert settled(lambda: site.streams.open == 0)
    others = [Stream(site, path) for path in STREAMS]
    others[0].until("state")
    before = time.monotonic()
    site.server.should_exit = True
    site.thread.join(10)
    # Both by themselves: within two looks, before the three seconds after which the server would cut them off.
    assert not site.thread.is_alive() and time.monotonic() - before < 3 and site.streams.open == 0
    for one in others:
        one.close()


def test_more_pages_than_may_watch_are_told_so(site: Watching) -> None:
    site.streams.open = streams.MOST
    reply = httpx.get(f"{site.address}{STREAMS[0]}")
    assert reply.status_code == 503 and "Too many pages" in reply.json()["error"]


def test_a_quiet_stream_costs_nothing(site: Watching) -> None:
    opened = [Stream(site, path) for path in STREAMS * 3]
    opened[0].until("state")
    time.sleep(0.5)
    before = time.process_time()
    time.sleep(4)
    assert time.process_time() - before < 1
    for one in opened:
        one.close()


# -- the command --------------------------------------------------------------------------------------------------------------------------


def test_who_connects_before_the_site_runs_is_not_refused() -> None:
    with bind(Listening(port=0)) as listener, socket.create_connection(listener.getsockname(), timeout=5) as early:
        assert early.getpeername() == listener.getsockname()


def test_the_command_serves_and_stops(root: Path) -> None:
    command = [sys.executable, "-m", "accord", "ui", str(root), "--port", "0", "--open-browser", "no"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert address is not None and "/join/" not in address.string
        with httpx.stream("GET", f"{address[0]}/api/runs/changes") as reply:
            assert reply.status_code == 200 and "stories260k" in httpx.get(f"{address[0]}/runs").text
            process.terminate()
            assert process.wait(10) is not None
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (["nowhere"], 3, "There is no folder"),
        (["--host", "0.0.0.0", "."], 2, "plain text"),
        (["--behind", "http://x", "."], 2, "https://"),
    ],
)
def test_what_cannot_be_served_is_one_line(given: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ui", *given]) == code
    assert words in capsys.readouterr().err


def test_off_this_machine_the_link_has_the_token(root: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "accord",
        "ui",
        str(root),
        "--port",
        "0",
        "--behind",
        "https://watch.example.org",
        "--open-browser",
        "no",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert re.search(r"https://watch\.example\.org/join/[\w-]{30,}", process.stdout.readline())
    finally:
        process.kill()
        process.wait()
