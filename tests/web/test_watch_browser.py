"""Watching training in a real browser: a training process is seen moving, runs are compared, and nothing of theirs runs in the page."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tiny
from accord.models.load import resolve
from live_watch import Watching, append, metrics, rollout, watching, write_run
from page_checks import check_quiet, check_readable, noted

pytestmark = pytest.mark.browser
EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
REWARD = "def brief(completions):\n    return [-len(c[0]['content']) / 20 for c in completions]\n"
ROUNDS = 30


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Watching]:
    (tmp_path / "runs").mkdir()
    with watching(tmp_path / "runs") as found:
        yield found


def opened(browser: Any, site: Watching, path: str = "/", *, width: int = 1280) -> Any:
    page = noted(browser.new_context(viewport={"width": width, "height": 900}))
    page.goto(site.address + path)
    return page


def drawn(page: Any, path: str = "/runs/show?run=a") -> Any:
    """The page once its curves are there and it listens."""
    with page.expect_response(re.compile("/api/runs/events")):
        page.goto(page.url.split("/runs")[0] + path)
    page.wait_for_selector("#curves:not([aria-busy]) svg.curve polyline")
    return page


def cells(page: Any, title: str, row: int = 0) -> list[str]:
    """Last value, its step, lowest and highest, from the table of a chart."""
    return page.locator(f'.chart[aria-label="{title}"] tbody tr').nth(row).locator("td").all_inner_texts()


def seen(page: Any, title: str, expected: list[str], row: int = 0) -> None:
    """Wait until the table of a chart says that."""
    page.wait_for_function(
        """([title, row, expected]) => { const found = document.querySelector(`.chart[aria-label="${title}"] tbody`)?.rows[row];
          return found && [...found.cells].slice(1).map((cell) => cell.textContent).join() === expected; }""",
        arg=[title, row, ",".join(expected)],
    )


def model(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """stories260k where its files are, else a tiny model with random weights."""
    try:
        files = request.getfixturevalue("shared_data") / "stories260k"
    except pytest.skip.Exception:
        tiny.model().save_pretrained(tmp_path / "model")
        tiny.tokenizer().save_pretrained(tmp_path / "model")
        return tmp_path / "model"
    return resolve("stories260k", cache=tmp_path / "cache", files=files).folder


def test_a_training_process_is_seen_moving(browser: Any, site: Watching, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The list shows the run when it begins, its page draws rounds as they end and says when it is finished: with no reload."""
    (tmp_path / "brief.py").write_text(REWARD)
    (tmp_path / "prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": f"Once there was a {name}"}) + "\n" for name in ("cat", "dog", "boy"))
    )
    page = opened(browser, site)
    page.get_by_text("No runs yet").wait_for()
    command = (
        f"ppo --model {model(tmp_path, request)} --data prompts.jsonl --reward brief.py:brief --output_dir runs/brief --num_iterations {ROUNDS} "
        "--prompts_per_iteration 3 --num_generations 8 --max_new_tokens 24 --lora_r 4 --learning_rate 3e-3"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "accord", *command.split()], cwd=tmp_path, env=environment, stdout=out, stderr=out
        )
        try:
            page.get_by_role("link", name="brief").click()
            page.wait_for_selector(".chart svg polyline")
            first = [float(text) for text in cells(page, "reward of the round")]
            page.wait_for_function(
                """(step) => Number(document.querySelector('.chart[aria-label="reward of the round"] td:nth-child(3)').textContent) > step""",
                arg=first[1],
            )
            page.get_by_role("heading", name=re.compile("Now: round")).wait_for()
            for title in ("KL from the reference, nats an answer", "mean answer, tokens", "loss"):
                assert cells(page, title)[0]
            page.wait_for_function("() => document.querySelector('[data-state]').textContent === 'finished'")
            assert process.wait(60) == 0, (tmp_path / "out").read_text()
        finally:
            process.kill()
            process.wait()
    rows = [json.loads(line) for line in (site.root / "brief" / "metrics.jsonl").read_text().splitlines()]
    scores = [(row["step"], row["objective/scores"]) for row in rows if "objective/scores" in row]
    assert len(scores) == ROUNDS and scores[-1][0] > first[1]
    page.wait_for_function(
        """(step) => Number(document.querySelector('.chart[aria-label="reward of the round"] td:nth-child(3)').textContent) === step""",
        arg=scores[-1][0],
    )
    last, _, low, high = (float(text) for text in cells(page, "reward of the round"))
    values = [value for _, value in scores]
    assert (last, low, high) == pytest.approx((values[-1], min(values), max(values)), rel=1e-3)
    assert page.locator("[data-step]").inner_text() == str(rows[-1]["step"])
    check_quiet(page, site.address)


def test_rows_a_resumed_run_and_a_deleted_one(browser: Any, site: Watching) -> None:
    folder = write_run(site.root / "a")
    page = drawn(opened(browser, site))
    seen(page, "reward of the round", ["1", "10", "0.1", "1"])
    append(folder / "metrics.jsonl", metrics([11]) + metrics([12], **{"objective/scores": float("nan")}) + '{"step": 13, "objective/sco')
    seen(page, "reward of the round", ["1.1", "11", "0.1", "1.1"])
    assert "1 not finite" in page.locator('.chart[aria-label="reward of the round"] tbody').inner_text()
    append(folder / "metrics.jsonl", 'res": 9}\n' + metrics([14], **{"a/new": 5}))
    page.wait_for_selector('#curves details[data-title="Other"] .chart[aria-label="a/new"]', state="attached")
    seen(page, "reward of the round", ["1.4", "14", "0.1", "9"])
    partial = folder / "partial"
    partial.write_text(metrics(range(1, 6)))
    with page.expect_response(re.compile("/api/runs/events")):  # it listens again, to the new file
        os.replace(partial, folder / "metrics.jsonl")
    seen(page, "reward of the round", ["0.5", "5", "0.1", "0.5"])
    shutil.rmtree(folder)
    page.get_by_text("a is no longer there").wait_for()
    check_quiet(page, site.address)


def test_a_server_that_comes_back_is_listened_to_again(browser: Any, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs" / "a")
    with watching(tmp_path / "runs") as site:
        page = drawn(opened(browser, site))
        port = int(site.address.rpartition(":")[2])
    page.get_by_text("The connection is lost").wait_for()
    append(folder / "metrics.jsonl", metrics([11, 12]))
    with watching(tmp_path / "runs", port=port):
        seen(page, "reward of the round", ["1.2", "12", "0.1", "1.2"])
        page.wait_for_function("() => document.querySelector('#status').textContent === ''")
        assert page.locator('.chart[aria-label="reward of the round"] circle').count() == 12  # each point once


def test_two_runs_on_the_same_axes_chosen_by_keyboard(browser: Any, site: Watching) -> None:
    write_run(site.root / "a")
    write_run(site.root / "b", range(1, 21), {"eval_loss": 2.0}, config={"kl_coef": 0.1, "logging_steps": 1})
    page = opened(browser, site)
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("Choose the runs to compare first").wait_for()
    page.get_by_label("Compare a").focus()
    page.keyboard.press("Space")
    append(site.root / "b" / "metrics.jsonl", metrics([21], eval_loss=2.0))
    page.get_by_role("cell", name="21 of 48").wait_for()  # the list was renewed: what was chosen and the focus stay
    assert page.evaluate("document.activeElement.value") == "a" and page.get_by_label("Compare a").is_checked()
    page.get_by_label("Compare b").press("Space")
    page.get_by_label("Compare b").press("Enter")
    page.wait_for_url("**/runs/compare?run=*")
    page.wait_for_selector("#curves:not([aria-busy]) svg polyline")
    assert page.locator("h1").inner_text() == "2 runs side by side"
    chart = page.locator('.chart[aria-label="reward of the round"]')
    strokes = chart.locator("polyline").evaluate_all("all => all.map((one) => one.getAttribute('stroke'))")
    ends = chart.locator("polyline").evaluate_all(
        "all => all.map((one) => one.getAttribute('points').split(' ').at(-1).split(',').map(Number))"
    )
    names = chart.locator("tbody th").all_inner_texts()
    order = [name.strip() for name in names]
    assert sorted(order) == ["a", "b"] and len(set(strokes)) == 2
    a, b = (ends[order.index(name)] for name in "ab")
    assert b[0] > a[0] and b[1] < a[1]  # of the same axes: b went further, and its reward is higher up
    assert page.locator('.chart[aria-label="loss"] polyline[stroke-dasharray]').count() == 1
    seen(page, "reward of the round", ["2.1", "21", "0.1", "2.1"], row=order.index("b"))
    append(site.root / "a" / "metrics.jsonl", metrics([11]))
    seen(page, "reward of the round", ["1.1", "11", "0.1", "1.1"], row=order.index("a"))
    assert page.get_by_role("row", name="kl_coef").get_by_role("cell").all_inner_texts() == (
        ["0.05", "0.1"] if order == ["a", "b"] else ["0.1", "0.05"]
    )
    check_quiet(page, site.address)


def test_what_runs_say_never_runs(browser: Any, site: Watching) -> None:
    name = "<img src=x onerror=\"document.title='owned'\">".replace("/", "")
    folder = write_run(
        site.root / name, more={EVIL: 1.0, f"eval_{EVIL}": 2.0}, method=EVIL, base=EVIL, config={EVIL: EVIL}, skipped_checks=[EVIL]
    )
    (folder / "rollouts.jsonl").write_text(rollout(EVIL, 0, EVIL) + rollout(EVIL, 1, f"[x](javascript:alert(1)) {EVIL}"))
    write_monitors(folder, "alarm", f"{EVIL}\x00\x1b\u202e{'w' * 3000}", name=EVIL, cause=EVIL)
    page = opened(browser, site)
    page.get_by_role("link", name="<img").click()
    page.get_by_role("heading", name="Now: round 2").wait_for()
    page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    for path in (None, "/runs/compare?" + page.url.partition("?")[2]):
        if path:
            drawn(page, path)
        assert page.locator("main script, main img, main a[href^=javascript]").count() == 0 and page.title() != "owned"
        assert page.locator(".chart").filter(has_text="<script>").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    check_quiet(page, site.address)


def write_monitors(folder: Path, level: str, text: str = "great great great", **more: Any) -> None:
    """What the guard of a run writes: two monitors of round 7, one of them at this level with an answer that shows it, and an alarm that fell."""
    sample = {"prompt": "What is a noun?", "text": text, "reward": 2.0, "finished": True}
    row = {
        "cause": "longer answers",
        "value": 61.5,
        "baseline": 40.0,
        "z": 4.0,
        "threshold": 60.0,
        "words": f"Answers are 1.5 times as long. {text}",
    }
    quiet = {"name": "KL", **row, "level": "quiet", "words": "The policy is near.", "samples": []}
    said = {"name": "length", **row, "level": level, "samples": [] if level == "quiet" else [sample], **more}
    fell = {"iteration": 2, "name": "flattery", **row, "level": "alarm", "samples": [sample], "action": "KL is dearer"}
    rose = [{"iteration": 5, **said, "action": "none"}] if level == "alarm" else []
    (folder / "alarms.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (fell, *rose)))
    (folder / "monitors.json").write_text(json.dumps({"schema": 1, "iteration": 7, "verdicts": [quiet, said]}))


@pytest.mark.parametrize("width", [1280, 390])
def test_monitors_are_shown_with_verdict_and_words_and_renewed(browser: Any, site: Watching, width: int) -> None:
    folder = write_run(site.root / "a", more={"monitors/alarms": 0.0, "monitors/length": 50.0})
    write_run(site.root / "b")
    page = opened(browser, site, width=width)
    drawn(page)
    page.get_by_text("None on disk: PPO and GRPO have monitors").wait_for()
    write_monitors(folder, "quiet")
    page.get_by_text("Round 7: no alarm, 2 quiet.").wait_for()
    row = page.get_by_role("row", name="flattery")
    assert "past alarm" in row.inner_text() and "in round 2, not in the last one" in row.inner_text() and "KL is dearer" in row.inner_text()
    assert not page.get_by_text("The policy is near.").is_visible()
    page.get_by_text("Quiet (2)").click()
    assert page.get_by_text("The policy is near.").is_visible()
    write_monitors(folder, "alarm")
    page.get_by_text("Round 7: 1 alarm, 1 quiet.").wait_for()
    assert page.get_by_text("The policy is near.").is_visible()  # what was unfolded stays so
    row = page.get_by_role("row", name="length: longer answers")
    assert row.get_by_role("cell").all_inner_texts()[:3] == ["alarm", "61.5", "60"] and "since round 5" in row.inner_text()
    row.get_by_text("Answers that show it (1)").click()
    assert row.get_by_text("great great great", exact=True).is_visible() and row.get_by_text("reward 2 · to: What is a noun?").is_visible()
    assert page.locator('#curves details[data-title="Monitors"] .chart').count() == 2
    page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    check_readable(page)
    if folder_of_pictures := os.environ.get("ACCORD_PICTURES"):
        page.screenshot(path=f"{folder_of_pictures}/monitors-{width}.png", full_page=True)
    drawn(page, "/runs/show?run=b")
    page.get_by_text("None on disk: PPO and GRPO have monitors").wait_for()
    check_quiet(page, site.address)


@pytest.mark.parametrize("width", [1280, 390])
def test_for_screen_readers_keyboards_and_phones(browser: Any, site: Watching, width: int) -> None:
    folder = write_run(
        site.root / "demo-rlhf" / "ppo", range(1, 40), {"eval_loss": 1.0, "val/ratio": 1.0}, parents=[{"adapter": "sft", "run": "runs/sft"}]
    )
    write_run(site.root / "sft", finished=True)
    (folder / "rollouts.jsonl").write_text(
        "".join(rollout(f"Question {k}?", step, f"Answer {k} of round {step}") for step in (0, 5) for k in range(4))
    )
    (site.root / "labels").mkdir()
    (site.root / "labels" / "project.yaml").write_text("name: labels")
    page = opened(browser, site, width=width)
    page.wait_for_selector("td .state.running")
    check_readable(page)
    for path in ("/runs/show?run=demo-rlhf/ppo", "/runs/compare?run=demo-rlhf/ppo&run=sft"):
        drawn(page, path)
        page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
        check_readable(page)
        charts = page.locator("svg.curve").evaluate_all(
            "all => all.map((one) => [one.getAttribute('role'), one.getAttribute('aria-label')])"
        )
        assert charts and all(role == "img" and label for role, label in charts)
        assert page.locator(".chart table").count() == len(charts)  # the numbers for whoever does not see the curve
        boxes = [page.locator(f'.chart[aria-label="{name}"]').bounding_box() for name in ("reward of the round", "mean answer, tokens")]
        assert (boxes[0]["y"] == boxes[1]["y"]) == (width == 1280)  # side by side where there is room
        assert (
            "0.0001" in page.locator('.chart[aria-label="learning_rate"] svg.curve').first.text_content()
        )  # an axis of a flat line's own size
    page.goto(f"{site.address}/projects/show?project=labels")
    check_readable(page)
    page.goto(f"{site.address}/runs")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    page.get_by_role("link", name="demo-rlhf/ppo").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/show?run=demo-rlhf/ppo")
    check_quiet(page, site.address)
