"""Runs below a folder: found and no more than that, judged by their files, followed while they are written."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from accord.errors import DataError
from accord.reporting.curves import Row
from accord.reporting.following import Event, Follower, places
from accord.reporting.run_files import CHUNK, Position
from accord.reporting.runs import (
    DEEPEST,
    PATIENCE,
    Runs,
    differences,
    duration,
    find,
    folder_of,
    lineage_of,
    model_of,
    parents_of,
    project_seen,
    settings_of,
    standing,
)
from accord.reporting.sampled_answers import LONGEST_ANSWER, answer_of, sampled
from accord.types import Message, Rollout, Score, to_json

RECORD: dict[str, Any] = {
    "method": "ppo",
    "base": "/cache/models/stories260k",
    "config": {"max_steps": -1, "logging_steps": 1, "kl_coef": 0.05, "output_dir": "runs/a", "eval_steps": None},
    "seed": 42,
    "finished": False,
    "metrics": {},
    "steps": 0,
    "total_steps": 48,
}


def write_run(folder: Path, rows: int = 3, **record: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({**RECORD, **record}), encoding="utf-8")
    text = "".join(json.dumps({"step": step, "objective/scores": step / 10, "step_seconds": 2.0}) + "\n" for step in range(1, rows + 1))
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    return folder


def age(folder: Path, seconds: float) -> None:
    """As if all of it had been written so long ago."""
    then = time.time() - seconds
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then, then))


# -- which there are ----------------------------------------------------------------------------------------------------------------------


def test_runs_and_projects_below_a_folder(tmp_path: Path) -> None:
    write_run(tmp_path / "b")
    write_run(tmp_path / "demo" / "ppo" / "checkpoint-4")
    write_run(tmp_path / "demo" / "ppo")
    write_run(tmp_path / ".hidden")
    (tmp_path / "labels" / "rounds").mkdir(parents=True)
    (tmp_path / "labels" / "project.yaml").write_text("name: x")
    write_run(tmp_path / "labels" / "rounds" / "0")
    write_run(tmp_path.joinpath(*"12345678"[: DEEPEST + 1]))
    found = find(tmp_path)
    assert (found.runs, found.projects, found.left_out, found.more) == (("b", "demo/ppo"), ("labels",), 0, False)
    assert find(tmp_path / "b").runs == (".",) and find(tmp_path / "nothing").left_out == 1


@pytest.mark.skipif("sys.platform == 'win32'", reason="links and names of bytes are others there")
def test_no_link_is_followed_and_no_name_that_is_no_text(tmp_path: Path) -> None:
    outside = write_run(tmp_path / "outside")
    root = tmp_path / "runs"
    write_run(root / "a")
    (root / "last").symlink_to("a")
    (root / "away").symlink_to(outside)
    (root / "linked").mkdir()
    (root / "linked" / "run.json").symlink_to(outside / "run.json")
    os.mkdir(os.fsencode(root) + b"/\xff")
    found = find(root)
    assert (found.runs, found.left_out) == (("a",), 1)
    for name in ("last", "away", "linked", "away/checkpoint"):
        with pytest.raises(DataError, match="There is no run"):
            folder_of(root, name)


@pytest.mark.parametrize(
    "name", ["..", "../outside", "a/..", "a/../../outside", "/etc", "//a", "a//", "./a", "a/.", "", "a\0", "x" * 300, "nothing", "\ud800", "..\\outside", "C:\\", "a/b/c/d/e/f/g"]
)  # fmt: skip
def test_names_lead_nowhere_but_down(tmp_path: Path, name: str) -> None:
    write_run(tmp_path / "outside")
    write_run(tmp_path / "runs" / "a")
    assert folder_of(tmp_path / "runs", "a") == (tmp_path / "runs" / "a").resolve()
    with pytest.raises(DataError, match="There is no run of that name"):
        folder_of(tmp_path / "runs", name)


def test_a_project_is_looked_at_from_outside(tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    for number, rows in ((0, 40), (2, 7)):
        (labels / "rounds" / str(number)).mkdir(parents=True)
        (labels / "rounds" / str(number) / "snapshot.json").write_text(json.dumps({"rows": rows}))
    (labels / "rounds" / "1").mkdir()
    (labels / "project.yaml").write_text("database: postgresql://me:secret@host/name")
    before = sorted(path.name for path in labels.rglob("*"))
    seen = project_seen(tmp_path, "labels")
    assert seen.rounds == ((0, 40), (2, 7)) and "secret" not in str(seen)
    assert sorted(path.name for path in labels.rglob("*")) == before
    with pytest.raises(DataError, match="no label project"):
        project_seen(tmp_path, "labels/rounds")


# -- how they stand -----------------------------------------------------------------------------------------------------------------------


def test_a_run_is_judged_by_its_record_and_by_when_it_was_written(tmp_path: Path) -> None:
    folder, now, row = write_run(tmp_path / "a"), time.time(), Row(3.0, {"step_seconds": 2.0})
    assert standing(folder, RECORD, row, now).state == "running"
    assert standing(folder, {**RECORD, "finished": True}, row, now).state == "finished"
    ended = standing(folder, {**RECORD, "metrics": {"loss": 1.0}}, row, now)
    assert ended.state == "finished" and "not saved" in ended.why
    age(folder, PATIENCE + 60)
    stopped = standing(folder, RECORD, row, now)
    assert stopped.state == "stopped" and "3 minutes" in stopped.why and abs(stopped.written - (now - PATIENCE - 60)) < 1
    assert standing(folder, {**RECORD, "finished": True}, row, now).state == "finished"


def test_slow_steps_and_rare_lines_are_waited_for(tmp_path: Path) -> None:
    """A step of 60 s, logged each 5 steps: lines are 300 s apart, so 240 s of silence mean nothing and 3,100 s do."""
    folder, record, row = write_run(tmp_path / "a"), {**RECORD, "config": {"logging_steps": 5}}, Row(3.0, {"step_seconds": 60.0})
    for quiet, state in ((240, "running"), (2900, "running"), (3100, "stopped")):
        age(folder, quiet)
        assert standing(folder, record, row, time.time()).state == state
    age(folder, 600)
    assert standing(folder, record, None, time.time()).state == "running"  # sampling its first round
    age(folder, 1000)
    assert standing(folder, record, None, time.time()).state == "stopped"


def test_a_clock_that_is_behind_is_no_reason(tmp_path: Path) -> None:
    assert standing(write_run(tmp_path / "a"), RECORD, None, time.time() - 5000).state == "running"


def test_the_list_has_the_newest_numbers_and_sees_what_changes(tmp_path: Path) -> None:
    write_run(tmp_path / "old", rows=1, finished=True, base="C:\\models\\smollm2-135m")
    age(tmp_path / "old", 1000)
    new = write_run(tmp_path / "new")
    runs = Runs(tmp_path, fresh_seconds=0)
    first, second = runs.listed()
    assert (first.name, first.method, first.model, first.step, first.total) == ("new", "ppo", "stories260k", 3.0, 48.0)
    assert first.numbers == {"reward": 0.3, "kl": None, "length": None, "loss": None}
    assert (second.name, second.model, second.standing.state) == ("old", "smollm2-135m", "finished")
    with open(new / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 4, "objective/scores": 0.9, "objective/kl": 1.5}) + "\n")
    assert (runs.summary("new").step, runs.summary("new").numbers["kl"], runs.summary("new").numbers["reward"]) == (4.0, 1.5, 0.9)
    shutil.rmtree(new)
    assert [one.name for one in runs.listed()] == ["old"]
    with pytest.raises(DataError):
        runs.summary("new")


NONSENSE: list[Any] = [None, 1, "x", [1], {"a": {"b": [None]}}, [[["x"]]], {"hash": 3, "rows": "many"}, True, 10**400]


@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: str(value)[:20])
@pytest.mark.parametrize("field", ["method", "base", "config", "data", "versions", "adapters", "parents", "seed", "skipped_checks", "metrics", "steps", "total_steps", "finished"])  # fmt: skip
def test_a_record_may_say_anything(tmp_path: Path, field: str, value: Any) -> None:
    write_run(tmp_path / "a", **{field: value})
    runs = Runs(tmp_path)
    record, _ = runs.read("a")
    json.dumps(runs.summary("a").to_json(), allow_nan=False)
    assert runs.summary("a").standing.state in ("running", "finished")
    for words in (*settings_of(record).values(), *dict(lineage_of(record, record)).values(), *dict(parents_of(tmp_path, record))):
        assert isinstance(words, str)
    assert differences([record, record]) == ([], differences([record, record])[1])


def test_a_run_without_a_record(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    (tmp_path / "a" / "run.json").write_text("{")
    runs = Runs(tmp_path)
    assert runs.read("a")[0] == {} and (runs.summary("a").method, runs.summary("a").step) == ("", 3.0)


def test_parents_that_lie_here_are_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "runs"
    write_run(root / "sft")
    write_run(tmp_path / "elsewhere")
    said = ["runs/sft", str(root / "sft"), "runs/gone", str(tmp_path / "elsewhere"), "../elsewhere", "\0", 3]
    record = {"parents": [{"adapter": "x", "run": one} for one in said]}
    expected = [(said[0], "sft"), (said[1], "sft"), (said[2], None), (said[3], None), (said[4], None), ("\0", None)]
    assert parents_of(root, record) == expected
    monkeypatch.chdir(tmp_path)
    assert parents_of(Path("runs"), record)[0] == ("runs/sft", "sft")


def test_differences_of_settings() -> None:
    one = {**RECORD, "versions": {"torch": "2.6"}, "data": {"prompts": {"rows": 10, "hash": "ab" * 20}}}
    other = {**one, "config": {**RECORD["config"], "kl_coef": 0.1, "output_dir": "runs/b"}, "method": "grpo", "data": {}}
    different, shared = differences([one, other])
    data = "10 rows, content hash abababababababab"
    assert different == [("method", ["ppo", "grpo"]), ("data: prompts", [data, ""]), ("kl_coef", ["0.05", "0.1"])]
    assert shared == 5  # model, seed, versions, max_steps, logging_steps


def test_words() -> None:
    assert [duration(seconds) for seconds in (0, 119, 120, 7200, 200_000)] == ["0 seconds", "119 seconds", "2 minutes", "2 hours", "2 days"]
    named = {"a/b": "b", "a/b/": "b", "C:\\x\\y": "y", "": "", "/c/models/stories260k-b0a507e7ad0f-v1": "stories260k"}
    named["/h/models--Org--Name-1B/snapshots/0123456789abcdef"] = "Org/Name-1B"
    assert {base: model_of({"base": base}) for base in named} == named and model_of({"base": 3}) == ""
    lineage = dict(lineage_of(RECORD, {"done": True, "seconds": 200, "peak_rss_gb": 1.25}))
    assert lineage == {"model": "stories260k", "seed": "42", "stage": "took 3 minutes, peak memory 1.2 GB"}


# -- answers ------------------------------------------------------------------------------------------------------------------------------


def rollout(prompt: str, step: int, text: str, **changes: Any) -> str:
    values: dict[str, Any] = {"score": Score(0.5, {"brief": 0.25}), "finish_reason": "stop", "policy_step": step, **changes}
    found = Rollout(prompt, (Message("user", prompt),), (1,), (4, 5, 6), text, (0.0, 0.0, 0.0), **values)
    return json.dumps(to_json(found)) + "\n"


def test_answers_at_the_start_and_now_meet_at_their_prompts(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    rounds = [["p0", "p1", "p2"], ["p3", "p4", "p5"], ["p6", "p2", "p0"]]
    path.write_text(
        "".join(rollout(p, step, f"{p} {step} {k}", sample_index=k) for step, names in enumerate(rounds) for p in names for k in (0, 1))
    )
    found = sampled(path, prompts=3)
    assert [answer.text for answer in found.start] == ["p2 0 0", "p0 0 0", "p1 0 0"]
    assert [answer.text for answer in found.now] == ["p2 2 0", "p0 2 0", "p6 2 0"]
    one = found.now[0]
    assert (one.round, one.score, one.parts, one.tokens, one.finished, one.prompt) == (
        3,
        0.5,
        {"brief": 0.25},
        3,
        True,
        (Message("user", "p2"),),
    )
    assert sampled(tmp_path / "nothing") == sampled(tmp_path)


def test_answers_that_failed_are_long_or_are_none(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    path.write_text(
        rollout("p", 0, "x" * (LONGEST_ANSWER + 5), score=Score(None, error="no number"), finish_reason="length")
        + 'nonsense\n{"text": "no prompt"}\n'
        + rollout("q", 0, "half \ud800").replace('"user"', '"<script>"')
        + rollout("p", 1, "later")
        + '{"half'
    )
    found = sampled(path)
    assert found.unreadable == 3
    assert [(one.cut, len(one.text), one.score, one.error, one.finished) for one in found.start] == [
        (5, LONGEST_ANSWER, None, "no number", False)
    ]
    assert [one.text for one in found.now] == ["later"]
    assert answer_of(rollout("q", 0, "half \ud800").encode()).text == "half ?"  # type: ignore[union-attr]


# -- following ----------------------------------------------------------------------------------------------------------------------------


def polled(follower: Follower) -> dict[str, Any]:
    return {event.name: event.data for event in follower.poll()}


def test_following_says_what_is_new_once(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", rows=2)
    follower = Follower(Runs(tmp_path, fresh_seconds=0), ["a"])
    first = follower.poll()
    assert [event.name for event in first] == ["rows", "state"]
    assert [row["step"] for row in first[0].data["rows"]] == [1.0, 2.0] and first[1].data["state"] == "running"
    assert follower.poll() == []
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "loss": NaN}\n{"step": 4, "lo')
    (folder / "rollouts.jsonl").write_text("")
    found = polled(follower)
    assert (
        found["rows"] == {"run": 0, "rows": [{"step": 3.0, "values": {"loss": None}}]}
        and found["state"]["step"] == 3.0
        and "samples" in found
    )
    assert polled(follower) == {}
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('ss": 0.5}\n')
    # A watcher that comes back goes on where it was.
    again = Follower(Runs(tmp_path), ["a"], places(follower.place, 1))
    assert polled(again)["rows"]["rows"] == [{"step": 4.0, "values": {"loss": 0.5}}] == polled(follower)["rows"]["rows"]
    write_run(folder, finished=True)
    assert polled(follower)["again"] == {"run": 0} and follower.over


def test_a_run_that_is_deleted_is_gone_and_the_others_go_on(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b")
    follower = Follower(Runs(tmp_path, fresh_seconds=0), ["a", "b"])
    follower.poll()
    shutil.rmtree(tmp_path / "a")
    assert follower.poll() == [Event("gone", {"run": 0})] and not follower.over
    shutil.rmtree(tmp_path / "b")
    assert follower.poll() == [Event("gone", {"run": 1})] and follower.over and follower.poll() == []


def test_a_watcher_far_behind_reads_the_curves_again(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    row = json.dumps({"step": 4, "text": "x" * 1000}) + "\n"
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(row * (CHUNK // len(row) + 10))
    follower, names = Follower(Runs(tmp_path), ["a"]), []
    while not follower.over and len(names) < 5:  # a little over one chunk: two looks, though nothing changes in between
        found = polled(follower)
        if not found.get("rows"):
            break
        names.append(len(found["rows"]["rows"]))
    assert len(names) == 2 and sum(names) == 3 + CHUNK // len(row) + 10
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(row * (2 * CHUNK // len(row) + 20))
    assert "again" in polled(Follower(Runs(tmp_path), ["a"]))


@pytest.mark.parametrize("text", ["", ",", "x,y", "1-ab", "1-ab,2-cd,3-ef", "9" * 5000])
def test_places_of_anything(text: str) -> None:
    assert len(places(text, 2)) == 2 and all(isinstance(one, Position) for one in places(text, 2))


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read_is_counted(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    folder.chmod(0)
    try:
        assert (find(tmp_path).runs, find(tmp_path).left_out) == ((), 1)
    finally:
        folder.chmod(0o700)
