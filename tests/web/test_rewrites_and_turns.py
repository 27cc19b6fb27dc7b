"""Rewrites, conversations judged turn by turn, and steps written anew, in a real browser: what is stored is what was shown, chosen and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from accord.data.annotation_examples import examples_of
from accord.types import Completion, Message, Task, TaskKind, task_id
from labelling import given, pairs
from live_site import EVIL, Site, numbered, of_kind, serving
from page_checks import check_quiet, check_readable, noted

pytestmark = pytest.mark.browser


def opened(browser: Any, site: Site, *, width: int = 1280, context: Any = None) -> Any:
    page = noted(context or browser.new_context(viewport={"width": width, "height": 800}))
    page.goto(site.address)
    page.wait_for_selector("#task .panel")
    return page


def sent(page: Any, act: Any) -> None:
    """Do something that sends an answer, and wait until it is stored and another task, or none, is there."""
    before = page.evaluate("document.body.dataset.task")
    act()
    page.wait_for_function("task => document.body.dataset.task !== task || document.querySelector('#task .notice')", arg=before)


def told(page: Any, text: str) -> None:
    """Wait until the page says it."""
    page.wait_for_function("text => document.querySelector('main').innerText.includes(text)", arg=text)


def closed(page: Any) -> None:
    """Wait until no dialog is open: Escape closes one a moment later."""
    page.wait_for_function("() => !document.querySelector('dialog[open]')")


def shown(page: Any) -> str:
    return page.evaluate("document.body.dataset.task")


def talk(*texts: str) -> Completion:
    """A conversation that the assistant begins."""
    return Completion(
        tuple(Message("user" if place % 2 else "assistant", text) for place, text in enumerate(texts)),
        source={"kind": "sample", "model": "hidden-author"},
    )


def asked(kind: TaskKind, number: int, *answers: Completion) -> Task:
    prompt = (Message("system", "Be brief."), Message("user", f"Question {number}?"))
    return Task(task_id(kind, prompt, answers), kind, prompt, answers)


@pytest.mark.parametrize("width", [1280, 390])
def test_rewriting_by_keyboard_and_by_mouse(browser: Any, tmp_path: Path, width: int) -> None:
    one, two = of_kind("edit", 0, "Helo."), asked("edit", 1, talk("first"), talk("second"))
    with serving(tmp_path / "project", [one, two]) as site:
        page = opened(browser, site, width=width)
        check_readable(page)
        for _ in range(2):
            area = page.locator("#rewrite")
            assert page.get_by_role("button", name="Send").is_disabled()
            if shown(page) == one.id:
                page.keyboard.press("e")
                assert area.evaluate("area => area === document.activeElement")
                page.keyboard.press("Control+a")
                page.keyboard.type("Hello, sue?")  # letters are letters here, not keys
                page.keyboard.press("Escape")
                page.keyboard.press("?")
                assert "start from that answer" in page.locator("#keys").inner_text()
                page.keyboard.press("Escape")
                closed(page)
                page.keyboard.press("e")
                sent(page, lambda: page.keyboard.press("Control+Enter"))
                continue
            order = [text.strip() for text in page.locator(".answer .text").all_inner_texts()]
            area.fill("not this")
            page.get_by_role("button", name="Start from B").click()
            assert area.input_value() == order[1]
            area.fill("a better one")
            area.press("Escape")
            page.keyboard.press("1")
            assert area.input_value() == "not this"  # kept while another answer was rewritten
            area.press("Escape")
            page.keyboard.press("2")
            sent(page, lambda: page.get_by_role("button", name="Send").click())
        stored = {annotation.task: annotation for annotation in site.store.annotations()}
        assert stored[one.id].value == {"of": 0, "text": "Hello, sue?"} and stored[one.id].kind == "edit"
        value = stored[two.id].value
        assert (value["text"], two.completions[value["of"]].text) == ("a better one", order[1])
        assert [e.kind for e in examples_of(stored[two.id], two)] == ["demonstration", "preference"]
        check_quiet(page, site.address)


def test_a_rewrite_survives_a_killed_tab_and_comes_back_when_taken_back(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "project", [of_kind("edit", 0, "Helo."), of_kind("edit", 1, "Bye")]) as site:
        context = browser.new_context()
        page = opened(browser, site, context=context)
        name = shown(page)
        page.locator("#rewrite").press_sequentially(" half")
        page.close()
        again = opened(browser, site, context=context)
        assert shown(again) == name and again.locator("#rewrite").input_value().endswith(" half")
        with again.expect_response("**/api/draft"):  # another browser gets what the server has
            again.locator("#rewrite").fill(again.locator("#rewrite").input_value() + " done")
        other = opened(browser, site)
        assert other.locator("#rewrite").input_value().endswith(" half done")
        sent(again, lambda: again.locator("#rewrite").press("Control+Enter"))
        again.locator("body").click(position={"x": 5, "y": 300})
        again.keyboard.press("s")
        sent(again, lambda: again.keyboard.press("2"))
        again.keyboard.press("u")
        again.wait_for_selector("#rewrite")
        sent(again, lambda: again.keyboard.press("u"))
        assert shown(again) == name and again.locator("#rewrite").input_value().endswith(" half done")
        assert list(site.store.annotations()) == [] and again.problems == []


@pytest.mark.parametrize("width", [1280, 390])
def test_a_conversation_is_judged_turn_by_turn(browser: Any, tmp_path: Path, width: int) -> None:
    """By keyboard: 6 for the first answer, 2 and another text for the second, nothing for the third; by mouse: a flag and a rating."""
    task = asked("chat", 0, talk("Hello.", "2+2?", "5", "Sure?", "Yes."))
    with serving(tmp_path / "project", [task, asked("chat", 1, talk("One.", "Go on.", "Two."))]) as site:
        page = opened(browser, site, width=width)
        check_readable(page)
        for _ in range(2):
            if shown(page) != task.id:
                card = page.locator("section.answer").nth(1)
                card.get_by_label("harmful").check()
                assert page.get_by_role("button", name="Send").is_disabled()  # a flag alone is no judgement
                card.get_by_role("button", name="3 poor").click()
                sent(page, lambda: page.get_by_role("button", name="Send").click())
                continue
            assert page.locator(".turn .role").all_inner_texts()[:2] == ["system", "user"]
            page.keyboard.press("j")
            page.keyboard.press("6")
            page.keyboard.press("2")
            page.keyboard.press("k")
            page.keyboard.press("e")
            page.locator("#editor-text").fill("4")
            page.keyboard.press("Control+Enter")
            told(page, "2 of 3 answers judged")
            page.keyboard.press("j")
            page.keyboard.press("7")
            page.keyboard.press("c")
            sent(page, lambda: page.keyboard.press("Enter"))
        values = {annotation.task: annotation.value for annotation in site.store.annotations()}
        assert values.pop(task.id) == {"turns": [{"turn": 0, "rating": 6}, {"turn": 1, "rating": 2, "text": "4"}]}
        assert list(values.values()) == [{"turns": [{"turn": 1, "rating": 3, "flags": ["harmful"]}]}]
        check_quiet(page, site.address)


@pytest.mark.parametrize("width", [1280, 390])
def test_two_conversations_are_compared_turn_by_turn(browser: Any, tmp_path: Path, width: int) -> None:
    """Both begin alike, so the first turn is not asked about; the second by key, the third by mouse; sides as they were shown."""
    first, second = talk("Hello.", "2+2?", "4", "Sure?", "Yes."), talk("Hello.", "2+2?", "5", "Sure?", "No.")
    task = asked("chat", 0, first, second)
    with serving(tmp_path / "project", [task]) as site:
        page = opened(browser, site, width=width)
        check_readable(page)
        assert page.get_by_text("Both say the same.").count() == 1
        left = "4" if page.locator("[aria-label='Answer 2 of A'] .text").inner_text().strip() == "4" else "5"
        page.keyboard.press("1")  # at the first turn, where there is nothing to judge
        told(page, "0 of 2 answers judged")
        for _ in range(2):
            page.keyboard.press("j")
        page.keyboard.press("7")  # right: a bit better
        page.locator(".turn-pair").nth(2).get_by_role("button", name="Both bad").click()
        sent(page, lambda: page.get_by_role("button", name="Send").click())
        (annotation,) = site.store.annotations()
        right = 1 if left == "4" else 0
        assert annotation.value == {"turns": [{"turn": 1, "choice": right, "strength": 3}, {"turn": 2, "choice": "both_bad"}]}
        assert annotation.shown_order == ((0, 1) if left == "4" else (1, 0))
        check_quiet(page, site.address)


def test_turns_survive_a_killed_tab(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "project", [asked("chat", 0, talk("Hello.", "2+2?", "5"))]) as site:
        context = browser.new_context()
        page = opened(browser, site, context=context)
        page.keyboard.press("j")
        page.keyboard.press("5")
        page.keyboard.press("e")
        page.locator("#editor-text").fill("half a thou")
        page.close()
        again = opened(browser, site, context=context)
        told(again, "1 of 2 answers judged")
        again.keyboard.press("j")
        again.keyboard.press("j")
        again.keyboard.press("e")
        assert again.locator("#editor-text").input_value() == "half a thou"
        again.locator("#editor-form").get_by_role("button", name="Close, keep the draft").click()
        sent(again, lambda: again.keyboard.press("Enter"))
        (annotation,) = site.store.annotations()
        assert annotation.value == {"turns": [{"turn": 0, "rating": 5}]} and again.problems == []


def test_a_conversation_still_to_be_held_is_given_to_nobody(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "project", [asked("chat", 0), asked("chat", 1, talk("One.", "Go on.", "Two."))]) as site:
        page = opened(browser, site)
        assert page.locator("#task .answer").count() == 2
        page.keyboard.press("5")
        sent(page, lambda: page.keyboard.press("Enter"))
        told(page, "Nothing is left for you")
        assert [one.task for one in site.store.annotations()] == [asked("chat", 1, talk("One.", "Go on.", "Two.")).id]
        assert page.problems == []


def test_a_step_is_written_anew(browser: Any, tmp_path: Path) -> None:
    task = of_kind("steps", 0, "2+2=4", "4+2=7", "So 7")
    with serving(tmp_path / "project", [task]) as site:
        page = opened(browser, site)
        check_readable(page)
        page.keyboard.press("j")
        page.keyboard.press("j")
        page.keyboard.press("f")
        page.keyboard.press("e")
        page.locator("#editor-text").fill("4+2=6")
        page.keyboard.press("Control+Enter")
        told(page, "Your step: 4+2=6")
        sent(page, lambda: page.keyboard.press("Enter"))
        (annotation,) = site.store.annotations()
        assert annotation.value == {"first_error": 1, "alternative": {"step": 1, "text": "4+2=6"}}
        assert len(examples_of(annotation, task)) == 2 and page.problems == []


def test_conversations_are_prompts_of_every_kind(browser: Any, tmp_path: Path) -> None:
    """Roles in their order, markdown, code and a formula in each turn, for a pair and a rating."""
    prompt = (
        Message("system", "Be **brief**."),
        Message("user", "`x` is $\\frac{1}{2}$?"),
        Message("assistant", "Yes."),
        Message("user", f"Sure? {EVIL}"),
    )
    kinds: dict[TaskKind, tuple[Completion, ...]] = {"pair": (talk("a"), talk("b")), "rating": (talk("c"),)}
    tasks = [Task(task_id(kind, prompt, answers), kind, prompt, answers) for kind, answers in kinds.items()]
    with serving(tmp_path / "project", tasks) as site:
        page = opened(browser, site, width=390)
        for _ in tasks:
            asked_here = page.locator("section[aria-label='Prompt']")
            assert asked_here.locator(".role").all_inner_texts() == ["system", "user", "assistant", "user"]
            assert asked_here.locator("math").count() == asked_here.locator("strong").count() == asked_here.locator("code").count() == 1
            check_readable(page)
            sent(page, lambda: page.keyboard.press("2"))
        assert len(list(site.store.annotations())) == 2
        check_quiet(page, site.address)


def test_pairs_are_walked_by_key(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "project", [numbered(0, "first", "second")]) as site:
        page = opened(browser, site)
        for key, place in (("j", 0), ("j", 1), ("j", 1), ("k", 0)):
            page.keyboard.press(key)
            assert page.evaluate("document.activeElement.id") == f"answer-{place}"


@pytest.mark.parametrize("kind", ["edit", "chat"])
def test_what_a_model_or_an_annotator_wrote_never_runs(browser: Any, tmp_path: Path, kind: TaskKind) -> None:
    answers = (
        [talk(EVIL, EVIL, f"{EVIL} $\\frac{{1}}{{2}}$ [x](javascript:alert(1))")]
        if kind == "chat"
        else [talk(f"{EVIL} $\\frac{{1}}{{2}}$")]
    )
    with serving(tmp_path / "project", [asked(kind, 0, *answers)]) as site:
        page = opened(browser, site)
        if kind == "chat":
            page.keyboard.press("e")
            page.locator("#editor-text").fill(f"{EVIL} mine")
            page.keyboard.press("Control+Enter")
            told(page, "Your text: <script>")
        else:
            page.locator("#rewrite").fill(EVIL)
        assert page.locator("#task script, #task img, #task a").count() == 0 and page.locator("#task math").count() == 1
        assert page.title().startswith("Compare") and "hidden-author" not in page.content()
        check_quiet(page, site.address)


def judge(site: Site, name: str, number: int) -> None:
    """Take the next task and judge it; Bob differs from the others on four pairs and on the conversation."""
    held = given(site.store, name)
    contrary = name == "bob"
    value = (
        {"turns": [{"turn": 0, "rating": 5 if contrary else 3}]} if held.task.kind == "chat" else {"choice": int(contrary and number < 4)}
    )
    site.store.submit(name, held.task.id, held.token, f"{name}-{number}", held.task.kind, value)


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_about_ones_own_work(browser: Any, tmp_path: Path, width: int) -> None:
    """The first tasks compared, one's own habits, and the panel: readable, and nobody's words run in them."""
    with serving(tmp_path / "project", [*pairs(24), asked("chat", 0, talk("a", "b", EVIL))]) as site:
        for name in ("ann", "bob"):
            site.store.add_annotator(EVIL if name == "ann" else name, id=name)
        site.store.begin_calibration(0, 25)
        for name in ("ann", "bob"):
            for number in range(25):
                judge(site, name, number)
        site.store.set_phase(0, "work")
        page = noted(browser.new_context(viewport={"width": width, "height": 800}))
        page.goto(site.address)
        page.goto(f"{site.address}/me")
        assert "You have compared nothing" in page.locator("main").inner_text()
        check_readable(page)
        for number in range(25):
            judge(site, "me", number)
        for path, told in (
            ("/calibration", "3 people did the same 25 tasks"),
            ("/me", "24 comparisons"),
            ("/quality", "Fleiss' kappa"),
        ):
            page.goto(site.address + path)
            assert told in page.locator("main").inner_text()
            check_readable(page)
        page.goto(f"{site.address}/calibration")
        page.locator("summary").first.click()
        assert page.locator("main script, main img").count() == 0 and page.title() != "owned"
        check_quiet(page, site.address)
