"""`accord data demo`: files that accord reads as what they are for, held-out ones that share no prompt with those trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from accord.cli import main
from accord.data.demo_files import FILES
from accord.data.read import read_examples
from accord.recipes import demo_rows

KINDS = {
    "demonstrations.jsonl": "demonstration",
    "pairs.jsonl": "preference",
    "heldout.jsonl": "preference",
    "prompts.jsonl": "prompt",
    "solutions.jsonl": "demonstration",
    "problems.jsonl": "prompt",
    "heldout-problems.jsonl": "prompt",
    "steps.jsonl": "steps",
    "heldout-steps.jsonl": "steps",
    "red-team.jsonl": "prompt",
}


def prompts(path: Path) -> set[str]:
    return {row.prompt[-1].content for row in read_examples(str(path))}


def test_every_file_is_read_as_its_kind_and_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "lesson"
    assert main(["data", "demo", str(folder)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert set(FILES) == set(KINDS) == {path.name for path in folder.iterdir()} and len(said) == len(FILES)
    for (name, kind), line in zip(KINDS.items(), said, strict=True):
        rows = list(read_examples(str(folder / name)))
        assert {row.kind for row in rows} == {kind}
        assert f"{name}: {len(rows)} rows, {FILES[name].purpose}" in line
    for name, trained in (
        ("heldout.jsonl", ("demonstrations.jsonl", "pairs.jsonl", "prompts.jsonl")),
        ("heldout-problems.jsonl", ("solutions.jsonl", "problems.jsonl", "steps.jsonl")),
        ("heldout-steps.jsonl", ("solutions.jsonl", "problems.jsonl", "steps.jsonl")),
    ):
        assert all(prompts(folder / name).isdisjoint(prompts(folder / other)) for other in trained)
    assert prompts(folder / "prompts.jsonl") == prompts(folder / "pairs.jsonl")


def test_the_packaged_rows_come_through_as_the_demo_has_them(tmp_path: Path) -> None:
    """Prompts, answers, sides and ends: what a trainer learns from, whichever way the rows reach it."""
    assert main(["data", "demo", str(tmp_path)]) == 0
    for name, rows in (
        ("demonstrations.jsonl", demo_rows.demonstrations(40)),
        ("pairs.jsonl", demo_rows.pairs("train")),
        ("heldout.jsonl", demo_rows.pairs("heldout")),
    ):
        found = list(read_examples(str(tmp_path / name)))
        seen, there = (
            [(row.prompt, [(one.text, one.finished) for one in row.completions], row.columns["slice"]) for row in part]
            for part in (found, rows)
        )
        assert seen == there


def test_sums_have_their_results_and_planted_errors_their_labels(tmp_path: Path) -> None:
    """Half of the rows have one error, where a -1 stands; in the others the last line states what the line before ended with."""
    assert main(["data", "demo", str(tmp_path)]) == 0
    rows = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text(encoding="utf-8").splitlines()]
    wrong = [row for row in rows if -1 in row["labels"]]
    assert 0.4 < len(wrong) / len(rows) < 0.6 and all(row["labels"].count(-1) == 1 for row in wrong)
    for row in rows:
        assert len(row["completions"]) == len(row["labels"]) == 3
        if -1 not in row["labels"]:
            assert row["completions"][-1] == f"#### {row['completions'][-2].split(' = ')[1]}"


def test_nothing_of_anybodys_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once more is no mistake; a file of one's own stops it before the first line is written."""
    folder = str(tmp_path)
    assert main(["data", "demo", folder]) == 0 == main(["data", "demo", folder])
    (tmp_path / "pairs.jsonl").write_text("mine\n", encoding="utf-8")
    (tmp_path / "steps.jsonl").unlink()
    capsys.readouterr()
    assert main(["data", "demo", folder]) == 2
    assert "its own pairs.jsonl" in capsys.readouterr().err
    assert main(["data", "demo", str(tmp_path / "pairs.jsonl")]) == 2
    assert "cannot be made" in capsys.readouterr().err
    assert (tmp_path / "pairs.jsonl").read_text(encoding="utf-8") == "mine\n" and not (tmp_path / "steps.jsonl").exists()
