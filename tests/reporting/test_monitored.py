"""What the monitors of a run said, from files that another process writes: the last round, alarms that rose before, and nonsense."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from accord.methods import guard
from accord.reporting import monitored as module
from accord.reporting.following import Follower
from accord.reporting.monitored import MOST, monitored
from accord.reporting.runs import Runs
from live_watch import write_run


def row(name: str, level: str, **more: Any) -> dict[str, Any]:
    made = {"name": name, "cause": f"{name} cause", "value": 1.5, "baseline": 1.0, "z": 2.0, "threshold": 2.5, "level": level}
    return {**made, "words": f"{name} is {level}.", "samples": [], **more}


def write(folder: Path, verdicts: list[Any], alarms: list[Any] = [], iteration: int = 7) -> None:  # noqa: B006
    (folder / "monitors.json").write_text(json.dumps({"schema": 1, "iteration": iteration, "verdicts": verdicts}))
    (folder / "alarms.jsonl").write_text("".join(json.dumps(one) + "\n" for one in alarms))


def test_the_files_are_those_that_the_guard_writes() -> None:
    assert (module.MONITORS, module.ALARMS) == (guard.VERDICTS, guard.ALARMS)


def test_the_last_round_alarms_first_and_alarms_that_fell(tmp_path: Path) -> None:
    sample = {"prompt": "Q?", "text": "great great great", "reward": 2.0, "finished": True}
    alarms = [
        {"iteration": 3, **row("flattery", "alarm"), "action": "none"},
        {"iteration": 4, **row("length", "alarm"), "action": "raised"},
        {"iteration": 6, **row("length", "alarm", samples=[sample]), "action": "KL dearer"},
    ]
    write(tmp_path, [row("ends", "quiet"), row("KL", "watch"), row("length", "alarm", samples=[sample] * 9)], alarms)
    found = monitored(tmp_path)
    assert [(one.name, one.level) for one in found.now] == [("length", "alarm"), ("KL", "watch"), ("ends", "quiet")]
    length = found.now[0]
    assert (length.round, length.action, length.value, length.limit, length.words) == (6, "KL dearer", 1.5, 2.5, "length is alarm.")
    assert len(length.samples) == 3 and length.samples[0].text == "great great great" and length.samples[0].reward == 2.0
    assert found.now[1].round == found.round == 7
    assert [(one.name, one.round, one.action) for one in found.before] == [("flattery", 3, "")] and found.unreadable == 0


def test_nothing_where_nothing_was_written(tmp_path: Path) -> None:
    assert monitored(tmp_path) == monitored(tmp_path / "nowhere") == module.Monitored()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"verdicts": 3}', '{"verdicts": {"a": 1}}', '{"iteration": "x", "verdicts": []}']
)
def test_a_damaged_file_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "monitors.json").write_text(content)
    assert monitored(tmp_path).now == ()


def test_rows_that_are_none_are_counted_and_what_is_odd_in_others_is_left_out(tmp_path: Path) -> None:
    odd = row(
        "KL",
        "watch",
        value="x",
        threshold=float("nan"),
        words=3,
        cause=None,
        samples=[1, {"prompt": 2, "text": "t" * 5000, "reward": True}],
    )
    write(tmp_path, [3, None, row("x", "loud"), {"level": "quiet"}, odd], ["text"])
    found = monitored(tmp_path)
    (only,) = found.now
    assert found.unreadable == 5 and (only.value, only.limit, only.words, only.cause) == (None, None, "", "")
    assert only.samples[0].prompt == "" and only.samples[0].text.endswith("(3000 more characters)") and only.samples[0].reward is None


def test_no_more_than_can_be_shown_and_no_link(tmp_path: Path) -> None:
    write(tmp_path, [row(f"m{number}", "quiet") for number in range(500)])
    assert len(monitored(tmp_path).now) == MOST
    (tmp_path / "run").mkdir()
    os.symlink(tmp_path / "monitors.json", tmp_path / "run" / "monitors.json")
    assert monitored(tmp_path / "run").now == ()


def test_new_verdicts_are_told(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    follower = Follower(Runs(tmp_path, fresh_seconds=0.0), ["a"])
    assert "monitors" not in [event.name for event in follower.poll()]
    write(folder, [row("KL", "quiet")])
    assert [event.name for event in follower.poll()] == ["monitors"]
    assert follower.poll() == []
