"""The accuracy reward: which column is the gold answer, what has no value, and what names its row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from accord.data.arithmetic import arithmetic_prompts, chains
from accord.errors import ConfigError, DataError
from accord.rewards.accuracy import AccuracyReward
from accord.rewards.combine import combined
from accord.types import Example, Message
from rewards.answers import rollout


def test_right_wrong_and_no_answer() -> None:
    scores = AccuracyReward().score([rollout(text, answer="72") for text in ("#### 72", "#### 71", "no idea")])
    assert [score.value for score in scores] == [1.0, 0.0, 0.0]
    assert [score.parts["no_answer"] for score in scores] == [0.0, 0.0, 1.0]
    assert [(score.explanation or "").split(":")[0] for score in scores] == ["right", "wrong", "no answer"]
    assert not any(score.error for score in scores)


@pytest.mark.parametrize(
    ("columns", "gold", "value"),
    [
        ({"answer": "72"}, None, 1.0),
        ({"solution": "so it is\n#### 72"}, None, 1.0),
        ({"gold": 72}, None, 1.0),
        ({"answer": "71", "gold": "72"}, None, 0.0),  # the first of answer, solution, gold
        ({"answer": None, "gold": "72"}, None, 1.0),
        ({"answer": "71", "target": "72"}, "target", 1.0),
        ({"answer": "71", "b": "72"}, ("a", "b"), 1.0),
    ],
)
def test_gold_columns(columns: dict[str, Any], gold: Any, value: float) -> None:
    reward = AccuracyReward(**({} if gold is None else {"gold": gold}))
    assert reward.score([rollout("#### 72", **columns)])[0].value == value


def test_a_missing_gold_names_its_row() -> None:
    with pytest.raises(DataError, match=r"^Prompt p17 \('What is it\?'\) has no gold answer in column 'key' \(it has: answer, level\)"):
        AccuracyReward(gold="key").score([rollout("5", prompt_id="p17", answer="5", level=3)])
    with pytest.raises(DataError, match=r"^Prompt p17 .* is no number .* Grade such answers with symbolic or normalized\.$"):
        AccuracyReward().score([rollout("5", prompt_id="p17", answer="many")])


def test_an_unknown_grader_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"numeric, choice, exact, normalized, symbolic, boxed, or file\.py:function"):
        AccuracyReward("nummeric")


def test_options_reach_the_grader() -> None:
    answer = rollout("5 km", answer="5")
    assert AccuracyReward().score([answer])[0].value == 1.0
    assert AccuracyReward(options={"require_unit": True}).score([answer])[0].value == 0.0


def test_choices_of_the_row_are_read() -> None:
    answer = rollout("The answer is Paris.", correct="B", options='["A)London", "B)Paris"]')
    assert AccuracyReward("choice", gold="correct").score([answer])[0].value == 1.0


def test_checking_gold_answers_beforehand() -> None:
    rows = arithmetic_prompts(chains(20))
    assert AccuracyReward().check(rows) == 20
    bad = Example("prompt", (Message("user", "How many?"),), columns={"answer": "many"}, where="rows.jsonl line 3")
    with pytest.raises(DataError, match=r"^rows\.jsonl line 3: The gold answer 'many' is no number"):
        AccuracyReward().check([*rows, bad])
    hedged = Example("prompt", (Message("user", "How many?"),), columns={"answer": "5"}, where="rows.jsonl line 4")
    with pytest.raises(DataError, match=r"^rows\.jsonl line 4: the gold answer '5' is not right by its own grader"):
        AccuracyReward(f"{Path(__file__)}:always_wrong").check([hedged])


def always_wrong(text: str, gold: Any) -> Any:
    from accord.rewards.verdicts import Verdict

    return Verdict("wrong", "always")


def test_parts_and_reasons_of_a_sum() -> None:
    """0.5 * 1 + 2 * 0 = 0.5; both reasons are kept."""
    sources = [AccuracyReward(weight=0.5), AccuracyReward("exact", weight=2.0, name="exact")]
    (score,) = combined(sources, [rollout("#### 72.0", answer="72")])
    assert score.value == 0.5
    assert score.parts == {"accuracy": 1.0, "accuracy/no_answer": 0.0, "exact": 0.0, "exact/no_answer": 0.0}
    assert score.explanation == "accuracy: right: 72.0 is 72; exact: wrong: '72.0' is not '72'"
