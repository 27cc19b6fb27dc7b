"""From readings to verdicts: both orders, clamps, ties, and what a failure is (science T6.2)."""

from __future__ import annotations

import json
import math

import pytest

from accord.ai_feedback.asking import Answer, Question
from accord.ai_feedback.judge_prompts import load_prompt
from accord.ai_feedback.judges import PairwiseJudge, clamped
from accord.ai_feedback.reading import read
from accord.ai_feedback.verdicts import (
    Comparison,
    Reading,
    Verdict,
    answer_text,
    as_record,
    averaged,
    comparison_of,
    conversation_text,
    preferred,
)
from accord.types import Completion, Example, Message
from ai_feedback.scripted import Scripted, comparison, shown

OPTIONS = {"A": ("A",), "B": ("B",)}


def reading(value: float | None, status: str = "ok") -> Reading:
    return Reading("first, second", None, value, status)


def verdict(forward: float | None, backward: float | None) -> Verdict:
    return averaged(reading(forward, "ok" if forward is not None else "cut off"), reading(backward), judge="j", source="ai")


def test_two_logits_are_a_soft_label() -> None:
    """Log-probs -1 and -2: 1 / (1 + e^-1) = 0.731059; clamped to 0.4 to 0.6 it is 0.6, and its opposite 0.4."""
    question = Question((Message("user", "?"),), OPTIONS)
    found, status, mass = read(question, Answer(masses={"A": math.exp(-1), "B": math.exp(-2)}))
    assert found is not None and status == "ok"
    assert found["A"] == pytest.approx(0.731059, abs=1e-6) and mass == pytest.approx(math.exp(-1) + math.exp(-2))
    assert clamped(found["A"], (0.4, 0.6)) == 0.6 and clamped(found["B"], (0.4, 0.6)) == 0.4 and clamped(0.45, (0.4, 0.6)) == 0.45


def test_a_missing_option_is_a_failure_and_no_half() -> None:
    question = Question((Message("user", "?"),), OPTIONS)
    found, status, _ = read(question, Answer(masses={"A": 0.9}))
    assert found is None and "option B" in status
    judge = PairwiseJudge(Scripted(lambda question: Answer(masses={"A": 0.9})), load_prompt("pairwise"))
    (said,) = judge.compare([comparison()])
    assert said.probability is None and said.soft_label is None and said.choice is None and "option B" in (said.invalid or "")


@pytest.mark.parametrize(("forward", "backward", "probability"), [(0.9, 0.2, 0.85), (1.0, 1.0, 0.5), (0.6, 0.5, 0.55), (0.0, 1.0, 0.0)])
def test_both_orders_are_averaged(forward: float, backward: float, probability: float) -> None:
    """p = (p_AB(A) + 1 - p_BA(B)) / 2."""
    assert verdict(forward, backward).probability == pytest.approx(probability)


def test_swapping_the_answers_gives_one_minus_p() -> None:
    """The same judge sees the same two questions whichever answer is called the first."""

    def script(question: Question) -> Answer:
        first, _ = shown(question)
        probability = 0.83 if first == "one" else 0.31
        return Answer(masses={"A": probability, "B": 1 - probability})

    judge = PairwiseJudge(Scripted(script), load_prompt("pairwise"))
    one, other = judge.compare([comparison("one", "two"), comparison("two", "one")])
    assert one.probability == pytest.approx((0.83 + 1 - 0.31) / 2) and other.probability == pytest.approx(1 - (one.probability or 0))


def test_inconsistent_verdicts_are_near_ties() -> None:
    """0.9 for whatever comes first on one side, 0.6 on the other: the mean is 0.65, of which a quarter of the distance from a tie is left."""
    found = verdict(0.9, 0.6)
    assert not found.consistent and found.choice is None and found.probability == pytest.approx(0.65)
    assert found.soft_label == pytest.approx(0.5 + 0.25 * 0.15)
    sure = verdict(0.9, 0.2)
    assert sure.consistent and sure.choice == 0 and sure.soft_label == sure.probability


@pytest.mark.parametrize(("forward", "backward", "consistent"), [(0.5, 0.5, True), (0.7, 0.5, False), (0.2, 0.8, True), (0.2, 0.3, False)])
def test_consistency_is_the_same_winner(forward: float, backward: float, consistent: bool) -> None:
    assert verdict(forward, backward).consistent is consistent


def test_one_invalid_order_makes_an_invalid_verdict() -> None:
    found = verdict(None, 0.7)
    assert found.probability is None and found.invalid == "cut off" and found.choice is None


def test_clamping_is_noted_and_applies_to_each_order() -> None:
    sure = Scripted(lambda question: Answer("So.\nAnswer: A" if shown(question)[0] == "one" else "So.\nAnswer: B"))
    (found,) = PairwiseJudge(sure, load_prompt("pairwise_reasoned")).compare([comparison("one", "two")])
    assert [one.value for one in found.readings] == [0.6, 0.4] and found.probability == pytest.approx(0.6)
    assert all(one.clamped for one in found.readings) and found.readings[0].probabilities == {"A": 1.0, "B": 0.0}


def test_ratings_compare_by_their_distributions() -> None:
    """P(x > y) + P(x = y) / 2, by hand: x is 1 or 3, y is 2 or 3: (1,2) lose, (1,3) lose, (3,2) win, (3,3) tie."""
    assert preferred({1.0: 0.5, 3.0: 0.5}, {2.0: 0.5, 3.0: 0.5}) == pytest.approx(0.25 + 0.125)
    same = {1.0: 0.2, 2.0: 0.8}
    assert preferred(same, same) == pytest.approx(0.5)


def test_records_are_json_without_what_says_nothing() -> None:
    record = json.loads(json.dumps(as_record(verdict(0.9, 0.2))))
    assert record["probability"] == pytest.approx(0.85) and "invalid" not in record and "principle" not in record
    assert record["readings"][0] == {"asked": "first, second", "value": 0.9, "status": "ok"}


def test_ids_do_not_depend_on_the_order() -> None:
    one = comparison("a", "b")
    assert one.id == one.swapped.id != comparison("a", "c").id


def test_conversations_and_answers_as_text() -> None:
    chat = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Bye"))
    assert conversation_text(chat) == "User: Hi\n\nAssistant: Hello\n\nUser: Bye" and conversation_text(chat[:1]) == "Hi"
    long = Completion((Message("assistant", "x"), Message("user", "y"), Message("assistant", "z")))
    assert answer_text(long) == "Assistant: x\n\nUser: y\n\nAssistant: z"
    row = Example("preference", chat[:1], (Completion((Message("assistant", "good"),)), Completion((Message("assistant", "bad"),))))
    assert comparison_of(row) == Comparison(chat[:1], "good", "bad")
