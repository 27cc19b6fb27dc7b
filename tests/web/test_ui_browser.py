"""`accord ui` in a real browser: from the list of runs to a chat and a comparison and back, by keyboard and mouse, on a screen and on a phone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import live_ui
import tiny_demo
from accord.recipes.blind import Comparison
from accord.recipes.votes import AUTHORS
from hostile_model import hostile_model
from live_site import EVIL
from live_ui import UiSite, serving_ui
from page_checks import check_quiet, check_readable, noted

pytestmark = pytest.mark.browser
WIDTHS = [1280, 390]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    base = tiny_demo.model_folder(folder / "base")
    for seed, name in enumerate(("sft", "ppo", "dpo"), 1):
        live_ui.write_policy(base, folder / "runs" / "demo" / name, seed=seed, method=name)
    return folder / "runs"


def opened(browser: Any, site: UiSite, path: str, width: int) -> Any:
    page = noted(browser.new_context(viewport={"width": width, "height": 900}))
    page.goto(site.address + path)
    return page


def pictured(page: Any, name: str) -> None:
    """A screenshot for people to look at, where ACCORD_PICTURES names a folder."""
    if folder := os.environ.get("ACCORD_PICTURES"):
        page.screenshot(path=f"{folder}/{name}-{page.viewport_size['width']}.png", full_page=True)


def open_on_page(page: Any, *names: str, tokens: int = 12, temperature: float = 1.0, learn: bool = False) -> None:
    """Choose models and wait until the page for asking is there."""
    for name in names:
        page.locator(f'input[name="model"][value="{name}"]').check()
    if learn:
        page.get_by_label("It learns from what I prefer").check()
    page.get_by_label("Longest answer, tokens").fill(str(tokens))
    page.get_by_label("Temperature").fill(str(temperature))
    page.get_by_role("button", name="Open").click()
    # The page comes anew: its script has to be there, too.
    page.wait_for_function("() => document.querySelector('#question') && document.readyState === 'complete'")


def ask(page: Any, text: str) -> None:
    page.locator("#question").fill(text)
    page.keyboard.press("Enter")


def shown(text: str) -> str:
    """A text as a page shows it, spaces aside: a null character is none."""
    return " ".join(text.replace("\x00", "\ufffd").split())


def compared(page: Any, text: str) -> tuple[str, list[str]]:
    """Ask, and wait for the answers; the task and their texts by place."""
    ask(page, text)
    page.wait_for_function("() => document.body.dataset.task")
    return page.evaluate("document.body.dataset.task"), [
        found.strip() for found in page.locator("#answers .answer .text").all_inner_texts()
    ]


@pytest.mark.parametrize("width", WIDTHS)
def test_from_the_runs_to_a_chat_and_on_to_one_that_learns(browser: Any, root: Path, tmp_path: Path, width: int) -> None:
    shutil.copytree(root, tmp_path / "runs")
    with serving_ui(tmp_path / "runs") as site:
        page = opened(browser, site, "/", width)
        page.get_by_role("link", name="Chat", exact=True).click()
        page.wait_for_url("**/chat")
        assert site.seat.partner is None and site.seat.opening is None
        check_readable(page)
        pictured(page, "chat-opening")
        open_on_page(page, "demo/sft")
        ask(page, "What is a noun?")
        page.wait_for_function("() => document.querySelector('#status').textContent.startsWith('Answered')")
        ask(page, "And a verb?")
        page.wait_for_function("() => document.querySelectorAll('#conversation .turn').length === 4")
        assert page.locator("#pair .answer").count() == 0 and page.locator("#conversation .turn.assistant").count() == 2
        check_readable(page)
        pictured(page, "chat-plain")
        page.get_by_role("button", name="Another model").click()
        page.wait_for_selector("#opening")
        open_on_page(page, "demo/ppo", learn=True)
        ask(page, "What is a noun?")
        page.wait_for_function("() => document.body.dataset.task")
        page.keyboard.press("1")
        page.wait_for_function("() => document.querySelector('#steps').textContent.startsWith('2')")
        check_readable(page)
        pictured(page, "chat-learn")
        page.get_by_role("link", name="Runs", exact=True).click()
        page.get_by_role("link", name="learn-ppo", exact=True).wait_for()  # the chat's own run is watched in the same app, while it learns
        check_quiet(page, site.address)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("by", ["keyboard", "mouse"])
def test_two_checkpoints_every_choice(browser: Any, root: Path, tmp_path: Path, width: int, by: str) -> None:
    shutil.copytree(root, tmp_path / "runs")
    with serving_ui(tmp_path / "runs") as site:
        page = opened(browser, site, "/compare", width)
        check_readable(page)
        pictured(page, "compare-opening")
        open_on_page(page, "demo/sft", "demo/ppo")
        wanted: dict[str, tuple[Any, int | None, list[str]]] = {}
        acts = (
            ("1", "A far better", 0, 4),
            ("8", "B far better", 1, 4),
            ("4", "A hardly better", 0, 1),
            ("t", "Tie", "tie", None),
            ("x", "Both bad", "both_bad", None),
        )
        for key, name, choice, strength in acts:
            task, texts = compared(page, f"Question for {key}?")
            assert not any(word in page.locator(".talk").inner_text() for word in ("demo/sft", "demo/ppo"))
            if by == "keyboard":
                page.keyboard.press(key)
            else:
                page.get_by_role("button", name=name).click()
            page.get_by_role("heading", name="A: demo/").wait_for()
            wanted[task] = (choice, strength, texts)
        comparison = site.wait()
        assert isinstance(comparison, Comparison)
        stored = list(comparison.store.annotations())
        assert [label.task for label in stored] == list(wanted)
        for label in stored:
            choice, strength, texts = wanted[label.task]
            answers = comparison.store.task(label.task).completions
            assert (
                label.value == {"choice": label.shown_order[choice] if isinstance(choice, int) else choice} and label.strength == strength
            )
            assert [shown(answers[index].text) for index in label.shown_order] == [" ".join(text.split()) for text in texts]
            assert label.kind == "pair" and label.source == "human" and label.annotator == "me"
        # What was told after the last vote is what lies in the store.
        last = comparison.store.task(stored[-1].task)
        told = page.locator("#answers h2").all_inner_texts()
        assert told == [
            f"{'AB'[place]}: {last.completions[index].source[AUTHORS][0]['model']}" for place, index in enumerate(stored[-1].shown_order)
        ]
        (found,) = comparison.tallies()[0]
        assert (found.ties, found.wins + found.losses) == (2, 3)
        page.locator("#tallies").get_by_text(f"{found.wins} won, 2 tied, {found.losses} lost").wait_for()
        check_readable(page)
        pictured(page, f"compare-two-{by}")
        page.get_by_role("button", name="Take the last vote back").click()
        page.get_by_text("Taken back: that vote counts no more").wait_for()
        assert len(list(comparison.store.annotations())) == 4
        check_quiet(page, site.address)


@pytest.mark.parametrize("width", WIDTHS)
def test_four_checkpoints_ranked(browser: Any, root: Path, tmp_path: Path, width: int) -> None:
    """By keyboard, with a tie; answers are seen growing one after another, under letters."""
    shutil.copytree(root, tmp_path / "runs")
    with serving_ui(tmp_path / "runs") as site:
        page = opened(browser, site, "/compare", width)
        open_on_page(page, "demo/sft", "demo/ppo", "demo/dpo", "base", tokens=60)
        page.evaluate(
            """() => { window.seen = []; const look = () => { window.seen.push([...document.querySelectorAll('.writing .written')].map((one) => one.textContent.length)); };
            new MutationObserver(look).observe(document.querySelector('#answers'), { childList: true, subtree: true, characterData: true }); }"""
        )
        task, texts = compared(page, "What is a noun?")
        seen = page.evaluate("window.seen")
        assert any(len(one) == 4 and sum(one) > 0 and one[3] == 0 for one in seen)  # some written while the last one had not begun
        pictured(page, "compare-four-vote")
        page.keyboard.press("j")
        for rank in "1233":
            page.keyboard.press(rank)
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="A: ").wait_for()
        comparison = site.wait()
        (label,) = comparison.store.annotations()
        given = dict(zip(label.shown_order, (1, 2, 3, 3), strict=True))
        assert label.task == task and label.value == {"ranks": [given[index] for index in range(4)]} and len(texts) == 4
        page.get_by_text("1 won, 0 tied, 0 lost").first.wait_for()
        assert page.locator("#answers .answer.chosen").count() == 1
        # The conversation went on with what was ranked first.
        compared(page, "And a verb?")
        (following,) = [one for one in comparison.store.tasks() if one.id != task]
        assert following.prompt[1].content == comparison.store.task(task).completions[label.shown_order[0]].text
        check_readable(page)
        pictured(page, "compare-four")
        check_quiet(page, site.address)


def test_two_tabs_and_a_lost_connection_lose_no_vote(browser: Any, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "runs")
    with serving_ui(tmp_path / "runs") as site:
        page = opened(browser, site, "/compare", 1280)
        open_on_page(page, "demo/sft", "demo/ppo")
        compared(page, "What?")
        page.route("**/api/submit", lambda route: route.abort())
        page.keyboard.press("1")
        page.get_by_text("Your vote is kept here and not sent yet").wait_for()
        assert list(site.wait().store.annotations()) == []
        other = noted(page.context)
        other.goto(f"{site.address}/compare")
        other.get_by_text("1 won").or_(other.get_by_text("1 lost")).wait_for()  # the second tab sent it
        page.unroute("**/api/submit")
        page.get_by_role("heading", name="A: demo/").wait_for()
        assert len(list(site.wait().store.annotations())) == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_what_models_write_never_runs(browser: Any, tmp_path: Path, width: int) -> None:
    """Script, markup, events of the stream, control characters, endless words: while written, to be judged, revealed, and in the conversation."""
    (tmp_path / "runs").mkdir()
    names = [hostile_model(tmp_path / name, seed) for seed, name in enumerate(("x", "y"))]
    with serving_ui(tmp_path / "runs", *names) as site:
        page = opened(browser, site, "/compare", width)
        open_on_page(page, *names, tokens=40)
        for turn, key in enumerate("1t"):
            _, texts = compared(page, f"{EVIL} [x](javascript:alert(1))")
            assert len(texts) == 2 and any("<script>" in text or "onerror" in text or "javascript:" in text for text in texts)
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            page.keyboard.press(key)
            page.get_by_role("heading", name="A: ").wait_for()
            assert page.locator("#conversation .turn").count() == 2 * turn + 1
        assert page.locator("main script, main img, main a, main iframe, main svg, main form form").count() == 0
        assert page.title().startswith("Compare") and page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        pictured(page, "compare-hostile")
        tasks = list(site.wait().store.tasks())
        everything = "".join(answer.text for task in tasks for answer in task.completions)
        assert "\x00" in everything and "\x1b" in everything and "\u202e" in everything and "w" * 3000 in everything
        check_quiet(page, site.address)
