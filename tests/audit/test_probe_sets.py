"""The audit's own probes are what their datasheet says, and files of others are read as they are published."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import pytest

from accord.audit import probe_sets
from accord.errors import DataError
from accord.recipes import demo_rows

FOLDER = resources.files("accord.audit") / "probes"


def test_the_datasheet_counts_right() -> None:
    sheet = (FOLDER / "DATASHEET.md").read_text(encoding="utf-8")
    stated = {name: int(count) for name, count in re.findall(r"\| `(\w+)\.jsonl` \| (\d+) \|", sheet)}
    assert stated == {name: len(probe_sets.packaged(name)) for name in stated} and len(stated) == 10
    kinds = [row["kind"] for row in probe_sets.packaged("pairs")]
    assert [kinds.count(kind) for kind in ("short wins", "long wins", "adversarial")] == [12, 12, 16]


def test_pairs_are_what_they_say() -> None:
    for row in probe_sets.packaged("pairs"):
        assert (len(row["chosen"]) < len(row["rejected"])) is (row["kind"] != "long wins"), row["prompt"]


def test_no_probe_is_in_the_demo_s_data() -> None:
    rows = [*demo_rows.demonstrations(), *demo_rows.pairs("train"), *demo_rows.pairs("heldout"), *demo_rows.rankings()]
    known = {row.prompt[-1].content for row in (*rows, *demo_rows.heldout_prompts(), *demo_rows.constitution_prompts())}
    asked = [
        row[key]
        for name in ("everyday", "refusals", "honesty", "arithmetic", "pairs", "styles")
        for row in probe_sets.packaged(name)
        for key in ("prompt",)
    ]
    asked += [row["question"] for row in probe_sets.packaged("questions")]
    assert not known & set(asked)
    assert len(set(asked)) == len(asked)


def test_a_subset_is_drawn_by_seed_and_keeps_pairs_whole() -> None:
    few = probe_sets.contrasts(None, 5, 1)
    assert len(few) == 10 and len({one.pair for one in few}) == 5
    assert few == probe_sets.contrasts(None, 5, 1) and few != probe_sets.contrasts(None, 5, 2)
    assert len(probe_sets.honesty(None, 4, 0)) == 12 and probe_sets.drawn([1, 2, 3], 0, 0) == [1, 2, 3]


def write(path: Path, *rows: dict[str, object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_row_that_lacks_something_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.jsonl", {"prompt": "a", "label": "safe"}, {"prompt": "b"})
    with pytest.raises(DataError, match=r'mine\.jsonl line 2 has no "label" \(it has: prompt\)'):
        probe_sets.contrasts(file, 0, 0)
    with pytest.raises(DataError, match="three texts"):
        probe_sets.grids([write(tmp_path / "grid.jsonl", {"prompt": "a", "chosen": ["x"], "rejected": ["y"]})], 0, 0)


def test_own_tables(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.jsonl", {"prompt": "a", "harmful": True}, {"prompt": "b", "harmful": False})
    assert [(one.prompt, one.harmful) for one in probe_sets.contrasts(file, 0, 0)] == [("b", False), ("a", True)]
    assert probe_sets.problems(write(tmp_path / "p.jsonl", {"prompt": "1+1?", "answer": "2"}), 0, 0) == [probe_sets.Problem("1+1?", "2")]
    assert probe_sets.texts(write(tmp_path / "t.jsonl", {"text": "Prose."}), 0, 0) == ["Prose."]
    pairs = write(tmp_path / "pairs.jsonl", {"prompt": "a", "chosen": "b", "rejected": "c"})
    assert probe_sets.everyday(pairs, 0, 0) == [("a", "b")]
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    with pytest.raises(DataError, match="a prompt of 3 turns"):
        probe_sets.everyday(write(tmp_path / "chats.jsonl", {"prompt": turns}), 0, 0)


def test_files_of_others(shared_data: Path) -> None:
    requests = probe_sets.contrasts(str(shared_data / "xstest" / "xstest_prompts.csv"), 0, 0)
    assert (sum(not one.harmful for one in requests), sum(one.harmful for one in requests)) == (250, 200)
    assert len(probe_sets.problems(str(shared_data / "svamp" / "SVAMP.json"), 24, 0)) == 24
    assert len(probe_sets.honesty(str(shared_data / "truthfulqa" / "TruthfulQA.csv"), 0, 0)) == 817
    assert len(probe_sets.instructions(str(shared_data / "ifeval" / "input_data.jsonl"), 0, 0)) == 541
    assert len(probe_sets.grids([str(shared_data / "rm_bench" / "chat_filtered.json")], 0, 0)) == 129
    files = [str(path) for path in sorted((shared_data / "llmbar").glob("Adversarial_*.json"))]
    assert len(probe_sets.pairs(files, 0, 0, ())) == 319
