"""Form, length and repetition, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.errors import ConfigError
from accord.rewards.accuracy import AccuracyReward
from accord.rewards.format import FormatReward
from accord.rewards.shaping import CosineLength, OverlongPenalty, RepetitionPenalty
from rewards.answers import rollout


@pytest.mark.parametrize(
    ("text", "value", "reason"),
    [
        ("<think>48 + 24</think><answer>72</answer>", 1.0, "the form is kept"),
        ("\n<think>\n48 + 24\n</think>\n\n<answer> 72 clips </answer>\n", 1.0, "the form is kept"),
        ("<think>48 + 24</think><answer></answer>", 0.0, "{answer} is empty"),
        ("<think></think><answer>72</answer>", 0.0, "{think} is empty"),
        ("<think>hm</think><answer>no idea</answer>", 0.0, "{answer} holds no number"),
        ("<think>hm</think><answer>48 + 24</answer>", 0.0, "{answer} holds no number"),
        ("<answer>72</answer>", 0.0, "<think> stands 0 times instead of 1"),
        ("<think>a</think><answer>72</answer><answer>72</answer>", 0.0, "<answer> stands 2 times instead of 1"),
        ("<think>a<think>b</think><answer>72</answer>", 0.0, "<think> stands 2 times instead of 1"),
        ("<think>a</think><answer>72</answer> and more", 0.0, "the text is not of the form"),
        ("<answer>72</answer><think>a</think>", 0.0, "the text is not of the form"),
        ("<think>a</think> or <answer>72</answer>", 0.0, "the text is not of the form"),
        ("72", 0.0, "<think> stands 0 times instead of 1"),
        ("", 0.0, "<think> stands 0 times instead of 1"),
    ],
)
def test_format(text: str, value: float, reason: str) -> None:
    (score,) = FormatReward().score([rollout(text)])
    assert score.value == value
    assert reason in (score.explanation or "")


def test_other_forms() -> None:
    steps = FormatReward("{steps}\n#### {answer}")
    assert [steps.grade(text).value for text in ("7 + 5 = 12\n#### 12", "#### 12", "7 + 5 = 12\n#### twelve or so #### 12")] == [
        1.0,
        0.0,
        0.0,
    ]
    opened = FormatReward("{think}</think><answer>{answer}</answer>", readable="choice")
    assert [opened.grade(f"hm</think><answer>{letter}</answer>").value for letter in ("B", "(b)", "A or B", "12")] == [1.0, 1.0, 0.0, 0.0]
    assert FormatReward(readable="text").grade("<think>a</think><answer>anything</answer>").value == 1.0


@pytest.mark.parametrize("form", ["<think>{think}</think>", "{answer}{answer}"])
def test_a_form_needs_one_answer(form: str) -> None:
    with pytest.raises(ConfigError, match="needs the place"):
        FormatReward(form)


@given(st.text(alphabet="<>/thinkaswer 0123\n", max_size=80))
def test_form_alone_earns_nothing(text: str) -> None:
    """Whatever scores 1 has an answer that the numeric grader reads from the same text."""
    if FormatReward().grade(text).value == 1.0:
        (graded,) = AccuracyReward().score([rollout(text, answer="5")])
        assert graded.parts["no_answer"] == 0.0


@pytest.mark.parametrize(("length", "penalty"), [(1, 0.0), (80, 0.0), (90, -0.5), (95, -0.75), (100, -1.0), (101, -1.0), (500, -1.0)])
def test_overlong_penalty(length: int, penalty: float) -> None:
    """Golden T5.7: L_max 100, cache 20."""
    (score,) = OverlongPenalty(100, 20).score([rollout("x", length=length)])
    assert score.value == penalty


@pytest.mark.parametrize(
    ("text", "size", "penalty"),
    [
        ("a b c d", 2, 0.0),  # ab bc cd
        ("a b a b", 2, -1 / 3),  # ab ba ab: 2 of 3 differ
        ("a a a a", 2, -2 / 3),  # 1 of 3 differs
        ("A a a a", 1, -3 / 4),
        ("a b", 3, 0.0),
        ("", 3, 0.0),
    ],
)
def test_repetition_penalty(text: str, size: int, penalty: float) -> None:
    (score,) = RepetitionPenalty(size).score([rollout(text)])
    assert score.value == pytest.approx(penalty, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "length", "value"),
    [
        ("#### 5", 0, 1.0),
        ("#### 5", 25, 0.5 + 0.25 * (1 + math.sqrt(0.5))),  # cos(pi/4) = sqrt(1/2)
        ("#### 5", 50, 0.75),  # half way between 1 and 0.5
        ("#### 5", 100, -1.0),
        ("#### 6", 0, -1.0),
        ("#### 6", 50, -0.75),
        ("nothing", 50, -0.75),
        ("#### 6", 99, -0.5 + 0.5 * -0.5 * (1 + math.cos(math.pi * 0.99))),
        ("#### 6", 200, -1.0),
    ],
)
def test_cosine_length(text: str, length: int, value: float) -> None:
    (score,) = CosineLength(AccuracyReward(), 100).score([rollout(text, length=length, answer="5")])
    assert score.value == pytest.approx(value, abs=1e-12)
    assert score.parts["accuracy"] == float(text == "#### 5")


def test_cosine_orders_lengths() -> None:
    """Short right answers above long right ones, all right ones above all wrong ones, long wrong ones above short wrong ones."""
    cosine = CosineLength(AccuracyReward(), 100)
    right = [cosine.scaled(length, is_right=True) for length in range(100)]
    wrong = [cosine.scaled(length, is_right=False) for length in range(100)]
    assert right == sorted(right, reverse=True)
    assert wrong == sorted(wrong)
    assert min(right) > max(wrong)


def test_cosine_keeps_a_failure() -> None:
    class Failing:
        name, weight = "accuracy", 1.0

        def score(self, rollouts: object) -> list[object]:
            from accord.types import Score

            return [Score(None, error="hung")]

    (score,) = CosineLength(Failing(), 100).score([rollout("x")])  # type: ignore[arg-type]
    assert (score.value, score.error) == (None, "hung")


@pytest.mark.parametrize(
    "make",
    [
        lambda: OverlongPenalty(100, 100),
        lambda: OverlongPenalty(100, 0),
        lambda: RepetitionPenalty(0),
        lambda: CosineLength(AccuracyReward(), 0),
    ],
)
def test_arguments_out_of_range(make: object) -> None:
    with pytest.raises(ConfigError, match="must be"):
        make()  # type: ignore[operator]
