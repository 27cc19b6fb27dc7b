"""The report in a real browser: nothing is asked of the network, nothing fails in the console, and the reader can judge blind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from accord.reporting.charts import Line
from accord.reporting.report import BlindPair, Report, Sample, Who, write

pytestmark = pytest.mark.browser

EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def report() -> Report:
    pairs = [BlindPair(f"Question {i} {EVIL}", f"left {i}", f"right {i}", "left" if i % 2 else "right") for i in range(4)]
    return Report(
        "accord demo",
        "SFT 1 of 2, PPO 2 of 2.",
        who=[Who("sft", "SFT", 1, 2, {"median words": "9"}), Who("ppo", "PPO", 2, 2, {"median words": "8"})],
        slices=[{"title": "sounds harmful but is not", "counts": ["100 of 240", "200 of 240"]}],
        reward_lines=[Line("reward", [0.0, 1.0], [0.0, 0.5]), Line("held-out", [0.0, 1.0], [0.1, 0.2], dashed=True, labels=("SFT", EVIL))],
        accuracy=[{"name": "where the shorter answer won", "value": 0.9, "low": 0.86, "high": 0.93, "count": 267}],
        implicit=[{"name": "implicit reward of the DPO policy", "value": 0.9, "low": 0.86, "high": 0.93, "count": 267}],
        lineage=[("sha256", "0123456789abcdef" * 4), ("stage hashes", ", ".join(["sft 0123456789abcdef"] * 4))],
        next_steps=[("accord chat runs/a-folder-with-a-long-name/and-another-one/ppo", "talk to it")],
        load_lines=f'model = AutoPeftModelForCausalLM.from_pretrained("{"long/" * 20}ppo")',
        samples=[Sample("plain", f"Why? {EVIL}", [{"who": "sft", "text": EVIL, "passed": False, "finished": True}])],
        blind=pairs,
        stages=[{"name": "heldout_reward", "seconds": 100.0, "planned_seconds": 120, "peak_rss_gb": 2.5, "skipped": True}],
        alarms=[{"name": "reward heads disagree", "value": "0.24", "limit": "0.43", "ok": True, "words": "twice the first round's"}],
    )


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    path = write(report(), tmp_path / "report.html")
    found = browser.new_page(viewport={"width": 390, "height": 800})  # a phone
    found.asked, found.problems = [], []
    found.on("request", lambda request: found.asked.append(request.url))
    found.on("console", lambda message: found.problems.append(message.text) if message.type == "error" else None)
    found.on("pageerror", lambda error: found.problems.append(str(error)))
    found.goto(path.as_uri())
    yield found
    found.close()


def test_one_file_and_no_network(page: Any) -> None:
    assert [url.rsplit("/", 1)[-1] for url in page.asked] == ["report.html"]
    assert not page.problems
    assert page.title() == "accord demo" and page.locator("svg").count() == 1


def test_a_phone_need_not_scroll_sideways(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    cut = page.evaluate("[...document.querySelectorAll('.scroll, pre')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.innerText)")
    assert not cut  # hashes, commands and the lines that load the model are all in sight


def test_the_reader_judges_and_is_told_the_count(page: Any) -> None:
    judge = page.locator("#judge")
    for choice in ("Right is better", "Right is better", "Neither", "Left is better"):
        judge.get_by_role("button", name=choice).click()
    # the trained model stood right, left, right, left: one hit, one miss, one tie, one hit
    assert "trained model 2 times, the model before it 1 times, neither 1 times" in judge.inner_text()
    judge.get_by_role("button", name="Judge again").click()
    assert judge.inner_text().startswith("1 of 4")
    assert not page.problems


def test_the_reader_can_judge_by_keyboard(page: Any) -> None:
    for _ in range(4):
        page.locator("#judge").get_by_role("button", name="Left is better").focus()
        page.keyboard.press("Enter")
    assert "trained model 2 times, the model before it 2 times" in page.locator("#judge").inner_text()
