"""Rewards by name: each gives what it says, with its weight, and a wrong name or option is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from accord.errors import ConfigError
from accord.rewards.named import NAMED, reward_of
from accord.types import Message, Rollout

ROOT = Path(__file__).resolve().parents[2]


def rollout(text: str, **columns: object) -> Rollout:
    return Rollout("p", (Message("user", "What is 2 + 2?"),), (1,), (5, 2), text, (0.0, 0.0), "stop", columns=dict(columns))


@pytest.mark.parametrize(
    ("spec", "text", "columns", "value", "weight"),
    [
        ("accuracy", "It is 4.", {"answer": "4"}, 1.0, 1.0),
        ("accuracy*0.5", "It is 5.", {"answer": "4"}, 0.0, 0.5),
        ("accuracy=choice", "The answer is (B).", {"answer": "B", "choices": ["3", "4"]}, 1.0, 1.0),
        ("format", "<think>two and two</think><answer>4</answer>", {}, 1.0, 0.1),
        ("format*0.2", "4", {}, 0.0, 0.2),
        ("repetition", "a b c a b c a b c", {}, 3 / 7 - 1, 1.0),  # seven triples, three of them different
        ("repetition=2", "a b a b", {}, 2 / 3 - 1, 1.0),
        ("constraints", "NO LOWER CASE", {"instruction_id_list": ["change_case:english_capital"], "kwargs": [{}]}, 1.0, 1.0),
    ],
)
def test_named_rewards(spec: str, text: str, columns: dict[str, object], value: float, weight: float) -> None:
    source = reward_of(spec)
    (score,) = source.score([rollout(text, **columns)])
    assert score.value == pytest.approx(value) and source.weight == weight


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("acuracy", "Did you mean accuracy"),
        ("length", "Those that come with accord: accuracy, format, constraints, code, gym, judge, repetition; your own: file.py:function"),
        ("accuracy=latin", "There is no grader 'latin'"),
        ("repetition=three", "a whole number is needed"),
        ("constraints=some", "it takes share or all"),
        ("code=python", "takes no option"),
        ("judge", "needs a judge"),
        ("judge=rule:shorter", "compares two answers; a reward needs one that rates each"),
        ("accuracy*heavy", "'heavy' is not a weight"),
        ("missing.py:size", "missing.py does not exist"),
    ],
)
def test_wrong_names(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        reward_of(spec)


def test_every_name_is_on_its_page() -> None:
    page = (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in NAMED)
