"""The chat that learns, in a real browser and by its requests: what is shown is stored, what a model writes never runs, nothing is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny_demo
from accord.config.options import ChatOptions, LearnOptions
from accord.errors import ConfigError
from accord.models.load import resolve
from accord.models.opened import open_model
from accord.recipes.learn import Learner, open_learner
from accord.recipes.learn_thread import Background
from accord.web import chat, watch
from accord.web.access import Access, Bucket, server_key
from accord.web.app import HEADERS, create_app
from accord.web.serve import Listening, bind, hosts_of, site_address
from hostile_model import hostile_model
from live_site import EVIL, quiet_server, running


@dataclass
class Site:
    """The chat of a learner that is being served."""

    learner: Learner
    address: str


@contextmanager
def serving(model: str, folder: Path, *, max_new_tokens: int = 8, prompt: str | None = None, **options: Any) -> Iterator[Site]:
    """Serve a learner as `accord chat --learn` does."""
    learning = LearnOptions(**{"learn": True, "output_dir": str(folder), "learning_rate": 1e-3, "lora_r": 4, **options})
    learner = open_learner(ChatOptions(model, [prompt] if prompt else None, max_new_tokens=max_new_tokens), learning)
    listening = Listening(port=0)
    with learner.store, bind(listening) as listener, Background(learner) as background:
        port = listener.getsockname()[1]
        app = create_app(
            learner.store, Access(learner.store, server_key(learner.project.folder), True, hosts_of(listening, port)), title="Test"
        )
        chat.mount(app, background)
        with running(quiet_server(app), listener):
            yield Site(learner, site_address(listening, port))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_demo.model_folder(tmp_path_factory.mktemp("model"))


# -- in a browser --------------------------------------------------------------------------------------------------------------------------


def opened(browser: Any, site: Site, *, width: int = 1280) -> Any:
    """The page; everything that it asked for and complained of is noted."""
    page = browser.new_context(viewport={"width": width, "height": 800}).new_page()
    page.set_default_timeout(120_000)  # other tests run beside
    page.asked, page.problems = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto(f"{site.address}{chat.PAGE}")
    page.wait_for_selector("#question")
    return page


def ask(page: Any, text: str) -> tuple[str, list[str]]:
    """Ask by keyboard; the task on the page then and the texts of its answers, from the left."""
    page.locator("#question").fill(text)
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.body.dataset.task")
    return page.evaluate("document.body.dataset.task"), [found.strip() for found in page.locator("#pair .answer .text").all_inner_texts()]


def settled(page: Any) -> None:
    """Wait until a choice is stored and the page is ready for the next question."""
    page.wait_for_function("() => !document.body.dataset.task && document.querySelector('#status').textContent.startsWith('Stored')")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("by", ["keyboard", "mouse"])
class TestInBrowser:
    pytestmark = pytest.mark.browser

    def test_every_choice(self, browser: Any, model: str, tmp_path: Path, width: int, by: str) -> None:
        with serving(model, tmp_path / "run") as site:
            page = opened(browser, site, width=width)
            wanted: dict[str, tuple[int | None, list[str]]] = {}
            for key, name, place in (("1", "A is better", 0), ("2", "B is better", 1), ("t", "Tie", None), ("2", "B is better", 1)):
                task, texts = ask(page, f"Question for {key}?")
                wanted[task] = (place, texts)
                if by == "keyboard":
                    page.keyboard.press(key)
                else:
                    page.get_by_role("button", name=name).click()
                settled(page)
            stored = list(site.learner.store.annotations())
            assert [label.task for label in stored] == list(wanted)
            for label in stored:
                place, texts = wanted[label.task]
                task = site.learner.store.task(label.task)
                assert label.value == {"choice": "tie" if place is None else label.shown_order[place]}
                assert [" ".join(task.completions[index].text.split()) for index in label.shown_order] == [
                    " ".join(t.split()) for t in texts
                ]
                assert (
                    label.source == "human"
                    and label.annotator == "me"
                    and label.seconds is not None
                    and 0 <= label.seconds < 100
                    and label.strength is None
                )
            # The conversation went on: each question is asked with what was preferred before it.
            last = site.learner.store.task(stored[-1].task).prompt
            first = site.learner.store.task(stored[0].task)
            assert [m.role for m in last] == ["user", "assistant"] * 3 + ["user"]
            assert last[1].content == first.completions[stored[0].value["choice"]].text
            page.wait_for_function("() => document.querySelector('#clicks').textContent === '4'")
            page.wait_for_function("() => document.querySelector('#steps').textContent.startsWith('8')")
            assert re.fullmatch(r"-?\d+\.\d nats an answer", page.locator("#kl").inner_text())
            assert re.fullmatch(r"\d+ tokens now, \d+ at the start", page.locator("#length").inner_text())
            assert page.locator("#chart-kl svg polyline").count() == page.locator("#chart-length svg polyline").count() == 1
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            assert page.problems == [] and all(url.startswith((site.address, "data:")) for url in page.asked)


class TestPage:
    pytestmark = pytest.mark.browser

    def test_undo_a_new_conversation_and_save(self, browser: Any, model: str, tmp_path: Path) -> None:
        with serving(model, tmp_path / "run") as site:
            page = opened(browser, site)
            first, texts = ask(page, "One?")
            page.keyboard.press("1")
            settled(page)
            page.keyboard.press("Escape")
            page.keyboard.press("u")
            page.wait_for_function("task => document.body.dataset.task === task", arg=first)
            assert [found.strip() for found in page.locator("#pair .answer .text").all_inner_texts()] == texts
            assert "stays learned" in page.locator("#status").inner_text() and list(site.learner.store.annotations()) == []
            page.keyboard.press("2")
            settled(page)
            (label,) = site.learner.store.annotations()
            assert label.value == {"choice": label.shown_order[1]}
            assert [one.kind for one in site.learner.store.annotations(valid=False)] == ["pair", "undo", "pair"]
            page.keyboard.press("Escape")
            page.keyboard.press("n")
            second, _ = ask(page, "Two?")
            assert [message.content for message in site.learner.store.task(second).prompt] == ["Two?"]
            page.get_by_role("button", name="Save").click()
            page.wait_for_function("() => document.querySelector('#status').textContent.startsWith('Saved in')")
            assert open_model(str(tmp_path / "run")).stack == ("dpo",) and page.problems == []

    def test_what_a_model_writes_never_runs(self, browser: Any, tmp_path: Path) -> None:
        """Every token of this model is hostile, and so is what is asked: while it is written, when it stands, in the conversation, in the look."""
        with serving(hostile_model(tmp_path / "model"), tmp_path / "run", max_new_tokens=24, prompt=EVIL) as site:
            page = opened(browser, site)
            for key in "12":
                _, texts = ask(page, f"{EVIL} [x](javascript:alert(1))")
                assert any("<script>" in text or "onerror" in text or "javascript:" in text for text in texts)
                page.keyboard.press(key)
                settled(page)
            page.wait_for_function("() => document.querySelector('#now').textContent.length > 5")
            assert (
                page.title().startswith("Chat") and page.locator("main script, main img, main a, main iframe, main form form").count() == 0
            )
            assert page.problems == [] and all(url.startswith((site.address, "data:")) for url in page.asked)

    def test_names_and_contrast(self, browser: Any, model: str, tmp_path: Path) -> None:
        with serving(model, tmp_path / "run") as site:
            page = opened(browser, site, width=390)
            ask(page, "One?")
            page.wait_for_function("() => document.querySelector('#now').textContent")
            unnamed = page.evaluate(
                """() => [...document.querySelectorAll('button, input, textarea, a, section, aside, [role]')].filter((one) => {
                  const label = one.getAttribute('aria-label') || one.getAttribute('aria-labelledby') || one.textContent.trim()
                    || (one.labels && one.labels.length && one.labels[0].textContent.trim());
                  return !label && one.getAttribute('role') !== 'status' && one.getAttribute('role') !== 'alert';
                }).map((one) => one.outerHTML)"""
            )
            assert unnamed == [] and page.locator("html").get_attribute("lang") == "en"
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


# -- by its requests -----------------------------------------------------------------------------------------------------------------------


@dataclass
class Client:
    """Somebody at the page, who sends what its script would send."""

    http: Any
    csrf: str

    def post(self, path: str, body: Any, **headers: str) -> Any:
        sent = {"X-CSRF-Token": self.csrf, "Content-Type": "application/json", **headers}
        return self.http.post(f"/api/{path}", content=json.dumps(body), headers=sent)

    def answered(self, text: str) -> dict[str, Any]:
        """Ask and wait for the pair."""
        question = self.post("chat/ask", {"messages": [{"role": "user", "content": text}]}).json()["question"]
        while True:
            found = self.http.get(f"/api/chat/question/{question}").json()
            assert found["problem"] is None, found
            if found["assignment"]:
                return found["assignment"]
            time.sleep(0.05)

    def prefer(self, held: dict[str, Any], name: str, choice: int | str = 0) -> Any:
        body = {"task": held["task"], "token": held["token"], "submission": name, "kind": "pair", "value": {"choice": choice}}
        return self.post("submit", body)


def csrf_of(page: str) -> str:
    return page.partition('name="csrf" content="')[2].partition('"')[0]


@pytest.fixture(scope="module")
def site(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Learner]]:
    """An app for test clients, by invitation alone; the learner's thread runs."""
    folder = tmp_path_factory.mktemp("site") / "run"
    learner = open_learner(ChatOptions(model, max_new_tokens=4), LearnOptions(True, str(folder), lora_r=2))
    with learner.store, Background(learner) as background:
        access = Access(learner.store, server_key(learner.project.folder), False, frozenset({"testserver"}))
        access.requests = access.joins = Bucket(1e9, 1e9)
        app = create_app(learner.store, access, title="Test")
        chat.mount(app, background)
        watch.mount(app, folder.parent)
        for role in ("annotator", "viewer", "admin"):
            learner.store.add_annotator(role, role, id=role, secret=f"the secret of the {role}")
        yield app, learner


def person(app: Any, role: str) -> Client:
    http = TestClient(app, follow_redirects=False, raise_server_exceptions=False)
    http.get(f"/join/the secret of the {role}")
    return Client(http, csrf_of(http.get("/chat" if role != "viewer" else "/").text))


def test_who_may_do_what(site: tuple[Any, Learner]) -> None:
    app, _ = site
    stranger = TestClient(app, follow_redirects=False, raise_server_exceptions=False)
    body = {"messages": [{"role": "user", "content": "Q"}]}
    for reply in (
        stranger.get("/chat"),
        stranger.get("/api/chat/state"),
        stranger.post("/api/chat/ask", json=body),
        stranger.post("/api/chat/save"),
    ):
        assert reply.status_code == 401 and "not signed in" in reply.text
        assert all(reply.headers[name] == value for name, value in HEADERS.items())
    viewer, annotator, admin = (person(app, role) for role in ("viewer", "annotator", "admin"))
    assert viewer.http.get("/chat").status_code == viewer.http.get("/api/chat/state").status_code == 403
    assert annotator.post("chat/ask", body, **{"X-CSRF-Token": "forged"}).status_code == 403
    assert annotator.post("chat/ask", body, Origin="https://example.org").status_code == 403
    held = annotator.answered("Q")
    assert "kl_nats" not in json.dumps(held) and "sample" not in json.dumps(held["answers"])
    assert annotator.post("chat/save", {}).status_code == 403 and admin.post("chat/save", {}).status_code == 200
    assert [somebody.http.get("/runs").status_code for somebody in (viewer, admin, annotator)] == [200, 200, 403]  # who judges stays blind
    assert stranger.get("/runs").status_code == stranger.get("/api/runs/curves?run=run").status_code == 401
    question = annotator.post("chat/ask", body).json()["question"]
    assert annotator.http.get(f"/api/chat/events/{question}").status_code == 200
    assert admin.http.get(f"/api/chat/events/{question}").status_code == 404
    assert admin.http.get(f"/api/chat/question/{question}").status_code == 404
    assert admin.prefer(held, "not-mine").status_code == 409
    assert annotator.prefer(held, "mine").status_code == 200


def test_only_this_machine_without_tls() -> None:
    """Off localhost an invitation would travel in plain text: refused; with a proxy whoever has none is refused (above)."""
    for host in ("0.0.0.0", "192.0.2.1"):
        with pytest.raises(ConfigError, match="in plain text"):
            Listening(host)


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.sampled_from(["user", "assistant", "system", "\ud800", "a" * 300]),
        st.text(max_size=9),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["messages", "role", "content", "x"]), inner, max_size=4),
    max_leaves=10,
)
TURNS = st.lists(st.fixed_dictionaries({"role": JSON, "content": JSON}), max_size=3)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(path=st.sampled_from(["chat/ask", "chat/save"]), body=JSON | st.fixed_dictionaries({"messages": TURNS}))
def test_any_body(site: tuple[Any, Learner], path: str, body: Any) -> None:
    annotator = person(site[0], "annotator")
    reply = annotator.post(path, body)
    assert reply.status_code < 500 and (reply.status_code == 200 or set(reply.json()) == {"code", "error"}), (reply.text, body)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(rest=st.text(alphabet="abc./%20<>'\"?&=:;-_~", max_size=12))
def test_any_address(site: tuple[Any, Learner], rest: str) -> None:
    annotator = person(site[0], "annotator")
    for start in ("/chat", "/api/chat/question/", "/api/chat/state?seen="):
        assert annotator.http.get(start + rest).status_code < 500


# -- killed and stopped --------------------------------------------------------------------------------------------------------------------


class Process:
    """`accord chat --learn` in a process of its own, and somebody at its page."""

    def __init__(self, model: str, folder: Path) -> None:
        command = [sys.executable, "-m", "accord", "chat", model, "--learn", "--output_dir", str(folder), "--port", "0"]
        command += ["--max_new_tokens", "4", "--lora_r", "2", "--open_browser", "no"]
        # A suite that runs in the background has Ctrl-C ignored, and its children would too.
        heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)} if os.name == "posix" else {}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **heard)
        assert self.process.stdout is not None
        line = next(line for line in self.process.stdout if "http://" in line)
        address = line.split()[1]
        http = httpx.Client(base_url=address.removesuffix(chat.PAGE), timeout=60, follow_redirects=True)
        self.me = Client(http, csrf_of(http.get(chat.PAGE).text))

    def state(self) -> dict[str, Any]:
        return self.me.http.get("/api/chat/state").json()

    def stop(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal; the exit code and what was said."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=120)
        return self.process.returncode, said


@pytest.mark.skipif("sys.platform == 'win32'", reason="signals of Unix")
def test_killed_resumed_and_stopped(model: str, tmp_path: Path) -> None:
    """After a kill every acknowledged preference is there and learned from again; Ctrl-C saves, and nothing is learned twice then."""
    folder = tmp_path / "run"
    first = Process(model, folder)
    for number in range(3):
        assert first.me.prefer(first.me.answered(f"Q{number}"), f"s{number}").status_code == 200
    first.stop(signal.SIGKILL)
    second = Process(model, folder)
    assert second.state()["clicks"] == 3
    second.me.prefer(second.me.answered("Q3"), "s3")
    assert 'href="/runs/show?run=run"' in second.me.http.get("/runs").text and 'href="/runs"' in second.me.http.get("/chat").text
    while second.state()["waiting"]:
        time.sleep(0.05)
    assert second.state()["steps"] == 8
    code, said = second.stop(signal.SIGINT)
    assert code == 130 and f"Saved in {folder}" in said and "Traceback" not in said
    assert open_model(str(folder)).stack == ("dpo",)
    third = Process(model, folder)
    found = third.state()
    assert (found["clicks"], found["waiting"], found["steps"], found["version"]) == (4, 0, 8, 4)
    code, said = third.stop(signal.SIGTERM)
    assert code == 130 and "Saved in" in said


# -- it learns -----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stories(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The 260K-parameter story model, which ends a story with the token that begins the next."""
    folder = tmp_path_factory.mktemp("stories")
    found = resolve("stories260k", cache=folder / "cache", files=shared_data / "stories260k")
    shutil.copytree(found.folder, folder / "model")
    config = folder / "model" / "generation_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text(encoding="utf-8")), "eos_token_id": [1, 2]}), encoding="utf-8")
    return str(folder / "model")
