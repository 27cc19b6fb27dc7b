"""Stages are skipped when nothing changed, go on where they stopped, and are done again when asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from accord.recipes.stages import RECORD, Stages, peak_rss_gb


class Work:
    """A stage that counts its calls and remembers what it was told; it breaks off when asked."""

    def __init__(self) -> None:
        self.resumed: list[bool] = []
        self.breaks = False

    def __call__(self, folder: Path, resume: bool) -> dict[str, Any]:
        self.resumed.append(resume)
        kept = folder / "half.txt"
        found = kept.read_text(encoding="utf-8") if kept.exists() else ""
        kept.write_text(found + "x", encoding="utf-8")
        if self.breaks:
            raise KeyboardInterrupt
        return {"parts": found + "x"}


def test_skips_what_has_not_changed(tmp_path: Path) -> None:
    work, said = Work(), []
    assert Stages(tmp_path, said.append).run("one", {"rows": 3}, work, planned_seconds=9) == {"parts": "x"}
    assert said[-1].startswith("one: 0 s (plan 9 s), peak memory")
    again = Stages(tmp_path, said.append)
    assert again.run("one", {"rows": 3}, work, planned_seconds=5) == {"parts": "x"}
    assert work.resumed == [False] and "skipped" in said[-1]
    assert again.records[0]["skipped"] is True and again.records[0]["planned_seconds"] == 5


def test_other_inputs_start_from_nothing(tmp_path: Path) -> None:
    work = Work()
    for inputs in ({"rows": 3}, {"rows": 4}):
        assert Stages(tmp_path, print).run("one", inputs, work) == {"parts": "x"}  # the first one's file is gone
    assert work.resumed == [False, False]


def test_force_does_it_again(tmp_path: Path) -> None:
    work = Work()
    for force in (False, True):
        assert Stages(tmp_path, print, force=force).run("one", {}, work) == {"parts": "x"}
    assert work.resumed == [False, False]


@pytest.mark.parametrize(("then", "parts", "resumed"), [({"rows": 3}, "xx", True), ({"rows": 4}, "x", False)])
def test_a_stage_that_broke_off_goes_on_with_the_same_inputs_alone(tmp_path: Path, then: Any, parts: str, resumed: bool) -> None:
    work = Work()
    work.breaks = True
    with pytest.raises(KeyboardInterrupt):
        Stages(tmp_path, print).run("one", {"rows": 3}, work)
    work.breaks = False
    assert Stages(tmp_path, print).run("one", then, work) == {"parts": parts}
    assert work.resumed == [False, resumed]


def test_a_damaged_record_means_do_it_again(tmp_path: Path) -> None:
    work = Work()
    Stages(tmp_path, print).run("one", {}, work)
    (tmp_path / "one" / RECORD).write_text('{"key": "ha', encoding="utf-8")
    assert Stages(tmp_path, print).run("one", {}, work) == {"parts": "x"} and len(work.resumed) == 2


def test_the_record_on_disk_is_what_was_returned(tmp_path: Path) -> None:
    stages = Stages(tmp_path, print)
    stages.run("one", {}, Work())
    record = json.loads((tmp_path / "one" / RECORD).read_text(encoding="utf-8"))
    assert record["done"] is True and record["result"] == {"parts": "x"}
    assert 0 < record["peak_rss_gb"] <= peak_rss_gb()
    assert not list((tmp_path / "one").glob(".*"))


def test_seconds_before_an_interruption_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds until Ctrl-C, ten more until the next, ten to the end: the stage took thirty."""
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("accord.recipes.stages.time.perf_counter", lambda: float(next(clock)))
    work = Work()
    work.breaks = True
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            Stages(tmp_path, print).run("one", {}, work)
    work.breaks = False
    stages = Stages(tmp_path, print)
    stages.run("one", {}, work)
    assert stages.records[0]["seconds"] == 30.0
