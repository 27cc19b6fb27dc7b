"""Talking with a model inside the app for labelling, in a real browser: every judgement is stored as it was shown and chosen, and nothing written is lost."""

from __future__ import annotations

import json
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
from accord.annotation.project import Project
from accord.annotation.store import Store
from accord.config.options import AnnotateOptions
from accord.data.annotation_examples import examples_of
from accord.recipes.question_thread import Answering
from accord.recipes.talk import open_talker
from accord.web import talk
from accord.web.access import Access, Bucket, server_key
from accord.web.app import create_app
from accord.web.chat import LONGEST_TURN
from accord.web.serve import Listening, bind, hosts_of, site_address
from live_site import EVIL, quiet_server, running
from page_checks import check_quiet, check_readable, noted


@dataclass
class Site:
    """A project with a model to talk with, that is being served."""

    store: Store
    address: str
    app: Any


@contextmanager
def serving(model: str, folder: Path, *, local: bool = True, max_new_tokens: int = 8) -> Iterator[Site]:
    """Serve as `accord annotate --talk` does."""
    project = Project.new(folder, gold_rate=0.0, repeat_rate=0.0)
    talker = open_talker(AnnotateOptions(str(folder), model=model, talk=True, max_new_tokens=max_new_tokens), project)
    store, listening = talker.kept.store, Listening(port=0)
    with bind(listening) as listener, Answering(talker) as answering:
        port = listener.getsockname()[1]
        access = Access(store, server_key(folder), local, hosts_of(listening, port) if local else frozenset({"testserver"}))
        access.requests = Bucket(1e9, 1e9)
        app = create_app(store, access, title="Test", folder=folder)
        talk.mount(app, answering)
        with running(quiet_server(app), listener):
            yield Site(store, site_address(listening, port), app)
    talker.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_demo.model_folder(tmp_path_factory.mktemp("model"))


def opened(browser: Any, site: Site, *, width: int = 1280, context: Any = None) -> Any:
    page = noted(context or browser.new_context(viewport={"width": width, "height": 800}))
    page.goto(f"{site.address}{talk.PAGE}")
    page.wait_for_selector("#question", state="attached")
    return page


def said(page: Any, text: str) -> tuple[str, list[str]]:
    """Say something by keyboard; the task that is on the page then, and the texts of its answers from the left."""
    page.locator("#question").fill(text)
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.body.dataset.task && document.querySelector('#pair').ariaBusy === 'false'")
    return page.evaluate("document.body.dataset.task"), plain(page.locator("#pair .answer .text").all_inner_texts())


def plain(texts: list[str]) -> list[str]:
    return [" ".join(text.split()) for text in texts]


def stored(page: Any) -> None:
    page.wait_for_function("() => !document.body.dataset.task && document.querySelector('#status').textContent.startsWith('Stored')")


CHOICES: list[tuple[str, str, int | str | None, int | None]] = [
    ("1", "A far better", 0, 4),
    ("8", "B far better", 1, 4),
    ("4", "A hardly better", 0, 1),
    ("6", "B a bit better", 1, 2),
    ("t", "Tie", "tie", None),
    ("x", "Both bad", "both_bad", None),
    ("s", "Cannot decide", None, None),
]
"""Key, button, place (or what else was said), strength."""


@pytest.mark.parametrize(("width", "by"), [(1280, "keyboard"), (390, "mouse")])
class TestInBrowser:
    pytestmark = pytest.mark.browser

    def test_every_judgement_of_one_conversation(self, browser: Any, model: str, tmp_path: Path, width: int, by: str) -> None:
        with serving(model, tmp_path / "labels") as site:
            page = opened(browser, site, width=width)
            wanted: dict[str, tuple[str, list[str], int | str | None, int | None]] = {}
            for number, (key, name, place, strength) in enumerate(CHOICES):
                task, texts = said(page, f"Question {number}?")
                wanted[task] = (f"Question {number}?", texts, place, strength)
                if number == 1:
                    check_readable(page)
                    page.keyboard.press("r")
                    page.keyboard.type("because")
                    page.keyboard.press("Enter")
                if by == "keyboard":
                    page.keyboard.press(key)
                else:
                    page.get_by_role("button", name=name).click()
                stored(page)
            labels = list(site.store.annotations())
            assert [label.task for label in labels] == list(wanted)
            went_on: list[str] = []
            for turn, label in enumerate(labels):
                question, texts, place, strength = wanted[label.task]
                task = site.store.task(label.task)
                assert [message.content for message in task.prompt] == [*went_on, question] and task.columns["turn"] == turn
                assert plain([task.completions[index].text for index in label.shown_order]) == texts
                chosen = label.shown_order[place] if isinstance(place, int) else place
                assert (label.kind, label.value) == (
                    ("pair", {"choice": chosen}) if place is not None else ("skip", {"reason": "I cannot decide"})
                )
                assert (label.strength, label.source, label.annotator) == (strength, "human", "me")
                assert label.rationale == ("because" if turn == 1 else None) and label.seconds is not None and 0 <= label.seconds < 300
                went_on += [question, task.completions[label.shown_order[place if isinstance(place, int) else 0]].text]
            made = [example for label in labels[:5] for example in examples_of(label, site.store.task(label.task))]
            assert [example.kind for example in made] == ["preference"] * 5 and [len(example.prompt) for example in made] == [1, 3, 5, 7, 9]
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            check_quiet(page, site.address)


class TestPage:
    pytestmark = pytest.mark.browser

    def test_undo_and_a_new_conversation(self, browser: Any, model: str, tmp_path: Path) -> None:
        with serving(model, tmp_path / "labels") as site:
            page = opened(browser, site)
            first, texts = said(page, "One?")
            page.keyboard.press("2")
            stored(page)
            page.keyboard.press("Escape")
            page.keyboard.press("u")
            page.wait_for_function("task => document.body.dataset.task === task", arg=first)
            assert plain(page.locator("#pair .answer .text").all_inner_texts()) == texts and list(site.store.annotations()) == []
            assert page.get_by_role("button", name="A better 2").get_attribute("aria-pressed") == "true"
            page.wait_for_function("() => document.querySelector('#status').textContent === 'Taken back.'")
            page.keyboard.press("7")
            stored(page)
            assert [one.kind for one in site.store.annotations(valid=False)] == ["pair", "undo", "pair"]
            second, _ = said(page, "Two?")
            assert len(site.store.task(second).prompt) == 3
            page.keyboard.press("n")  # not judged: it is left to others
            page.wait_for_function("() => document.querySelector('#status').textContent === 'A new conversation.'")
            third, _ = said(page, "Three?")
            assert [message.content for message in site.store.task(third).prompt] == ["Three?"]
            page.keyboard.press("t")
            stored(page)
            site.store.add_annotator("Bob", id="bob")
            assert site.store.next_task("bob").task.id == second  # type: ignore[union-attr]
            page.get_by_role("link", name="Judge").click()
            page.wait_for_selector("#task")
            check_quiet(page, site.address)

    def test_a_closed_tab_loses_nothing(self, browser: Any, model: str, tmp_path: Path) -> None:
        """The conversation, the pair on the page, the reason and what was being written are there again."""
        with serving(model, tmp_path / "labels") as site:
            context = browser.new_context()
            page = opened(browser, site, context=context)
            said(page, "One?")
            page.keyboard.press("1")
            stored(page)
            task, texts = said(page, "Two?")
            page.locator("#rationale").fill("half a reas")
            page.close()
            page = opened(browser, site, context=context)
            page.wait_for_function("task => document.body.dataset.task === task", arg=task)
            assert (
                plain(page.locator("#pair .answer .text").all_inner_texts()) == texts
                and page.locator("#rationale").input_value() == "half a reas"
            )
            assert page.locator("#conversation .turn").count() == 3
            page.locator("#rationale").blur()
            page.keyboard.press("8")
            stored(page)
            page.locator("#question").fill("not sent")
            page.close()
            page = opened(browser, site, context=context)
            page.wait_for_function("() => document.querySelector('#question').value === 'not sent'")
            assert page.locator("#conversation .turn").count() == 4
            assert [(label.strength, label.rationale) for label in site.store.annotations()] == [(4, None), (4, "half a reas")]
            check_quiet(page, site.address)

    def test_two_tabs_judge_a_pair_once(self, browser: Any, model: str, tmp_path: Path) -> None:
        """A second tab shows the same pair; who is second is told that it was judged, and nothing is stored twice."""
        with serving(model, tmp_path / "labels") as site:
            context = browser.new_context()
            first = opened(browser, site, context=context)
            task, texts = said(first, "One?")
            second = opened(browser, site, context=context)
            second.wait_for_function("task => document.body.dataset.task === task", arg=task)
            assert plain(second.locator("#pair .answer .text").all_inner_texts()) == texts
            second.keyboard.press("8")
            stored(second)
            first.keyboard.press("1")
            first.wait_for_function("() => document.querySelector('#status').classList.contains('bad')")
            assert "nothing was stored" in first.locator("#status").inner_text()
            (label,) = site.store.annotations(valid=False)
            assert (label.value, label.strength) == ({"choice": label.shown_order[1]}, 4)

    def test_a_lost_connection_delays_a_judgement_and_stores_it_once(self, browser: Any, model: str, tmp_path: Path) -> None:
        with serving(model, tmp_path / "labels") as site:
            context = browser.new_context()
            page = opened(browser, site, context=context)
            said(page, "One?")
            context.set_offline(True)
            page.keyboard.press("1")
            page.wait_for_selector("#offline:not([hidden])")
            assert list(site.store.annotations()) == []
            context.set_offline(False)
            stored(page)
            assert len(list(site.store.annotations())) == 1

    def test_what_is_said_never_runs(self, browser: Any, model: str, tmp_path: Path) -> None:
        with serving(model, tmp_path / "labels") as site:
            page = opened(browser, site)
            for _ in range(2):
                said(page, f"{EVIL} [x](javascript:alert(1))")
                page.keyboard.press("1")
                stored(page)
            page.reload()
            page.wait_for_selector("#conversation .turn")
            assert page.title().startswith("Talk") and page.locator("main script, main img, main a").count() == 0
            check_quiet(page, site.address)


# -- by its requests -----------------------------------------------------------------------------------------------------------------------


def test_who_may_talk(model: str, tmp_path: Path) -> None:
    """By invitation: annotators and admins talk, viewers do not, a forged request changes nothing, and nobody sees another's question."""
    with serving(model, tmp_path / "labels", local=False) as site:
        people: dict[str, Any] = {}
        for role in ("annotator", "viewer", "admin"):
            site.store.add_annotator(role, role, id=role, secret=f"the secret of the {role}")
            people[role] = TestClient(site.app, follow_redirects=False, raise_server_exceptions=False)
            people[role].get(f"/join/the secret of the {role}")
        body = {"messages": [{"role": "user", "content": "Q"}]}
        stranger = TestClient(site.app, follow_redirects=False, raise_server_exceptions=False)
        assert stranger.get(talk.PAGE).status_code == stranger.post("/api/chat/ask", json=body).status_code == 401
        assert people["viewer"].get(talk.PAGE).status_code == people["viewer"].post("/api/chat/ask", json=body).status_code == 403
        assert people["annotator"].post("/api/chat/ask", json=body).status_code == 403  # no token of ours
        text = people["annotator"].get(talk.PAGE).text
        csrf = {"X-CSRF-Token": text.partition('name="csrf" content="')[2].partition('"')[0]}
        for bad in (
            {},
            {"messages": []},
            {"messages": [{"role": "system", "content": "x"}]},
            {"messages": [{"role": "user", "content": "x" * (LONGEST_TURN + 1)}]},
        ):
            assert people["annotator"].post("/api/chat/ask", json=bad, headers=csrf).status_code == 422
        question = people["annotator"].post("/api/chat/ask", json=body, headers=csrf).json()["question"]
        assert people["admin"].get(f"/api/chat/question/{question}").status_code == 404
        while not (found := people["annotator"].get(f"/api/chat/question/{question}").json())["assignment"]:
            assert found["problem"] is None
        assert "sha256" not in json.dumps(found) and "arm" not in found["assignment"]
        odd = {"messages": [{"role": "assistant", "content": "I begin"}]}
        question = people["annotator"].post("/api/chat/ask", json=odd, headers=csrf).json()["question"]
        while not (found := people["annotator"].get(f"/api/chat/question/{question}").json())["problem"]:
            pass
        assert "by turns" in found["problem"]


@pytest.fixture(scope="module")
def annotator(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Somebody signed in who sends whatever they like; headers hold the token of the page."""
    with serving(model, tmp_path_factory.mktemp("any") / "labels", local=False, max_new_tokens=2) as site:
        site.store.add_annotator("Ann", id="ann", secret="the secret of the annotator")
        client = TestClient(site.app, follow_redirects=False, raise_server_exceptions=False)
        client.get("/join/the secret of the annotator")
        client.headers["X-CSRF-Token"] = site.app.state.access.csrf("the secret of the annotator")
        yield client


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["user", "assistant", "system", "\ud800", "a" * 300]) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["messages", "role", "content", "x"]), inner, max_size=4),
    max_leaves=10,
)
TURNS = st.lists(st.fixed_dictionaries({"role": JSON, "content": JSON}), max_size=3)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(body=JSON | st.fixed_dictionaries({"messages": TURNS}), rest=st.text(alphabet="abc./%20<>'\"?&=:;-_~", max_size=12))
def test_any_body_and_any_question(annotator: Any, body: Any, rest: str) -> None:
    reply = annotator.post("/api/chat/ask", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert reply.status_code < 500 and (reply.status_code == 200 or set(reply.json()) == {"code", "error"}), (reply.text, body)
    assert 300 <= annotator.get(f"/api/chat/question/{rest}").status_code < 500


@pytest.mark.skipif("sys.platform == 'win32'", reason="signals of Unix")
def test_the_command_serves_it_and_ctrl_c_ends_it(model: str, tmp_path: Path) -> None:
    """`accord annotate --talk`: the page is there beside the one for judging, a turn is stored, and the server ends in order."""
    command = [sys.executable, "-m", "accord", "annotate", str(tmp_path / "labels"), "--model", model, "--talk", "--port", "0"]
    # A suite that runs in the background has Ctrl-C ignored, and its children would too.
    process = subprocess.Popen(
        [*command, "--max-new-tokens", "4", "--open-browser", "no"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    address = next(line for line in process.stdout if "http://" in line).split()[1]
    with httpx.Client(base_url=address.removesuffix(talk.PAGE), timeout=60, follow_redirects=True) as http:
        assert address.endswith(talk.PAGE) and "/talk" in http.get("/").text
        csrf = {"X-CSRF-Token": http.get(talk.PAGE).text.partition('name="csrf" content="')[2].partition('"')[0]}
        body = {"messages": [{"role": "user", "content": "Why?"}]}
        question = http.post("/api/chat/ask", json=body, headers=csrf).json()["question"]
        while not (held := http.get(f"/api/chat/question/{question}").json()["assignment"]):
            time.sleep(0.05)
        said = {"task": held["task"], "token": held["token"], "submission": "s", "kind": "pair", "value": {"choice": 1}, "strength": 2}
        assert http.post("/api/submit", json=said, headers=csrf).status_code == 200
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, 130) and "Traceback" not in errors
    with Project(tmp_path / "labels").open_store() as store:
        (label,) = store.annotations()
        assert (label.value, label.strength) == ({"choice": 1}, 2) and store.task(label.task).prompt[0].content == "Why?"
