"""Labels without people: what the judge prefers, what the panel turns round, whose labels they are said to be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from accord.annotation.project import Project
from accord.config.rounds import RoundsOptions
from accord.errors import ConfigError
from accord.recipes.feedback import SOURCE, Judge, Panel, preferred, source_of, turned
from accord.recipes.selection import ARM, Question, question
from accord.rewards.combine import FunctionReward, load_function
from accord.rewards.named import reward_of
from accord.types import Message, Rollout, Score


def length(completions: Sequence[Any]) -> list[float | None]:
    """The length of an answer; one that says "unknown" has none."""
    texts = [completion[0]["content"] for completion in completions]
    return [None if text == "unknown" else float(len(text)) for text in texts]


def asked(number: int, *texts: str, **columns: Any) -> Question:
    prompt = (Message("user", f"Question {number}?"),)
    first, second = (Rollout(f"p{number}", prompt, (1,), (2, i), text, (-1.0,), "stop", i) for i, text in enumerate(texts))
    return question((first, second), 1, {"kind": "sample"}, columns)


def said(question: Question, value: dict[str, Any]) -> str:
    """The text that was preferred, or "tie"."""
    choice = value["choice"]
    return question.task.completions[choice].text if choice in (0, 1) else str(choice)


def questions(count: int) -> list[Question]:
    return [asked(number, "short", f"much longer {number}") for number in range(count)]


def test_a_judge_prefers_the_higher_score() -> None:
    found = [asked(1, "bb", "a"), asked(2, "x", "yyy"), asked(3, "cc", "dd"), asked(4, "unknown", "e")]
    judge = Judge([FunctionReward(length)], "rule", "a judge: length")
    labels = judge.label(found, 1)
    assert [said(q, one.value) for q, one in zip(found[:3], labels[:3], strict=True)] == ["bb", "yyy", "tie"]
    assert (labels[3].kind, labels[3].value) == ("skip", {"reason": "length returned None (not scored)"})
    assert {one.source for one in labels} == {"rule"} and {one.annotator for one in labels} == {"judge:length"}
    assert judge.label(found, 1) == labels  # ids and all: the same again is stored once


def test_a_score_that_failed_is_no_verdict() -> None:
    assert preferred(Score(1.0), Score(None, error="broken")) is None
    assert (preferred(Score(1.0), Score(1.0)), preferred(Score(2.0), Score(1.0)), preferred(Score(0.0), Score(1.0))) == ("tie", 0, 1)


@pytest.mark.parametrize("noise", [0.0, 0.25, 0.5])
def test_the_panel_turns_its_share_round(noise: float) -> None:
    """4,000 labels, within four standard deviations of the share."""
    found = questions(2000)
    panel = Panel([FunctionReward(length)], "simulated", "a panel", noise, seed=3)
    labels = panel.label(found, 2)
    by_task = {q.task.id: q for q in found}
    wrong = [said(by_task[one.task], one.value) == "short" for one in labels]
    assert len(labels) == 4000
    assert abs(sum(wrong) / 4000 - noise) <= 4 * math.sqrt(noise * (1 - noise) / 4000)
    assert {one.annotator for one in labels} == {"panel-1", "panel-2"} and {one.source for one in labels} == {"simulated"}


def test_members_err_on_their_own() -> None:
    """Two members with 25 % noise agree on 0.75^2 + 0.25^2 = 62.5 % of the pairs."""
    found = questions(2000)
    labels = Panel([FunctionReward(length)], "simulated", "a panel", 0.25, seed=3).label(found, 2)
    same = sum(one.value == other.value for one, other in zip(labels[::2], labels[1::2], strict=True)) / 2000
    assert same == pytest.approx(0.625, abs=0.045)


def test_errors_follow_from_seed_member_and_task() -> None:
    found = questions(200)
    make: Callable[[int], Panel] = lambda seed: Panel([FunctionReward(length)], "simulated", "a panel", 0.25, seed=seed)  # noqa: E731
    assert make(1).label(found, 1) == make(1).label(found[::-1], 1)[::-1]
    assert make(1).label(found, 1) != make(2).label(found, 1)


def test_a_tie_stays_one() -> None:
    assert all(turned("tie", 0.5, key) == "tie" for key in range(50))


def test_the_arm_goes_along() -> None:
    labels = Judge([FunctionReward(length)], "rule", "a judge: length").label(
        [asked(1, "a", "bb", **{ARM: "selected"}), asked(2, "a", "bb")], 1
    )
    assert [one.arm for one in labels] == ["selected", "random"]


def test_labels_carry_their_true_source(tmp_path: Path) -> None:
    path = tmp_path / "judges.py"
    path.write_text(
        "def rule(completions):\n    return [0.0 for _ in completions]\n\n"
        "def model(completions):\n    return [0.0 for _ in completions]\n\n"
        "def liar(completions):\n    return [0.0 for _ in completions]\n\n"
        f"model.{SOURCE} = 'ai'\nliar.{SOURCE} = 'human'\n",
        encoding="utf-8",
    )
    rule, model, liar = (load_function(f"{path}:{name}") for name in ("rule", "model", "liar"))
    assert source_of([rule]) == "rule" and source_of([reward_of("repetition")]) == "rule"
    assert source_of([rule, model]) == "ai"
    with pytest.raises(ConfigError, match="its labels come from 'human'; label_source is ai, debate or rule"):
        source_of([liar])


def test_labels_are_stored_once_and_never_as_people_s(tmp_path: Path) -> None:
    project = Project.new(tmp_path / "labels", overlap=2)
    found = questions(5)
    with project.open_store() as store:
        store.add_tasks(q.task for q in found)
        judge, panel = (
            Judge([FunctionReward(length)], "rule", "a judge: length"),
            Panel([FunctionReward(length)], "simulated", "a panel", 0.25),
        )
        for _ in range(2):
            store.record(judge.label(found, 2))
            store.record(panel.label(found, 2))
        labels = list(store.annotations())
        assert sorted((one.source, one.annotator) for one in labels) == sorted(
            [("rule", "judge:length")] * 5 + [("simulated", f"panel-{member}") for member in (1, 2)] * 5
        )
        assert {person.role for person in store.annotators()} == {"program"}
        assert store.progress(1).missing == 0  # the panel takes the places that a task has, a rule does not


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rounds": 1, "feedback": "judge"}, "--feedback judge needs --reward or --reward-model"),
        ({"rounds": 1, "feedback": "people", "reward": ["repetition"]}, "people judge, so --reward"),
        ({"rounds": 1, "feedback": "crowd"}, "it is people, judge or simulated"),
        ({"rounds": 1, "select": "best"}, "it is random or active"),
        ({"rounds": 1, "noise": 0.6}, "0 to 0.5"),
        ({"rounds": -1}, "--rounds -1: it must be 0 or more"),
        ({"labels": 3}, "--labels 3: it must be 4 or more"),
    ],
)
def test_options_that_have_no_meaning_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        RoundsOptions(**given)
