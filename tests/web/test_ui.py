"""The site of `accord ui` by its requests: nothing is loaded before it is asked for, whoever only looks opens nothing, one worker answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi.testclient import TestClient

import live_ui
import tiny_demo
from accord.cli import main
from accord.commands.ui import opened, wished
from accord.config.ui import UiOptions
from accord.models.opened import open_model
from accord.recipes.checkpoints import checkpoints
from accord.recipes.learn import Learner
from accord.recipes.seat import Seat
from accord.reporting.runs import Runs
from accord.web import visitors
from accord.web.access import Bucket
from accord.web.app import HEADERS
from accord.web.ui import ui_site
from accord.web.visitors import Visitors
from live_watch import write_run

CHAT = ("/chat", "/compare", "/api/seat", "/api/chat/state", "/api/compare/tallies")
POSTS = (
    "/api/seat",
    "/api/seat/close",
    "/api/chat/ask",
    "/api/chat/save",
    "/api/compare/take-back",
    "/api/submit",
    "/api/undo",
    "/api/next",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs: two policies on one base, one that judges, one that never finished."""
    folder = tmp_path_factory.mktemp("ui")
    base, root = tiny_demo.model_folder(folder / "base"), folder / "runs"
    for seed, name in enumerate(("sft", "ppo"), 1):
        live_ui.write_policy(base, root / name, seed=seed, method=name)
    write_run(root / "reward", method="reward", base=base, finished=True)
    write_run(root / "new", method="ppo", base=base)
    return root


class Client:
    """Somebody at the page."""

    def __init__(self, root: Path, token: str | None = None) -> None:
        self.seat = Seat(partial(opened, runs=root, votes=root / live_ui.VOTES))
        self.access = Visitors(token, frozenset({"testserver"}), Bucket(1e9, 1e9), Bucket(1e9, 1e9))
        app = ui_site(root, self.access, self.seat)
        self.http = TestClient(app, follow_redirects=False, raise_server_exceptions=False)

    def post(self, path: str, body: Any, **headers: str) -> Any:
        page = self.http.get("/chat").text
        csrf = page.partition('name="csrf" content="')[2].partition('"')[0]
        return self.http.post(path, json=body, headers={"X-CSRF-Token": csrf, **headers})

    def open(self, kind: str, *models: str, **more: Any) -> Any:
        reply = self.post("/api/seat", {"kind": kind, "models": list(models), "max_new_tokens": 6, "temperature": 1.0, **more})
        assert reply.status_code == 200, reply.text
        until(lambda: self.http.get("/api/seat").json()["opening"] is None)
        return self.http.get("/api/seat").json()

    def answered(self, text: str) -> Any:
        question = self.post("/api/chat/ask", {"messages": [{"role": "user", "content": text}]}).json()["question"]
        with self.http.stream("GET", f"/api/chat/events/{question}") as reply:
            assert reply.headers["content-type"].startswith("text/event-stream")
            events = [line for line in reply.iter_lines() if line.startswith(("event:", "data:"))]
        names = [line.partition(": ")[2] for line in events[::2]]
        assert names[-1] == "done" and set(names[:-1]) <= {"texts"}
        found = json.loads(events[-1].partition(": ")[2])
        assert found == self.http.get(f"/api/chat/question/{question}").json()
        return found


def until(holds: Callable[[], Any], seconds: float = 120.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it never was"
        time.sleep(0.02)
    return found


@pytest.fixture
def runs(root: Path, tmp_path: Path) -> Path:
    """A copy that may be written to."""
    return Path(shutil.copytree(root, tmp_path / "runs"))


@pytest.fixture
def me(runs: Path) -> Iterator[Client]:
    found = Client(runs)
    yield found
    found.seat.close()


# -- what may be opened, and by whom --------------------------------------------------------------------------------------------------------


def test_runs_that_answer_what_they_stand_on_and_the_starter_can_be_opened(root: Path) -> None:
    found = checkpoints(Runs(root), ("named",))
    assert set(found) == {"named", "sft", "ppo", "base", "smollm2-135m"} and next(iter(found)) == "named"
    assert found["ppo"].model == str(root / "ppo") and found["base"].model == str(root.parent / "base")
    named = str(root / ".." / root.name / "ppo")  # the same folder, said in another way
    assert set(checkpoints(Runs(root), (named,))) == {named, "sft", "base", "smollm2-135m"}


def test_pages_before_anything_is_open(me: Client) -> None:
    for path, words in (("/chat", "Chat with a model"), ("/compare", "Compare checkpoints blind")):
        page = me.http.get(path)
        assert page.status_code == 200 and words in page.text and 'value="ppo"' in page.text and 'value="reward"' not in page.text
        assert all(page.headers[name] == value for name, value in HEADERS.items())
        assert [f'href="{link}"' in page.text for link in ("/runs", "/chat", "/compare")] == [True] * 3 and "/quality" not in page.text
    assert me.http.get("/api/seat").json() == {"open": None, "opening": None, "problem": None}
    body = {"messages": [{"role": "user", "content": "Q"}]}
    for path, given in (
        ("/api/chat/ask", body),
        ("/api/chat/save", {}),
        ("/api/undo", {"submission": "s"}),
        ("/api/compare/take-back", {"submission": "s"}),
    ):
        reply = me.post(path, given)
        assert reply.status_code == 409 and "open" in reply.json()["error"], path
    assert me.http.get("/api/chat/state").status_code == me.http.get("/api/compare/tallies").status_code == 409


def test_whoever_only_looks_opens_nothing(root: Path) -> None:
    guest = Client(root, "a-token-that-was-printed")
    for path in CHAT:
        assert guest.http.get(path).status_code == 401
    for path in POSTS:
        assert guest.http.post(path, json={}).status_code in (401, 422)
    guest.http.cookies.set(visitors.COOKIE, "a-token-that-was-printed")
    assert guest.http.get("/runs").status_code == 200
    page = guest.http.get("/chat")
    assert page.status_code == 200 and "opened at the machine" in page.text and 'name="model"' not in page.text
    assert guest.http.get("/api/seat").status_code == 403
    for path, body in (("/api/seat", {"kind": "chat", "models": ["sft"]}), ("/api/seat/close", {}), ("/api/next", {})):
        assert guest.post(path, body).status_code == 403
    assert guest.seat.partner is None and guest.seat.opening is None


def test_only_pages_of_ours_open_something(me: Client) -> None:
    body = {"kind": "chat", "models": ["sft"]}
    for headers in ({}, {"X-CSRF-Token": "forged"}):
        assert me.http.post("/api/seat", json=body, headers=headers).status_code == 403
    assert me.post("/api/seat", body, Origin="https://example.org").status_code == 403
    assert me.http.post("/api/seat", json=body, headers={"Host": "evil.example"}).status_code == 421
    assert me.seat.partner is None and me.seat.opening is None


@pytest.mark.parametrize("name", ["../base", "/etc", "reward", "nothing", "<script>", "new", ".", ""])
def test_nothing_else_can_be_opened(me: Client, name: str) -> None:
    reply = me.post("/api/seat", {"kind": "chat", "models": [name]})
    assert reply.status_code == 404 and "There is no model" in reply.json()["error"]
    assert me.seat.opening is None


@pytest.mark.parametrize(
    "change",
    [
        {"models": []},
        {"kind": "compare"},
        {"max_new_tokens": 0},
        {"max_new_tokens": 10**9},
        {"temperature": -1},
        {"temperature": 1e9},
        {"kind": "x"},
    ],
)
def test_wishes_that_cannot_be_are_one_line(me: Client, change: dict[str, Any]) -> None:
    reply = me.post("/api/seat", {"kind": "chat", "models": ["sft"], **change})
    assert reply.status_code in (400, 422) and set(reply.json()) == {"code", "error"} and me.seat.opening is None


def test_what_cannot_be_loaded_says_why(root: Path, tmp_path: Path) -> None:
    base = root.parent / "base"
    broken = tmp_path / "runs"
    live_ui.write_policy(str(base), broken / "bad", seed=1)
    (broken / "bad" / "stack.json").write_text("{")
    somebody = Client(broken)
    found = somebody.open("chat", "bad")
    assert found["open"] is None and "damaged" in found["problem"] and "Traceback" not in found["problem"]


# -- chats ----------------------------------------------------------------------------------------------------------------------------------


def test_a_chat_answers_and_keeps_nothing(me: Client, runs: Path) -> None:
    before = sorted(runs.rglob("*"))
    assert me.open("chat", "sft")["open"] == {"kind": "chat", "title": "sft"}
    page = me.http.get("/chat").text
    assert "sft" in page and 'id="question"' in page and 'id="undo"' not in page and 'id="leave"' in page
    found = me.answered("What?")
    assert [turn["role"] for turn in found["said"]] == ["user", "assistant"] and found["assignment"] is None and found["problem"] is None
    assert me.answered(" ")["problem"]
    assert me.http.get("/api/chat/state").status_code == 404
    assert me.post("/api/chat/save", {}).status_code == 409 and me.post("/api/undo", {"submission": "s"}).status_code == 409
    assert me.http.get("/compare").text.count('type="checkbox" name="model"') >= 3  # what opens a comparison, and says what is open
    assert "Open now: sft" in me.http.get("/compare").text
    assert sorted(runs.rglob("*")) == before


def test_a_chat_that_learns_is_the_run_of_the_command(me: Client, runs: Path) -> None:
    """Opened on the page, preferred, closed: saved, as `accord chat --learn` does; opened again it goes on, and the command does too."""
    assert me.open("learn", "sft")["open"]["kind"] == "learn"
    learner = me.seat.partner
    assert isinstance(learner, Learner) and learner.folder == runs / "learn-sft"
    assert 'id="undo"' in me.http.get("/chat").text
    held = me.answered("What?")["assignment"]
    assert "kl_nats" not in json.dumps(held)
    body = {"task": held["task"], "token": held["token"], "submission": "s1", "kind": "pair", "value": {"choice": 0}}
    assert me.post("/api/submit", body).status_code == 200
    until(lambda: me.http.get("/api/chat/state").json()["steps"] == 2)
    assert me.post("/api/seat/close", {}).status_code == 200 and me.seat.partner is None
    assert open_model(str(runs / "learn-sft")).stack[-1] == "dpo"
    assert me.open("learn", "sft")["open"]["kind"] == "learn"
    found = me.http.get("/api/chat/state").json()
    assert (found["clicks"], found["waiting"], found["steps"]) == (1, 0, 2)
    (label,) = me.seat.partner.store.annotations()
    assert label.annotator == "me" and label.source == "human"


def test_a_question_asked_before_another_model_was_opened_is_gone(me: Client) -> None:
    me.open("chat", "sft")
    question = me.post("/api/chat/ask", {"messages": [{"role": "user", "content": "Q"}]}).json()["question"]
    me.open("chat", "ppo")
    assert me.http.get(f"/api/chat/question/{question}").status_code == me.http.get(f"/api/chat/events/{question}").status_code == 404


# -- a comparison ---------------------------------------------------------------------------------------------------------------------------


def test_a_comparison_is_blind_until_the_vote(me: Client, runs: Path) -> None:
    assert me.open("compare", "sft", "ppo", "base")["open"] == {"kind": "compare", "title": "base · ppo · sft"}
    assert "How they stand" in me.http.get("/compare").text and "Open now: base" in me.http.get("/chat").text
    held = me.answered("What?")["assignment"]
    assert not any(word in json.dumps(held) for word in ("sft", "ppo", "authors", "weights"))
    revealed = f"/api/compare/revealed/{held['task']}"
    assert me.http.get(revealed).status_code == 404 and "Vote first" in me.http.get(revealed).text
    body = {
        "task": held["task"],
        "token": held["token"],
        "submission": "s1",
        "kind": "ranking",
        "value": {"ranks": [1, 2, 3]},
        "seconds": 2.5,
    }
    assert me.post("/api/submit", body).status_code == 200
    places = me.http.get(revealed).json()["places"]
    assert sorted(place[0]["model"] for place in places) == ["base", "ppo", "sft"]
    tallies = me.http.get("/api/compare/tallies").json()
    assert len(tallies["pairs"]) == 3 and sum(one["wins"] + one["losses"] for one in tallies["pairs"]) == 3 and tallies["others"] == 0
    assert all(one["low"] < one["mean"] < one["high"] or one["mean"] in (0, 1) for one in tallies["pairs"])
    kept = me.seat.kept
    assert kept is not None and kept.project.folder == runs / live_ui.VOTES
    (label,) = kept.store.annotations()
    assert (label.kind, label.value, list(label.shown_order), label.seconds) == ("ranking", {"ranks": [1, 2, 3]}, held["shown_order"], 2.5)
    assert me.post("/api/compare/take-back", {"submission": "u1"}).status_code == 200
    assert sum(one["count"] for one in me.http.get("/api/compare/tallies").json()["pairs"]) == 0
    assert me.post("/api/compare/take-back", {"submission": "u2"}).status_code == 404


# -- the command ----------------------------------------------------------------------------------------------------------------------------


def test_no_torch_before_a_model_is_opened() -> None:
    script = "import sys; import accord.commands.ui, accord.web.serve, accord.web.ui; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_options_become_a_wish() -> None:
    assert wished(UiOptions()) is None
    for options, kind in (
        (UiOptions(chat="m"), "chat"),
        (UiOptions(chat="m", learn=True), "learn"),
        (UiOptions(compare=["a", "b"]), "compare"),
    ):
        found = wished(options)
        assert found is not None and found.kind == kind


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--chat", "m", "--compare", "a"], "not both"),
        (["--learn"], "--chat MODEL"),
        (["--compare", "a"], "choose two to 4"),
        (["--chat", "m", "--behind", "https://x.example"], "look and no more"),
    ],
)
def test_what_cannot_be_opened_at_once_is_one_line(root: Path, given: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ui", str(root), *given]) == 2
    assert words in capsys.readouterr().err


@contextmanager
def commanded(*given: str) -> Generator[tuple[subprocess.Popen[str], str]]:
    """`accord ui` in a process of its own, and the address that it says."""
    command = [sys.executable, "-m", "accord", "ui", *given, "--port", "0", "--open-browser", "no"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().split()[1]
    finally:
        process.kill()
        process.communicate()


def test_the_command_opens_a_chat_that_learns_and_saves_it_when_stopped(runs: Path) -> None:
    with commanded(str(runs), "--chat", str(runs / "ppo"), "--learn") as (process, address):
        assert address.endswith("/chat")
        with httpx.Client(base_url=address.removesuffix("/chat"), timeout=60) as http:
            assert http.get("/runs").status_code == 200
            until(lambda: http.get("/api/seat").json()["open"])
        process.terminate()
        _, said = process.communicate(timeout=120)
        assert f"Saved in {runs / 'learn-ppo'}" in said and "Traceback" not in said


def test_models_are_compared_where_nothing_was_trained_yet(runs: Path, tmp_path: Path) -> None:
    """The folder is made for the votes; without models to open there would be nothing to see, and it is refused (tests/web/test_watch.py)."""
    folder = tmp_path / "new" / "runs"
    with commanded(str(folder), "--compare", str(runs / "ppo"), str(runs / "sft")) as (_, address):
        assert address.endswith("/compare")
        with httpx.Client(base_url=address.removesuffix("/compare"), timeout=60) as http:
            until(lambda: http.get("/api/seat").json()["open"])
    assert (folder / "comparisons").is_dir()
