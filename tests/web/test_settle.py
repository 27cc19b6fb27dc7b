"""Disputes settled in a real browser, by an administrator who judges too: what others said is shown once they have judged, or want to be asked no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from accord.annotation.results import Assignment, Idle
from accord.types import Annotation, Completion, Message, Task
from labelling import answer, pairs, talk, task
from live_site import EVIL, Site, serving
from page_checks import check_quiet, check_readable, noted

pytestmark = pytest.mark.browser
WIDTHS = pytest.mark.parametrize("width", [1280, 390])
SHOW = "Show it now, and never ask me"


def disputed(site: Site, asked: Task, *values: dict[str, Any]) -> None:
    """Ann and Bob have judged a task, each in their way."""
    for name, value in zip(("ann", "bob"), values, strict=True):
        site.store.add_annotator(name.title(), id=name)
        site.store.record([Annotation(f"x-{name}", asked.id, asked.kind, value, name)])


def opened(browser: Any, site: Site, width: int) -> Any:
    """From the page for judging, through the panel, to the dispute."""
    page = noted(browser.new_context(viewport={"width": width, "height": 800}))
    page.goto(site.address)
    page.wait_for_selector("#task > *")
    page.goto(f"{site.address}/quality")
    page.locator(".queue a").first.click()
    page.wait_for_selector("#retire")
    check_readable(page)
    return page


def asked_no_more(page: Any) -> None:
    """Read what was said without judging."""
    page.get_by_role("button", name=SHOW).click()
    page.wait_for_selector("#settle")
    check_readable(page)


def done(page: Any, site: Site) -> Annotation:
    """What the task was settled with."""
    page.wait_for_function("() => document.querySelector('#status').textContent.startsWith('Settled')")
    check_quiet(page, site.address)
    (settled,) = site.store.annotations(purpose="adjudication")
    assert settled.annotator == "me"
    return settled


@WIDTHS
def test_who_may_still_judge_does_not_see_what_others_said(browser: Any, tmp_path: Path, width: int) -> None:
    (asked,) = pairs(1)
    with serving(tmp_path / "project", []) as site:
        site.store.add_tasks([asked], wanted=3)
        disputed(site, asked, {"choice": 0}, {"choice": 1})
        page = opened(browser, site, width)
        assert "You may still be asked" in page.locator("main").inner_text()
        assert not any(word in page.content() for word in ("Ann", "Bob", "answer 1", "is better"))
        page.goto(f"{site.address}/quality")
        assert "× answer 1" not in page.locator("main").inner_text()
        page.goto(site.address)
        page.wait_for_selector("#task .panel")
        page.keyboard.press("1")
        page.wait_for_selector("#task .notice")
        page.goto(f"{site.address}/quality")
        assert "× answer 1" in page.locator("main").inner_text()
        page.locator(".queue a").first.click()
        said = page.get_by_role("listitem").all_inner_texts()
        assert [line.partition(",")[0].strip() for line in said][:2] == ["Ann: answer 1", "Bob: answer 2"] and said[2].startswith("me: ")
        page.goto(site.address)
        page.wait_for_selector("#task .notice")
        page.keyboard.press("u")
        page.wait_for_function("() => document.querySelector('#status').textContent.includes('your answer stays')")
        assert len(list(site.store.annotations(annotator="me"))) == 1
        page.goto(f"{site.address}/settle/{asked.id}")
        page.get_by_role("button", name="Answer 2 is better").click()
        page.wait_for_function("() => document.querySelector('#status').textContent.startsWith('Settled')")
        (settled,) = site.store.annotations(purpose="adjudication")
        assert settled.value == {"choice": 1}
        assert all("409" in problem for problem in page.problems)  # the answer that stays


@WIDTHS
def test_who_reads_first_is_not_asked(browser: Any, tmp_path: Path, width: int) -> None:
    """A conversation, settled by what one of them said; the lease that the administrator held goes to others."""
    asked = task("chat", "Question?", talk("a", "b", EVIL), talk("c", "b", "d"))
    with serving(tmp_path / "project", []) as site:
        site.store.add_tasks([asked], wanted=3)
        disputed(site, asked, {"turns": [{"turn": 1, "choice": 0}]}, {"turns": [{"turn": 1, "choice": 1}]})
        page = opened(browser, site, width)
        asked_no_more(page)
        assert site.store.next_task("me") == Idle("done")
        site.store.add_annotator("Eve", id="eve")
        assert isinstance(site.store.next_task("eve"), Assignment)
        page.locator("#why").fill("The second is right.")
        page.get_by_role("listitem").filter(has_text="Bob").get_by_role("button", name="This holds").click()
        settled = done(page, site)
        assert (settled.value, settled.rationale) == ({"turns": [{"turn": 1, "choice": 1}]}, "The second is right.")


@WIDTHS
def test_ranks_of_ones_own(browser: Any, tmp_path: Path, width: int) -> None:
    asked = task("ranking", "Question?", *map(answer, "abcd"))
    with serving(tmp_path / "project", []) as site:
        site.store.add_tasks([asked], wanted=3)
        disputed(site, asked, {"ranks": [1, 2, 3, 4]}, {"ranks": [4, 3, 2, 1]})
        page = opened(browser, site, width)
        asked_no_more(page)
        for place, rank in enumerate("3131"):
            page.get_by_label(f"Rank of answer {place + 1}").select_option(rank)
        page.get_by_role("button", name="These ranks hold").click()
        assert done(page, site).value == {"ranks": [3, 1, 3, 1]}


@WIDTHS
def test_a_rating_of_ones_own_beside_what_was_written(browser: Any, tmp_path: Path, width: int) -> None:
    asked = task("rating", "Question?", answer(EVIL))
    with serving(tmp_path / "project", []) as site:
        site.store.add_tasks([asked], wanted=3)
        disputed(site, asked, {"rating": 2, "flags": ["wrong"]}, {"rating": 6})
        site.store.record([Annotation("x-flag", asked.id, "flag", {"reason": f"personal data {EVIL}"}, "eve")])
        page = noted(browser.new_context(viewport={"width": width, "height": 800}))
        page.goto(site.address)
        page.goto(f"{site.address}/settle/{asked.id}")
        asked_no_more(page)
        assert f"eve: reported\npersonal data {EVIL}" in page.get_by_role("listitem").last.inner_text()
        page.get_by_label("Rating", exact=True).select_option("5")
        page.get_by_role("button", name="This rating holds").click()
        assert done(page, site).value == {"rating": 5} and page.title() != "owned"


@WIDTHS
def test_first_tasks_are_compared_by_an_administrator_who_does_not_judge_them(browser: Any, tmp_path: Path, width: int) -> None:
    with serving(tmp_path / "project", pairs(4)) as site:
        site.store.begin_calibration(0, 3)
        for name in ("ann", "bob"):
            site.store.add_annotator(name, id=name)
            for number in range(3):
                held = site.store.next_task(name)
                assert isinstance(held, Assignment)
                site.store.submit(name, held.task.id, held.token, f"{name}-{number}", "pair", {"choice": int(name == "bob")})
        page = noted(browser.new_context(viewport={"width": width, "height": 800}))
        page.goto(site.address)
        page.goto(f"{site.address}/calibration")
        check_readable(page)
        assert "3 of the 3 first tasks are left" in page.locator("main").inner_text() and "answer 1" not in page.content()
        page.get_by_role("button", name=SHOW).click()
        page.wait_for_selector("details")
        assert "1 × answer 1, 1 × answer 2" in page.locator("main").inner_text()
        check_readable(page)
        assert site.store.next_task("me") == Idle("calibration")
        check_quiet(page, site.address)


def test_a_complete_task_is_shown_and_not_asked_when_it_opens_again(browser: Any, tmp_path: Path) -> None:
    """Bob takes his answer back after the administrator has read both: the place is for others."""
    asked = task("pair", "Question?", answer("a"), answer("b"))
    with serving(tmp_path / "project", []) as site:
        site.store.add_tasks([asked], wanted=2)
        disputed(site, asked, {"choice": 0}, {"choice": 1})
        page = opened(browser, site, 1280)
        assert page.get_by_role("listitem").all_inner_texts() == ["Ann: answer 1", "Bob: answer 2"]
        site.store.undo("bob", "taken-back")
        assert site.store.state(asked.id) == "open" and site.store.next_task("me") == Idle("done")
        page.get_by_role("button", name="Tie").click()
        assert done(page, site).value == {"choice": "tie"}


def test_what_was_rewritten_is_shown_whole(browser: Any, tmp_path: Path) -> None:
    asked = Task("t", "edit", (Message("user", "Question?"),), (Completion((Message("assistant", "Helo."),)),))
    with serving(tmp_path / "project", []) as site:
        site.store.add_tasks([asked], wanted=3)
        disputed(site, asked, {"of": 0, "text": f"Hello. {EVIL}"}, {"of": 0, "text": "Hi."})
        site.store.erase("bob")
        page = noted(browser.new_context(viewport={"width": 390, "height": 800}))
        page.goto(site.address)
        page.goto(f"{site.address}/settle/t")
        asked_no_more(page)
        lines = page.get_by_role("listitem").all_inner_texts()
        assert lines[0].startswith("Ann: rewrote answer 1") and f"Hello. {EVIL}" in lines[0] and lines[1] == "(erased): erased on request"
        assert page.get_by_role("button", name="This holds").count() == 1 and page.title() != "owned"
