"""Every action of ratings, steps, rankings and conversations, every reason to skip or report, and taking back, by keys at 1280 px and by mouse or touch at 390 px: each field that is
stored is what was shown and chosen. Pairs and rewrites have theirs in `test_browser` and `test_rewrites_and_turns`."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from accord.types import Annotation, TaskKind
from labelling import talk, task
from live_site import EVIL, Site, numbered, of_kind, serving
from page_checks import check_quiet, check_readable, noted

pytestmark = pytest.mark.browser
BY = pytest.mark.parametrize("by", ["keys", "mouse"])
FLAGS = ["wrong", "harmful", "off the topic", "cut off", "flatters"]
REASONS = [
    ("skip", "I do not know enough about this"),
    ("skip", "I cannot decide"),
    ("skip", "It upsets me"),
    ("flag", "The prompt makes no sense"),
    ("flag", "Another language"),
    ("flag", "Personal data"),
]


class Desk:
    """Somebody at the page, who remembers for each task what was shown, when, and what must be stored of it."""

    def __init__(self, browser: Any, site: Site, by: str) -> None:
        context = browser.new_context(viewport={"width": 1280 if by == "keys" else 390, "height": 900}, has_touch=by == "mouse")
        self.site, self.by, self.page = site, by, noted(context)
        self.expected: dict[str, tuple[str, Any, int | None]] = {}
        self.texts: dict[str, list[str]] = {}
        self.seconds: dict[str, float] = {}
        self.since = time.monotonic()
        self.page.goto(site.address)
        self.page.wait_for_selector("#task .panel")
        self._look()
        check_readable(self.page)

    def _look(self) -> None:
        if self.page.locator("#task .notice").count():  # nothing is left
            return
        self.task = self.page.evaluate("document.body.dataset.task")
        self.texts[self.task] = [text.strip() for text in self.page.locator("#task .answer .text").all_inner_texts()]

    def key(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def press(self, name: str, *, role: str = "button") -> None:
        """Tap what has that name."""
        self.page.locator("#task").get_by_role(role, name=name, exact=True).first.tap()

    def sent(self, kind: str, value: Any, strength: int | None = None) -> None:
        """Wait until another task, or none, is there, and remember what the one before must be stored as."""
        self.expected[self.task] = (kind, value, strength)
        now = time.monotonic()
        self.seconds[self.task], self.since = now - self.since, now
        self.page.wait_for_function("task => document.body.dataset.task !== task || document.querySelector('#task .notice')", arg=self.task)
        self._look()

    def check(self) -> None:
        """Everything that was stored, field by field."""
        stored: dict[str, Annotation] = {one.task: one for one in self.site.store.annotations()}
        assert stored.keys() == self.expected.keys()
        for key, (kind, value, strength) in self.expected.items():
            one, task = stored[key], self.site.store.task(key)
            assert (one.kind, one.value, one.strength) == (kind, value, strength)
            assert (one.source, one.annotator, one.purpose, one.arm, one.round) == ("human", "me", "work", "random", 0)
            assert (one.guideline_version, one.rationale, one.supersedes, one.probability) == (1, None, None, None)
            assert one.seconds is not None and 0 <= one.seconds <= self.seconds[key] + 1
            if task.kind not in ("steps", "chat"):
                assert [task.completions[place].text for place in one.shown_order] == self.texts[key]
        check_quiet(self.page, self.site.address)


@BY
def test_every_rating_and_every_flag(browser: Any, tmp_path: Path, by: str) -> None:
    """1 to 7, the first five each with a flag of its own, the sixth with all of them."""
    words = ["worst", "bad", "poor", "so-so", "fair", "good", "best"]
    with serving(tmp_path / "project", [of_kind("rating", number, f"answer {number}") for number in range(7)]) as site:
        desk = Desk(browser, site, by)
        for rating in range(1, 8):
            flags = [FLAGS[rating - 1]] if rating <= 5 else FLAGS if rating == 6 else []
            for flag in flags:
                if by == "mouse":
                    desk.page.locator("#task").get_by_label(flag, exact=True).tap()
                    continue
                desk.key("f", *["Tab"] * FLAGS.index(flag), "Space")
                desk.page.evaluate("document.activeElement.blur()")
            desk.key(str(rating)) if by == "keys" else desk.press(f"{rating} {words[rating - 1]}")
            desk.sent("rating", {"rating": rating, **({"flags": sorted(flags)} if flags else {})})
        desk.check()


@BY
def test_every_label_of_a_step(browser: Any, tmp_path: Path, by: str) -> None:
    """Each step right, neutral and wrong once; the first error at each place; all right; a label given anew; a better step, and one that is dropped."""
    orders = [(1, 0, -1), (0, -1, 1), (-1, 1, 0)]
    words, keys = {1: "right", 0: "neutral", -1: "wrong"}, {1: "1", 0: "2", -1: "3"}
    with serving(tmp_path / "project", [of_kind("steps", number, "one", "two", "three") for number in range(9)]) as site:
        desk = Desk(browser, site, by)

        def label(step: int, value: int) -> None:
            if by == "mouse":
                return desk.press(f"Step {step + 1} is {words[value]}", role="radio")
            at(step)
            desk.key(keys[value])

        def at(step: int) -> None:
            desk.page.locator(".step").nth(step).focus()

        def send() -> None:
            desk.page.evaluate("document.activeElement.blur()")
            desk.key("Enter") if by == "keys" else desk.press("Send")

        def write(step: int, text: str) -> None:
            if by == "keys":
                at(step)
                desk.key("e")
            else:
                desk.page.locator(".step .text").nth(step).tap()
                desk.page.locator("#task").get_by_role("button", name="Write a better step").tap()
            desk.page.locator("#editor-text").fill(text)
            desk.key("Control+Enter") if by == "keys" else desk.page.locator("#editor-form").get_by_role("button", name="Save").tap()
            desk.page.wait_for_function("text => document.querySelector('#task').innerText.includes(`Your step: ${text}`)", arg=text)

        for order in orders:
            for step, value in enumerate(order):
                label(step, value)
            send()
            desk.sent("steps", {"labels": list(order)})
        for step in range(3):
            if by == "keys":
                at(step)
                desk.key("f")
            else:
                desk.press(f"Step {step + 1} is the first error", role="radio")
            send()
            desk.sent("steps", {"first_error": step})
        desk.key("a") if by == "keys" else desk.page.locator("#task").get_by_role("button", name="All right").tap()
        label(1, -1)
        label(1, 0)
        write(2, "another three")
        write(1, "another two")  # one step of a solution can have this: the newest
        send()
        desk.sent("steps", {"labels": [1, 0, 1], "alternative": {"step": 1, "text": "another two"}})
        desk.key("a") if by == "keys" else desk.page.locator("#task").get_by_role("button", name="All right").tap()
        write(0, "another one")
        desk.page.locator("#task").get_by_role("button", name="Drop it").click()
        send()
        desk.sent("steps", {"labels": [1, 1, 1]})
        desk.check()


@BY
def test_another_text_for_a_step_is_taken_as_it_is_or_changed(browser: Any, tmp_path: Path, by: str) -> None:
    """The second step comes with two other texts: one is taken by Tab and Space or a tap, in a second task it is changed on the way. Its markup is text."""
    others = [[], ["4+2=6", f"4+2=six {EVIL}"], []]
    tasks = [replace(of_kind("steps", number, "2+2=4", "4+2=7", "So 7"), columns={"step_alternatives": others}) for number in range(2)]
    with serving(tmp_path / "project", tasks) as site:
        desk = Desk(browser, site, by)
        for more in ("", ", so 6"):
            step = desk.page.locator(".step").nth(1)
            assert "2 other texts to choose from" in step.inner_text()
            step.focus() if by == "keys" else step.locator(".text").first.tap()
            desk.key("f", "e") if by == "keys" else desk.press("Step 2 is the first error", role="radio")
            if by == "mouse":
                desk.page.locator("#task").get_by_role("button", name="Write a better step").tap()
            editor = desk.page.locator("#editor")
            assert editor.get_by_role("radio").all_inner_texts() == ["As it is", "Other text 1", "Other text 2"]
            for name in ("Other text 2", "Other text 1"):
                if by == "keys":
                    editor.get_by_role("radio", name=name).focus()
                    desk.key("Space")
                else:
                    editor.get_by_role("radio", name=name).tap()
                assert editor.get_by_role("radio", name=name).get_attribute("aria-checked") == "true"
            assert desk.page.locator("#editor-text").input_value() == "4+2=6"
            desk.page.locator("#editor-text").fill(f"4+2=6{more}")
            desk.page.locator("#editor-form").get_by_role("button", name="Save").click()
            desk.page.wait_for_function("() => document.querySelector('#task').innerText.includes('Your step: 4+2=6')")
            desk.page.locator("#task").get_by_role("button", name="Send").click()
            desk.sent("steps", {"first_error": 1, "alternative": {"step": 1, "text": f"4+2=6{more}"}})
        desk.check()


@BY
def test_every_rank(browser: Any, tmp_path: Path, by: str) -> None:
    """Three answers: each order that has no tie, ties at the top and at the bottom, all alike; stored by the task's own order."""
    given = [(1, 2, 3), (2, 1, 3), (3, 2, 1), (1, 1, 3), (1, 2, 2), (2, 2, 2)]
    wanted = [(1, 2, 3), (2, 1, 3), (3, 2, 1), (1, 1, 3), (1, 2, 2), (1, 1, 1)]
    with serving(tmp_path / "project", [numbered(number, "a", "b", "c") for number in range(len(given))]) as site:
        desk = Desk(browser, site, by)
        for ranks, stands in zip(given, wanted, strict=True):
            if by == "keys":
                desk.page.locator("#answer-0").focus()
                desk.key(*map(str, ranks), "Enter")
            else:
                for place, rank in enumerate(ranks):
                    desk.press(f"Rank {rank} for answer {'ABC'[place]}", role="radio")
                desk.page.locator("#task").get_by_role("button", name="Send").tap()
            by_text = dict(zip(desk.texts[desk.task], stands, strict=True))
            own = [by_text[completion.text] for completion in site.store.task(desk.task).completions]
            desk.sent("ranking", {"ranks": own})
        desk.check()


@BY
def test_every_judgement_of_a_conversation(browser: Any, tmp_path: Path, by: str) -> None:
    """Seven answers rated 1 to 7, the first five each with a flag of its own, the sixth rewritten, the seventh cleared and rated anew."""
    words = ["worst", "bad", "poor", "so-so", "fair", "good", "best"]
    asked = task("chat", "Hi", talk(*(f"answer {n // 2}" if n % 2 == 0 else "Go on." for n in range(13))))
    with serving(tmp_path / "project", [asked]) as site:
        desk = Desk(browser, site, by)

        def rate(place: int, rating: int) -> None:
            card = desk.page.locator("section.answer").nth(place)
            if by == "mouse":
                return card.get_by_role("button", name=f"{rating} {words[rating - 1]}").tap()
            card.focus()
            desk.key(str(rating))

        for place in range(7):
            card = desk.page.locator("section.answer").nth(place)
            rate(place, place + 1)
            if place < 5:
                box = card.get_by_label(FLAGS[place], exact=True)
                box.press("Space") if by == "keys" else box.tap()
        card = desk.page.locator("section.answer").nth(6)
        card.focus()
        desk.key("c") if by == "keys" else card.get_by_role("button", name="Clear").tap()
        assert desk.page.get_by_text("6 of 7 answers judged").is_visible()
        rate(6, 7)
        card = desk.page.locator("section.answer").nth(5)
        card.focus()
        desk.key("e") if by == "keys" else card.get_by_role("button", name="Write what it should have been").tap()
        desk.page.locator("#editor-text").fill("mine")
        desk.key("Control+Enter") if by == "keys" else desk.page.locator("#editor-form").get_by_role("button", name="Save").tap()
        desk.page.get_by_text("Your text: mine").wait_for()
        desk.page.evaluate("document.activeElement.blur()")
        desk.key("Enter") if by == "keys" else desk.press("Send")
        flags = [{"flags": [flag]} for flag in FLAGS]
        more = [*flags, {"text": "mine"}, {}]
        desk.sent("chat", {"turns": [{"turn": place, "rating": place + 1, **more[place]} for place in range(7)]})
        desk.check()


@BY
def test_every_choice_between_two_conversations(browser: Any, tmp_path: Path, by: str) -> None:
    """Ten answers: 1 to 8, a tie, both bad; the last cleared and chosen anew."""
    words = ["far better", "better", "a bit better", "hardly better"]
    said = [[f"{side} {n // 2}" if n % 2 == 0 else "Go on." for n in range(19)] for side in ("one", "two")]
    asked = task("chat", "Hi", talk(*said[0]), talk(*said[1]))
    with serving(tmp_path / "project", [asked]) as site:
        desk = Desk(browser, site, by)
        order = (0, 1) if desk.page.locator("[aria-label='Answer 1 of A'] .text").inner_text().strip() == "one 0" else (1, 0)

        def choose(place: int, key: str) -> None:
            card = desk.page.locator(".turn-pair").nth(place)
            if by == "keys":
                card.focus()
                return desk.key(key)
            name = {"t": "Tie", "x": "Both bad"}.get(key) or f"{'A' if key < '5' else 'B'} {words[min(int(key) - 1, 8 - int(key))]}"
            card.get_by_role("button", name=re.compile(rf"^{name}")).first.tap()

        keys = [*map(str, range(1, 9)), "t", "x"]
        for place, key in enumerate(keys):
            choose(place, key)
        last = desk.page.locator(".turn-pair").nth(9)
        last.focus()
        desk.key("c") if by == "keys" else last.get_by_role("button", name="Clear").tap()
        assert desk.page.get_by_text("9 of 10 answers judged").is_visible()
        choose(9, "x")
        desk.page.evaluate("document.activeElement.blur()")
        desk.key("Enter") if by == "keys" else desk.press("Send")
        left = [{"turn": n, "choice": order[0], "strength": 4 - n} for n in range(4)]
        right = [{"turn": n, "choice": order[1], "strength": n - 3} for n in range(4, 8)]
        desk.sent("chat", {"turns": [*left, *right, {"turn": 8, "choice": "tie"}, {"turn": 9, "choice": "both_bad"}]})
        desk.check()
        (stored,) = site.store.annotations()
        assert stored.shown_order == order


@BY
@pytest.mark.parametrize("kind", ["pair", "rating"])
def test_every_reason_to_skip_or_report(browser: Any, tmp_path: Path, by: str, kind: TaskKind) -> None:
    asked = [numbered(n, f"first {n}", f"second {n}") if kind == "pair" else of_kind("rating", n, f"answer {n}") for n in range(8)]
    with serving(tmp_path / "project", asked) as site:
        desk = Desk(browser, site, by)

        def ask_why() -> Any:
            desk.key("s") if by == "keys" else desk.page.locator("#task").get_by_role("button", name="Skip or report").tap()
            desk.page.wait_for_selector("#reasons[open]")
            return desk.page.locator("#reasons")

        dialog = ask_why()
        desk.key("Escape") if by == "keys" else dialog.get_by_role("button", name="Cancel").tap()
        desk.page.wait_for_function("() => !document.querySelector('dialog[open]')")
        for number, (what, reason) in enumerate(REASONS, start=1):
            dialog = ask_why()
            if by == "keys":
                desk.key(str(number))
            else:
                dialog.get_by_label(reason).check()
                dialog.get_by_role("button", name="Send").tap()
            desk.sent(what, {"reason": reason})
        dialog = ask_why()
        if by == "keys":
            desk.key("7")
            desk.page.keyboard.type("no 1 question")  # a digit here is a letter
            desk.key("Enter")
        else:
            dialog.get_by_label("Something else:").check()
            dialog.get_by_label("What is wrong").fill("no 1 question")
            dialog.get_by_role("button", name="Send").tap()
        desk.sent("flag", {"reason": "no 1 question"})
        desk.check()


@BY
@pytest.mark.parametrize("kind", ["pair", "ranking", "rating", "steps", "edit", "chat"])
def test_taking_back_brings_the_answer_back_as_it_was(browser: Any, tmp_path: Path, by: str, kind: TaskKind) -> None:
    """Sent by key, taken back, sent again as the page then shows it: one row more for the undo, one for the answer, the same value."""
    task = {
        "pair": lambda: numbered(0, "first", "second"),
        "ranking": lambda: numbered(0, "a", "b", "c"),
        "steps": lambda: of_kind("steps", 0, "one", "two"),
    }.get(kind, lambda: of_kind(kind, 0, "an answer"))()
    with serving(tmp_path / "project", [task]) as site:
        desk = Desk(browser, site, by)
        page = desk.page
        if kind == "edit":
            page.locator("#rewrite").fill("a better one")
            page.locator("#rewrite").press("Control+Enter")
        else:
            page.locator("#task [tabindex='-1']").first.focus()
            desk.key(
                *{
                    "pair": ("3",),
                    "ranking": ("2", "1", "2", "Enter"),
                    "rating": ("6",),
                    "steps": ("1", "3", "Enter"),
                    "chat": ("5", "Enter"),
                }[kind]
            )
        page.wait_for_selector("#task .notice")
        (first,) = site.store.annotations()
        undo = page.locator("#task").get_by_role("button", name="Take the last answer back")
        desk.key("u") if by == "keys" else undo.tap()
        page.wait_for_selector("#task .panel")
        assert list(site.store.annotations()) == []
        if kind == "pair":
            assert page.locator(".scale [aria-pressed='true']").inner_text().startswith("A a bit better")
            desk.key("3")
        elif kind == "rating":
            assert page.locator(".scale [aria-pressed='true']").inner_text() == "6 good"
            desk.key("6")
        elif kind == "edit":
            assert page.locator("#rewrite").input_value() == "a better one"
            page.locator("#rewrite").press("Control+Enter")
        else:
            page.locator("#task").get_by_role("button", name="Send").click()
        page.wait_for_selector("#task .notice")
        (again,) = site.store.annotations()
        assert (again.kind, again.value, again.strength, again.shown_order) == (first.kind, first.value, first.strength, first.shown_order)
        record = list(site.store.annotations(valid=False))
        assert (
            [one.kind for one in record] == [first.kind, "undo", first.kind]
            and record[1].supersedes == first.id
            and record[2].id == again.id
        )
        check_quiet(page, site.address)
