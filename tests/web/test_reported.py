"""A report, from the page for judging to the administrator who takes the task out and puts it back, in a real browser; by request for that role alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from accord.annotation.results import Assignment, Idle
from accord.web.app import create_app
from live_site import EVIL, numbered, serving
from page_checks import check_quiet, check_readable, noted


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_a_reported_task_is_taken_out_and_put_back(browser: Any, tmp_path: Path, width: int) -> None:
    with serving(tmp_path / "project", [numbered(0, "first", "second")]) as site:
        site.store.add_annotator("Bob", id="bob")
        page = noted(browser.new_context(viewport={"width": width, "height": 800}))
        page.goto(site.address)
        page.wait_for_selector("#task .panel")
        task = page.evaluate("document.body.dataset.task")
        page.keyboard.press("s")
        page.keyboard.press("7")
        page.keyboard.type(EVIL)
        page.get_by_role("button", name="Send").click()
        page.wait_for_selector("#task .notice")
        page.goto(f"{site.address}/quality")
        assert EVIL in page.locator("main").inner_text() and page.locator("main script, main img").count() == 0
        check_readable(page)
        page.locator(".queue a", has_text=task).first.click()
        page.wait_for_selector("#retire")
        check_readable(page)
        page.get_by_role("button", name="Give it to nobody any more").click()
        page.wait_for_function("() => document.querySelector('#status').textContent === 'It is given to nobody any more.'")
        assert site.store.next_task("bob") == Idle("done")
        page.reload()
        page.get_by_role("button", name="Give it out again").click()
        page.wait_for_function("() => document.querySelector('#status').textContent === 'It is given out again.'")
        held = site.store.next_task("bob")
        assert isinstance(held, Assignment) and held.task.id == task
        check_quiet(page, site.address)


def test_only_an_administrator_takes_tasks_out(tmp_path: Path) -> None:
    with serving(tmp_path / "project", [numbered(0, "first", "second")]) as site:
        (task,) = site.store.tasks()
        site.access.hosts, site.access.local = frozenset({"testserver"}), False
        app = create_app(site.store, site.access, title="Test")
        replies = {}
        for role in ("annotator", "viewer", "admin"):
            secret = f"the secret of the {role}"
            site.store.add_annotator(role, role, id=role, secret=secret)
            client = TestClient(app, follow_redirects=False, raise_server_exceptions=False)
            client.get(f"/join/{secret}")
            token = {"X-CSRF-Token": site.access.csrf(secret)}
            assert client.post("/api/retire", json={"task": task.id}).status_code == 403  # no token of ours
            replies[role] = client.post("/api/retire", json={"task": task.id}, headers=token).status_code
            if role == "admin":
                assert client.post("/api/retire", json={"task": "../x"}, headers=token).status_code == 404
        assert replies == {"annotator": 403, "viewer": 403, "admin": 200}
        assert [one.id for one in site.store.tasks(state="retired")] == [task.id]
