"""Judging in a real browser: what is stored is what was shown and chosen, and nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from live_site import EVIL, Site, numbered, of_kind, serving
from page_checks import FAINT, UNNAMED

pytestmark = pytest.mark.browser
PAIRS = [numbered(number, f"first {number}", f"second {number}") for number in range(12)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving(tmp_path / "project", PAIRS) as found:
        yield found


def opened(browser: Any, site: Site, *, width: int = 1280, context: Any = None) -> Any:
    """The page, once it shows a task; everything that it asked for and complained of is noted."""
    context = context or browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    page.set_default_timeout(120_000)  # other tests run beside
    page.asked, page.problems = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto(site.address)
    page.wait_for_selector(".answer")
    return page


def sent(page: Any, act: Any) -> None:
    """Do something that sends an answer, and wait until it is stored and another task is there."""
    before = page.evaluate("document.body.dataset.task")
    act()
    page.wait_for_function("task => document.body.dataset.task !== task || document.querySelector('#task .notice')", arg=before)


def shown(page: Any) -> tuple[str, list[str]]:
    """The task on the page and the texts of its answers, from the left."""
    return page.evaluate("document.body.dataset.task"), [text.strip() for text in page.locator(".answer .text").all_inner_texts()]


def crashed(page: Any) -> None:
    """The process that shows the page ends as if killed: the tab has no moment in which to save anything."""
    with page.expect_event("crash", timeout=30_000), suppress(Exception):  # going there is what never ends well
        page.goto("chrome://crash", timeout=30_000)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("by", ["keyboard", "mouse"])
def test_every_choice_of_a_pair(browser: Any, site: Site, width: int, by: str) -> None:
    page = opened(browser, site, width=width)
    wanted: dict[str, tuple[str | None, Any, int | None]] = {}
    seen: dict[str, list[str]] = {}
    for number in [*range(1, 9), "t", "x"]:
        name, texts = shown(page)
        seen[name] = texts
        if isinstance(number, int):
            place, strength = (0, 5 - number) if number <= 4 else (1, number - 4)
            wanted[name] = (texts[place], None, strength)
            button = page.locator(".scale button").nth(number - 1)
        else:
            wanted[name] = (None, {"t": "tie", "x": "both_bad"}[number], None)
            button = page.get_by_role("button", name={"t": "Tie", "x": "Both bad"}[number])
        sent(page, partial(page.keyboard.press, str(number)) if by == "keyboard" else button.click)
    stored = list(site.store.annotations())
    assert len(stored) == 10 and {annotation.task for annotation in stored} == set(wanted)
    for annotation in stored:
        asked = site.store.task(annotation.task)
        text, choice, strength = wanted[annotation.task]
        chosen = annotation.value["choice"]
        assert (asked.completions[chosen].text == text) if text is not None else chosen == choice
        assert annotation.strength == strength and annotation.source == "human" and annotation.annotator == "me"
        assert [asked.completions[place].text for place in annotation.shown_order] == seen[annotation.task]
        assert (annotation.kind, annotation.purpose, annotation.arm, annotation.round) == ("pair", "work", "random", 0)
        assert annotation.seconds is not None and 0 <= annotation.seconds < 60 and annotation.guideline_version == 1
    assert page.problems == [] and all(url.startswith((site.address, "data:")) for url in page.asked)


def test_ranking_by_keyboard_and_mouse(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "project", [numbered(number, f"a {number}", f"b {number}", f"c {number}") for number in range(2)]) as site:
        page = opened(browser, site)
        name, texts = shown(page)
        page.keyboard.press("j")
        for key in "212":  # ranks 2, 1, 2, each at the answer that is next
            page.keyboard.press(key)
        page.wait_for_function("() => !document.querySelector('.panel button').disabled")
        sent(page, lambda: page.get_by_role("button", name="Send").click())
        second, others = shown(page)
        for place, rank in enumerate((3, 1, 2)):
            page.get_by_role("radiogroup").nth(place).get_by_role("radio").nth(rank - 1).click()
        sent(page, lambda: page.get_by_role("button", name="Send").click())
        ranks = {annotation.task: annotation.value["ranks"] for annotation in site.store.annotations()}
        for key, seen, given in ((name, texts, (2, 1, 2)), (second, others, (3, 1, 2))):
            by_text = dict(zip(seen, given, strict=True))
            assert ranks[key] == [by_text[completion.text] for completion in site.store.task(key).completions]
        assert page.problems == []


def test_ratings_with_flags(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "project", [of_kind("rating", number, f"answer {number}") for number in range(3)]) as site:
        page = opened(browser, site)
        first, _ = shown(page)
        page.get_by_label("harmful").check()
        page.keyboard.press("f")
        page.keyboard.press("Space")
        page.locator("body").click(position={"x": 5, "y": 300})
        sent(page, lambda: page.keyboard.press("2"))
        second, _ = shown(page)
        sent(page, lambda: page.get_by_role("button", name="7 best").click())
        values = {annotation.task: annotation.value for annotation in site.store.annotations()}
        assert values == {first: {"rating": 2, "flags": ["harmful", "wrong"]}, second: {"rating": 7}} and page.problems == []


def test_steps_by_keyboard_and_the_first_error_by_mouse(browser: Any, tmp_path: Path) -> None:
    solutions = [of_kind("steps", number, "one", "two", "three") for number in range(3)]
    with serving(tmp_path / "project", solutions) as site:
        page = opened(browser, site)
        first, _ = shown(page)
        page.keyboard.press("j")
        for key in "132":
            page.keyboard.press(key)
        sent(page, lambda: page.keyboard.press("Enter"))
        second, _ = shown(page)
        page.get_by_role("radio", name="Step 2 is the first error").click()
        sent(page, lambda: page.get_by_role("button", name="Send").click())
        third, _ = shown(page)
        page.keyboard.press("a")
        sent(page, lambda: page.keyboard.press("Enter"))
        values = {annotation.task: annotation.value for annotation in site.store.annotations()}
        assert values == {first: {"labels": [1, -1, 0]}, second: {"first_error": 1}, third: {"labels": [1, 1, 1]}} and page.problems == []


def test_reason_edit_skip_report_and_undo(browser: Any, site: Site) -> None:
    page = opened(browser, site)
    first, _ = shown(page)
    page.keyboard.press("r")
    page.keyboard.type("shorter")
    page.keyboard.press("Enter")
    page.keyboard.press("e")
    page.locator("#editor-text").fill("my own answer")
    page.keyboard.press("Control+Enter")
    page.wait_for_function("() => document.querySelector('#status').textContent.startsWith('Your answer is stored')")
    sent(page, lambda: page.keyboard.press("1"))
    skipped, _ = shown(page)
    page.keyboard.press("s")
    sent(page, lambda: page.keyboard.press("2"))
    flagged, _ = shown(page)
    page.get_by_role("button", name="Skip or report").click()
    page.keyboard.press("7")
    page.keyboard.type("nonsense")
    sent(page, lambda: page.locator("#reasons-send").click())
    found = {(a.task, a.kind): a for a in site.store.annotations()}
    assert found[first, "pair"].rationale == "shorter" and found[first, "edit"].value["text"] == "my own answer"
    assert found[skipped, "skip"].value == {"reason": "I cannot decide"} and found[flagged, "flag"].value == {"reason": "nonsense"}
    before, _ = shown(page)
    sent(page, lambda: page.keyboard.press("u"))
    assert shown(page)[0] == flagged != before
    assert (flagged, "flag") not in {(a.task, a.kind) for a in site.store.annotations()}


def test_a_draft_survives_a_killed_tab(browser: Any, site: Site) -> None:
    context = browser.new_context()
    page = opened(browser, site, context=context)
    name, _ = shown(page)
    page.keyboard.press("r")
    page.keyboard.type("half a thou")
    crashed(page)
    again = opened(browser, site, context=context)
    assert shown(again)[0] == name and again.locator("#rationale").input_value() == "half a thou"
    again.keyboard.press("r")
    with again.expect_response("**/api/draft"):
        again.keyboard.type("ght")
    other = opened(browser, site)  # another browser of the same person: the server has it too
    assert shown(other)[0] == name and other.locator("#rationale").input_value() == "half a thought"


def test_two_tabs_never_store_two_answers(browser: Any, site: Site) -> None:
    context = browser.new_context()
    one, two = opened(browser, site, context=context), opened(browser, site, context=context)
    assert shown(one) == shown(two)
    name, _ = shown(one)
    sent(one, lambda: one.keyboard.press("1"))
    sent(two, lambda: two.keyboard.press("8"))
    assert [a.strength for a in site.store.annotations(task=name)] == [4]
    assert "not with you" in two.locator("#status").inner_text() or "answered" in two.locator("#status").inner_text()


def test_a_lost_connection_loses_nothing(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "project", PAIRS) as site:
        page = opened(browser, site)
        name, texts = shown(page)
        port = int(site.address.rpartition(":")[2])
    page.keyboard.press("8")  # nobody listens
    page.wait_for_function("() => !document.querySelector('#offline').hidden")
    assert "kept here" in page.locator("#offline").inner_text()
    with serving(tmp_path / "project", [], port=port) as site:
        page.wait_for_function("task => document.body.dataset.task !== task", arg=name)
        stored = list(site.store.annotations(task=name))
        assert [(site.store.task(name).completions[a.value["choice"]].text, a.strength) for a in stored] == [(texts[1], 4)]


def test_what_a_model_wrote_never_runs(browser: Any, tmp_path: Path) -> None:
    texts = (f"{EVIL} [x](javascript:alert(1)) ![y](http://example.org/z.png)", "$\\frac{1}{2}$ and `code`\n\n    block")
    with serving(tmp_path / "project", [numbered(0, *texts)]) as site:
        page = opened(browser, site)
        assert page.title().startswith("Compare") and page.locator(".answer script, .answer img, .answer a").count() == 0
        assert page.locator(".answer math").count() == 1 and page.locator(".answer pre code").count() == 1
        assert page.problems == [] and all(url.startswith((site.address, "data:")) for url in page.asked)
        assert "hidden-author" not in page.content()


def test_names_roles_and_contrast_for_screen_readers(browser: Any, site: Site) -> None:
    page = opened(browser, site)
    assert page.evaluate(UNNAMED) == [] and page.locator("html").get_attribute("lang") == "en"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate(FAINT) == []
