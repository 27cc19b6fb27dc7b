"""Rejection sampling: which answers are kept, and that the file says who wrote them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny
from accord.data.read import read_examples
from accord.data.render import Renderer
from accord.data.write import write_examples
from accord.recipes.rejection import best_answers, demonstrations
from accord.types import Message, Rollout, Score


def group(name: str, *values: float | None, finish: str = "stop", **columns: object) -> list[Rollout]:
    prompt = (Message("system", "Be brief."), Message("user", f"Ask {name}"))
    return [
        Rollout(
            name, prompt, (5, 6), (7, 2), f"{name}{index}", (0.0, 0.0), "stop" if finish == "stop" else "length", index,
            columns=dict(columns), score=Score(value, error=None if value is not None else "timeout"),
        )
        for index, value in enumerate(values)
    ]  # fmt: skip


def texts(groups: list[list[Rollout]], keep_from: float | None = None) -> list[str]:
    return [rollout.text for rollout in best_answers(groups, keep_from).best]


def test_the_best_of_each_prompt_and_of_equals_the_first() -> None:
    groups = [group("a", 0.2, 0.9, 0.9), group("b", -3.0, -4.0), group("c", None, 0.1), group("d", None, None)]
    assert texts(groups) == ["a1", "b0", "c1"]
    kept = best_answers(groups)
    assert (kept.prompts, kept.without, kept.not_scored, kept.keep_from) == (4, 1, 3, None)
    assert texts(groups, 0.15) == ["a1"] and texts(groups, 0.9) == ["a1"] and texts(groups, 0.91) == []


def test_of_rewards_of_0_and_1_right_answers_only() -> None:
    """Also where no answer at all is right; a threshold that is given is obeyed; one value between them makes it a graded reward."""
    groups = [group("a", 0.0, 1.0, 1.0), group("b", 0.0, 0.0)]
    assert texts(groups) == ["a1"] and best_answers(groups).keep_from == 1.0 and best_answers(groups).without == 1
    assert texts([group("b", 0.0, 0.0)]) == []
    assert texts(groups, 0.0) == ["a1", "b0"]
    assert texts([*groups, group("c", 0.5)]) == ["a1", "b0", "c0"]
    assert best_answers([group("d", None)]).best == ()


def test_rows_name_their_source_and_read_back(tmp_path: Path) -> None:
    """The end token of an answer that was cut off is not learned; a column named like a layout's does not turn the row into another kind."""
    groups = [group("a", 0.0, 1.0, label=True, gold=4), group("b", 1.0, finish="length", tools=None)]
    source = {"kind": "sample", "model": "runs/sft", "sha256": "ab", "seed": 3}
    rows = demonstrations(best_answers(groups), source)
    write_examples(rows, tmp_path / "best.jsonl", "prompt_completion")
    found = list(read_examples(tmp_path / "best.jsonl"))
    assert [row.kind for row in found] == ["demonstration"] * 2
    assert [row.completions[0].text for row in found] == ["a1", "b0"] and found[0].prompt == groups[0][0].prompt
    assert [row.completions[0].finished for row in found] == [True, False]
    assert found[0].completions[0].source == {**source, "sample": 1, "reward": 1.0}
    renderer = Renderer(tiny.tokenizer())
    assert [renderer.render(row).completions[0].ends for row in found] == [True, False]


def test_plain_rows_stay_plain(tmp_path: Path) -> None:
    rollout = Rollout("p", (Message("user", "Q:"),), (5,), (7,), "A", (0.0,), "stop", score=Score(1.0))
    rows = demonstrations(best_answers([[rollout]]), {"kind": "sample"}, {"p": True})
    write_examples(rows, tmp_path / "best.jsonl", "prompt_completion")
    (row,) = [json.loads(line) for line in (tmp_path / "best.jsonl").read_text(encoding="utf-8").splitlines()]
    assert row == {"prompt": "Q:", "completion": "A", "source": {"kind": "sample", "sample": 0, "reward": 1.0}}


@pytest.mark.parametrize("scores", [(0.0, 1.0), (0.3, 0.7)])
def test_order_of_prompts_does_not_matter(scores: tuple[float, float]) -> None:
    groups = [group(name, *scores) for name in "abc"]
    assert sorted(texts(groups[::-1])) == texts(groups)
