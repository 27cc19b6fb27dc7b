"""metrics.jsonl while it grows, is cut off, is written anew, or is not what it should be; and curves that stay small and say no untruth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.reporting.curves import BUCKETS, MOST_NAMES, Curve, Curves, Row, group_of, headline, newest, row_of
from accord.reporting.run_files import Position, lines_after, open_ordinary, read_object


def line(step: int, **values: Any) -> str:
    return json.dumps({"step": step, **values}) + "\n"


def append(path: Path, text: str) -> None:
    with open(path, "a", encoding="utf-8", newline="") as file:
        file.write(text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def curve_of(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for group in found["groups"] for chart in group["charts"] for one in chart["lines"] if one["name"] == name)


# -- whole lines, and files that are others than before -------------------------------------------------------------------------------


def test_a_line_that_is_not_ended_waits_for_its_end(path: Path) -> None:
    path.write_text('{"step": 1}\n{"st')
    first = lines_after(path, Position())
    assert first is not None and (first.lines, first.rewritten, first.left) == ([b'{"step": 1}'], False, 4)
    again = lines_after(path, first.position)
    assert again is not None and again.lines == [] and again.position == first.position
    append(path, 'ep": 2}\n')
    second = lines_after(path, Position.of(str(again.position)))
    assert second is not None and (second.lines, second.left) == ([b'{"step": 2}'], 0)


@pytest.mark.parametrize("kept", [0, 1, 3], ids=["emptied", "shorter", "as long"])
@pytest.mark.parametrize("then", [0, 1, 50], ids=["nothing after", "one after", "longer than before"])
def test_a_file_written_anew_is_read_anew(path: Path, kept: int, then: int) -> None:
    """What a resumed run does: the rows up to its checkpoint, then rows with other times."""
    old = [line(step, step_seconds=step / 7) for step in range(4)]
    path.write_text("".join(old))
    before = lines_after(path, Position())
    assert before is not None
    new = old[:kept] + [line(step, step_seconds=step / 3) for step in range(kept, kept + then + 1)][: then + (kept == 3)]
    partial = path.with_name("partial")
    partial.write_text("".join(new))
    os.replace(partial, path)
    found = lines_after(path, before.position)
    assert found is not None and found.rewritten and found.lines == [text.rstrip("\n").encode() for text in new]


def test_a_file_written_anew_as_it_was_goes_on(path: Path) -> None:
    path.write_text(line(1) + line(2))
    before = lines_after(path, Position())
    partial = path.with_name("partial")
    partial.write_text(line(1) + line(2))
    os.replace(partial, path)
    append(path, line(3))
    found = lines_after(path, before.position if before else Position())
    assert found is not None and not found.rewritten and found.lines == [b'{"step": 3}']


def test_a_line_longer_than_may_be_is_passed_over(path: Path) -> None:
    path.write_text("x" * 250 + "\n" + line(1))
    position, lines = Position(), []
    while (found := lines_after(path, position, limit=100)) and found.lines:
        position, lines = found.position, [*lines, *found.lines]
    assert lines[-1] == b'{"step": 1}' and position.offset == path.stat().st_size
    assert sum(row_of(one) is not None for one in lines) == 1


@pytest.mark.parametrize("text", ["", "x", "-", "12", "12-", "-5-ab", "1e3-ab", "9" * 30 + "-ab", "\u0661-ab", "3-ab-cd"])
def test_what_is_no_position_reads_from_the_start(path: Path, text: str) -> None:
    path.write_text(line(1))
    found = lines_after(path, Position.of(text))
    assert found is not None and found.lines == [b'{"step": 1}']


@pytest.mark.skipif("sys.platform == 'win32'", reason="links and pipes are others there")
def test_links_pipes_and_folders_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('{"step": 1}\n')
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "folder", "pipe", "nothing", "a" * 300, "nul\0"):
        assert open_ordinary(tmp_path / name) is None and lines_after(tmp_path / name, Position()) is None, name
        assert newest(tmp_path / name) is None and read_object(tmp_path / name) is None


def test_an_object_too_large_or_too_deep_is_none(path: Path) -> None:
    path.write_text('{"a": "' + "x" * 100 + '"}')
    assert read_object(path, limit=50) is None and read_object(path) == {"a": "x" * 100}
    path.write_text('{"a": ' * 100_000)
    assert read_object(path) is None
    path.write_text('{"a": [NaN, "\\ud800", {"\\ud800": 1e999}]}')
    assert json.dumps(read_object(path), allow_nan=False).encode() and read_object(path) == {"a": [None, "?", {"?": None}]}


# -- rows ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"step": 3, "loss": 0.5}', Row(3.0, {"loss": 0.5})),
        ('{"step": 3, "loss": NaN, "kl": -Infinity, "big": 1%s}' % ("0" * 400), Row(3.0, {"loss": None, "kl": None, "big": None})),
        ('{"step": 3, "ok": true, "text": "x", "list": [1], "none": null}', Row(3.0, {})),
        ('{"step": 3, "\\ud800": 1}', Row(3.0, {"?": 1.0})),
        ('{"step": 3, "%s": 1}' % ("n" * 121), Row(3.0, {})),
        ('{"loss": 0.5}', None),
        ('{"step": NaN}', None),
        ('{"step": "3"}', None),
        ("[1, 2]", None),
        ('{"step": 3', None),
        ("", None),
        ("9" * 5000, None),
        ("[" * 100_000, None),
    ],
)
def test_rows(text: str, expected: Row | None) -> None:
    assert row_of(text.encode()) == expected


def test_bytes_that_are_no_text_are_no_row() -> None:
    assert row_of(b'{"step": 1, "\xff": 2}') is None and row_of(b"\x00\x01") is None


def test_the_newest_of_each_name(path: Path) -> None:
    """An evaluation and a round log other names than a step: each name's newest counts."""
    rows = [line(1, loss=3.0), line(2, loss=2.0, **{"objective/kl": 0.5}), line(3, eval_loss=1.5), line(4, loss=1.0)]
    path.write_text("".join(rows) + '{"step": 5, "loss"')
    assert newest(path) == Row(4.0, {"loss": 1.0, "eval_loss": 1.5, "objective/kl": 0.5})
    assert newest(path, limit=len(rows[3]) + len('{"step": 5, "loss"') + 1) == Row(4.0, {"loss": 1.0})
    assert headline({"objective/kl": 0.5, "loss": 1.0, "reward": 2.0}) == {"reward": 2.0, "kl": 0.5, "length": None, "loss": 1.0}


# -- curves -------------------------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(count=st.integers(0, 6 * BUCKETS), seed=st.integers(0, 9))
def test_a_thinned_curve_is_short_and_keeps_extremes(count: int, seed: int) -> None:
    curve = Curve()
    values = [float((step * 7919 + seed) % 1009) for step in range(count)]
    for step, value in enumerate(values):
        curve.add(float(step), value)
    points = curve.points()
    assert len(points) <= 2 * BUCKETS and points == sorted(points)
    assert set(points) <= {(float(step), value) for step, value in enumerate(values)}
    if count <= 2 * BUCKETS:
        assert len(points) == count
    if count:
        kept = [value for _, value in points]
        assert (min(kept), max(kept)) == (min(values), max(values))
        found = curve.to_json()
        assert (found["low"], found["high"], found["last"], found["at"]) == (min(values), max(values), values[-1], count - 1.0)
        # No stretch of the run is left out: neighbours are never further apart than two buckets.
        widest = 2 * max(1, count // (BUCKETS // 2))
        assert all(later - earlier <= widest for (earlier, _), (later, _) in zip(points, points[1:], strict=False))


@settings(deadline=None, max_examples=40)
@given(cuts=st.lists(st.integers(1, 400), max_size=8))
def test_reading_as_it_grows_equals_reading_at_once(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    path = tmp_path_factory.mktemp("grows") / "metrics.jsonl"
    text = "".join(line(step, loss=1 / (step + 1), **({"eval_loss": 2.0} if step % 5 == 0 else {})) for step in range(60))
    growing = Curves(path)
    done = 0
    for cut in cuts:
        append(path, text[done : done + cut])
        done += cut
        growing.update()
    append(path, text[done:])
    growing.update()
    at_once = Curves(path)
    at_once.update()
    assert growing.to_json() == at_once.to_json() and growing.rows == 60 and growing.unreadable == 0


def test_a_resumed_run_is_drawn_once(path: Path) -> None:
    curves = Curves(path)
    path.write_text("".join(line(step, loss=float(step)) for step in range(10)))
    curves.update()
    path.write_text("".join(line(step, loss=float(step)) for step in range(5)) + line(5, loss=50.0))
    curves.update()
    found = curve_of(curves.to_json(), "loss")
    assert found["points"] == [(0.0, 0.0), (1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (4.0, 4.0), (5.0, 50.0)] and found["count"] == 6
    path.unlink()
    curves.update()
    assert curves.to_json()["groups"] == []


def test_what_is_not_finite_is_counted_and_never_sent(path: Path) -> None:
    path.write_text('{"step": 1, "loss": NaN}\n{"step": 2, "loss": 0.5}\n{"step": 3, "loss": Infinity}\nnonsense\n')
    curves = Curves(path)
    curves.update()
    found = curves.to_json()
    loss = curve_of(found, "loss")
    assert (loss["points"], loss["not_finite"], loss["last"], loss["at"]) == ([(2.0, 0.5)], 2, 0.5, 2.0)
    assert (found["rows"], found["unreadable"]) == (3, 1) and json.dumps(found, allow_nan=False)


def test_more_names_than_can_be_shown_are_said(path: Path) -> None:
    path.write_text(json.dumps({"step": 1, **{f"name {number}": number for number in range(MOST_NAMES + 40)}}) + "\n")
    curves = Curves(path)
    curves.update()
    assert len(curves.curves) == MOST_NAMES and curves.to_json()["left_out"] == 40


def test_charts_stand_under_their_headings(path: Path) -> None:
    names = ["objective/kl", "objective/scores", "eval_objective/scores", "completions/mean_length", "loss", "eval_loss", "learning_rate"]
    path.write_text(json.dumps({"step": 1, **dict.fromkeys(names, 1.0)}) + "\n")
    curves = Curves(path)
    curves.update()
    found = [
        (group["title"], [[one["name"] for one in chart["lines"]] for chart in group["charts"]]) for group in curves.to_json()["groups"]
    ]
    assert found == [
        ("Reward", [["objective/scores", "eval_objective/scores"]]),
        ("KL", [["objective/kl"]]),
        ("Answer length", [["completions/mean_length"]]),
        ("Loss", [["loss", "eval_loss"]]),
        ("Other", [["learning_rate"]]),
    ]
    assert group_of("rewards/<b>/mean") == "Reward" and group_of("a\nb") == "Other" and group_of("rewards/accuracies") == "Reward"


@pytest.mark.slow
@pytest.mark.skipif("sys.platform == 'win32'", reason="peak memory is read from /proc or getrusage")
def test_a_hundred_megabytes_in_little_memory(path: Path) -> None:
    """Peak memory of a process of its own that reads 100 MB: chunks and thinned curves, never the file."""
    with open(path, "w", encoding="utf-8") as file:
        for block in range(400):
            file.write("".join(line(block * 1000 + step, loss=step / 7, filler=["x" * 200]) for step in range(1000)))
    assert path.stat().st_size > 100e6
    script = (
        "import sys, json, resource\nfrom pathlib import Path\nfrom accord.reporting.curves import Curves\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\ncurves = Curves(Path(sys.argv[1]))\ncurves.update()\nfound = curves.to_json()\n"
        "print(json.dumps([curves.rows, len(found['groups'][0]['charts'][0]['lines'][0]['points']), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    rows, points, grown = json.loads(done.stdout)
    assert rows == 400_000 and 500 <= points <= 1000 and grown < 50_000
