"""Scripted models through the real pipeline (science T7.1, T7.3): what judges make of them."""

from __future__ import annotations

import random

import pytest

from accord.ai_feedback.asking import Answer, Question
from accord.ai_feedback.check import first_bias, position_consistency
from accord.ai_feedback.judge_prompts import load_prompt
from accord.ai_feedback.judges import PairwiseJudge, Rater, RatingJudge, RubricJudge, judge_of, sums
from accord.ai_feedback.scoring import RULES, rule_judge
from accord.ai_feedback.store import AnswerStore
from accord.ai_feedback.verdicts import Answered, Comparison
from accord.ai_feedback.win_rates import length_controlled, win_rate
from accord.errors import ConfigError
from accord.types import Message
from ai_feedback.scripted import Scripted, comparison, first_with, longer_is_better, shown

PROMPT = (Message("user", "Say something."),)


@pytest.mark.parametrize("probability", [1.0, 0.8])
def test_a_judge_that_likes_what_comes_first(probability: float) -> None:
    """0.5 everywhere, consistent nowhere, a tie each, and the bias in plain sight."""
    judge = PairwiseJudge(Scripted(first_with(probability)), load_prompt("pairwise"))
    found = judge.compare([comparison(f"a{i}", f"b{i}") for i in range(20)])
    assert [one.probability for one in found] == pytest.approx([0.5] * 20)
    consistency = position_consistency(found)
    assert consistency is not None and consistency.mean == 0.0
    assert all(one.choice is None and one.soft_label == pytest.approx(0.5) for one in found)
    assert first_bias(found) == pytest.approx(probability)


def test_a_judge_that_likes_length_is_exposed() -> None:
    """Answers of the same quality, those of the first model longer in most pairs: raw far above 0.5, at equal length 0.5."""
    generator = random.Random(0)
    pairs = [("x" * generator.randint(20, 100), "y" * generator.randint(10, 80)) for _ in range(400)]
    judge = PairwiseJudge(Scripted(longer_is_better), load_prompt("pairwise"))
    found = [one.probability for one in judge.compare([comparison(*pair) for pair in pairs])]
    raw = win_rate([one for one in found if one is not None])
    controlled, used = length_controlled(
        [one for one in found if one is not None], *([len(side) for side in sides] for sides in zip(*pairs))
    )
    assert raw.low > 0.6 and abs(controlled.mean - 0.5) < 0.02 and used == 400


def test_every_comparison_is_asked_in_both_orders() -> None:
    model = Scripted(first_with(0.7))
    PairwiseJudge(model, load_prompt("pairwise")).compare([comparison("one", "two"), comparison("three", "four")])
    assert [shown(question) for question in model.asked] == [("one", "two"), ("two", "one"), ("three", "four"), ("four", "three")]


def test_nothing_is_asked_twice() -> None:
    """Equal questions in one call, and the same call again, over one store."""
    model, store = Scripted(first_with(0.7)), AnswerStore()
    judge = PairwiseJudge(model, load_prompt("pairwise"), store)
    first = judge.compare([comparison("one", "two"), comparison("one", "two"), comparison("two", "one")])
    assert len(model.asked) == 2
    assert judge.compare([comparison("one", "two")]) == first[:1] and len(model.asked) == 2
    assert store.spent().tokens == 20 and store.counts() == (2, 0)


def test_failures_are_not_kept_so_they_are_asked_again() -> None:
    model, store = Scripted(lambda question: Answer(error="the server is tired")), AnswerStore()
    judge = PairwiseJudge(model, load_prompt("pairwise"), store)
    assert judge.compare([comparison()])[0].invalid == "the server is tired"
    model.script = first_with(0.7)
    assert judge.compare([comparison()])[0].probability is not None and store.counts() == (2, 0)


def test_text_in_answers_is_no_template() -> None:
    """An answer that holds a place's name, or the end mark of another, is shown as it is."""
    model = Scripted(first_with(0.5))
    PairwiseJudge(model, load_prompt("pairwise")).compare([comparison("{second} {conversation}", "b{first}")])
    assert shown(model.asked[0]) == ("{second} {conversation}", "b{first}")


def test_a_principle_is_drawn_once_a_comparison() -> None:
    """The same in both orders and for swapped answers, another for another seed, each of them about equally often."""
    prompt = load_prompt("principle")
    model = Scripted(first_with(0.7))
    judge = PairwiseJudge(model, prompt, seed=1)
    rows = [comparison(f"a{i}", f"b{i}") for i in range(600)]
    found = judge.compare(rows)
    assert all(
        one.principle in question.messages[0].content for one, question in zip(found, model.asked[::2], strict=True) if one.principle
    )
    assert [one.principle for one in found] == [judge.principle(row.swapped) for row in rows]
    counts = [sum(one.principle == principle for one in found) for principle in prompt.principles]
    assert sum(counts) == 600 and min(counts) > 70  # 100 each on average, standard deviation 9
    assert [PairwiseJudge(model, prompt, seed=2).principle(row) for row in rows] != [one.principle for one in found]


# -- ratings -----------------------------------------------------------------------------------------------------------------------


def rated(masses: dict[str, float]) -> RatingJudge:
    return RatingJudge(Scripted(lambda question: Answer(masses=masses)), load_prompt("rating"))


def test_ratings_are_expected_values() -> None:
    """Uniform over 1 to 10 is 5.5, which is 0 of -1 to 1; ten for sure is 1, one for sure is -1."""
    (uniform,) = rated({str(number): 0.02 for number in range(1, 11)}).rate([Answered(PROMPT, "x")])
    assert uniform.value == pytest.approx(5.5) and uniform.rescaled == pytest.approx(0.0) and uniform.readings[0].mass == pytest.approx(0.2)
    for sure, rescaled in (("10", 1.0), ("1", -1.0)):
        (found,) = rated({str(number): float(str(number) == sure) for number in range(1, 11)}).rate([Answered(PROMPT, "x")])
        assert found.rescaled == pytest.approx(rescaled)


def test_an_invalid_rating_is_no_number() -> None:
    (found,) = RatingJudge(Scripted(lambda question: Answer("Good!")), load_prompt("rating")).rate([Answered(PROMPT, "x")])
    assert found.value is None and found.rescaled is None and found.invalid == "no verdict in the text"


def test_ratings_compare_two_answers() -> None:
    """A judge that says 9 of the good answer and 4 of the other, in text."""
    judge = RatingJudge(Scripted(lambda question: Answer("9" if "good" in question.messages[0].content else "4")), load_prompt("rating"))
    (found,) = judge.compare([Comparison(PROMPT, "bad", "good")])
    assert found.probability == 0.0 and found.choice == 1 and found.consistent
    assert [one.asked for one in found.readings] == ["first", "second"] and [one.value for one in found.readings] == [4.0, 9.0]


# -- checklists --------------------------------------------------------------------------------------------------------------------


def test_checklists_add_up_weights() -> None:
    """Yes to everything: the items that want yes weigh 3 + 2 + 1 + 1, those that want no are lost: 7 of 9."""
    judge = RubricJudge(Scripted(lambda question: Answer("Yes.")), load_prompt("rubric"))
    (found,) = judge.rate([Answered(PROMPT, "x")])
    assert (found.value, found.low, found.high) == (7.0, 0.0, 9.0) and len(found.readings) == 6 and isinstance(judge, Rater)
    assert [one.value for one in found.readings] == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]


def test_the_sum_of_items_is_a_distribution() -> None:
    """Weights 2 and 1 with 0.5 and 0.25, by hand."""
    assert sums([(2, 0.5), (1, 0.25)]) == pytest.approx({0.0: 0.375, 1.0: 0.125, 2.0: 0.375, 3.0: 0.125})


def test_one_item_without_a_verdict_makes_the_checklist_invalid() -> None:
    def script(question: Question) -> Answer:
        return Answer("Perhaps" if "repeat itself" in question.messages[0].content else "Yes")

    (found,) = RubricJudge(Scripted(script), load_prompt("rubric")).rate([Answered(PROMPT, "x")])
    assert found.value is None and found.invalid == "item 6: no verdict in the text"
    (verdict,) = RubricJudge(Scripted(script), load_prompt("rubric")).compare([comparison()])
    assert verdict.probability is None and verdict.invalid == "item 6: no verdict in the text"


def test_a_prompt_makes_its_judge() -> None:
    model = Scripted(first_with(0.5))
    made = {name: type(judge_of(model, load_prompt(name))).__name__ for name in ("pairwise", "principle", "rating", "rubric")}
    assert made == {"pairwise": "PairwiseJudge", "principle": "PairwiseJudge", "rating": "RatingJudge", "rubric": "RubricJudge"}
    with pytest.raises(ConfigError, match="of the kind rating; PairwiseJudge needs pairwise"):
        PairwiseJudge(model, load_prompt("rating"))


# -- rules -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "better", "worse"),
    [
        ("shorter", "Yes.", "Yes, of course it is."),
        ("longer", "Yes, of course it is.", "Yes."),
        ("no-flattery", "Paris.", "What a great question! Paris."),
        ("no-refusal", "Paris.", "I'm sorry, but I can't help with that."),
        ("no-repetition", "One two three four five.", "one two three one two three one two three"),
        ("readable", "The answer is in the book that you have.", "xkqzt brrrgl %%%% qqqq zzzzzt"),
    ],
)
def test_rules_prefer(rule: str, better: str, worse: str) -> None:
    judge = rule_judge(rule)
    one, other = judge.compare([comparison(better, worse), comparison(worse, better)])
    assert (one.probability, other.probability) == (1.0, 0.0) and judge.source == "rule" and not isinstance(judge, Rater)
    assert rule in RULES and judge.compare([comparison(better, better)])[0].probability == 0.5


def test_rewards_of_accord_are_rules_too() -> None:
    """IFEval's constraints, read from the row."""
    columns = {"instruction_id_list": ["change_case:english_capital"], "kwargs": [{}]}
    (found,) = rule_judge("constraints").compare([Comparison(PROMPT, "ALL CAPITALS", "none", columns)])
    assert found.probability == 1.0 and found.source == "rule" and found.judge == "rule:constraints"


def test_wrong_rules_are_one_line() -> None:
    with pytest.raises(ConfigError, match="Did you mean shorter"):
        rule_judge("shortr")
