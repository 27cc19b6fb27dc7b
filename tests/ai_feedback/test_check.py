"""Measuring judges: who is noise, and why (science T7.2 for the agreement behind it)."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from accord.ai_feedback.asking import Answer, Question
from accord.ai_feedback.check import NOISE, USABLE, Labelled, labelled, measure, readable, summarised, table
from accord.ai_feedback.judge_prompts import load_prompt
from accord.ai_feedback.judges import PairwiseJudge
from accord.ai_feedback.scoring import rule_judge
from accord.ai_feedback.verdicts import Verdict
from accord.annotation.agreement import cohen_kappa
from accord.annotation.judgements import Judgement
from accord.types import Completion, Example, Message
from ai_feedback.scripted import Scripted, comparison, first_with, shown


def rows(count: int) -> list[Example]:
    """Pairs of which the answer with a plus is the better."""
    answers = [("+" + "x" * (i % 7), "-" + "y" * (i % 5)) for i in range(count)]
    return [
        Example("preference", (Message("user", f"Question {i}"),), tuple(Completion((Message("assistant", text),)) for text in pair))
        for i, pair in enumerate(answers)
    ]


def oracle(right: float, sure: float = 0.9, seed: int = 0) -> PairwiseJudge:
    """Knows the better answer, and is wrong about a share of the questions in both orders."""

    def script(question: Question) -> Answer:
        first, _ = shown(question)
        text = question.messages[0].content.split("[Message]\n")[1].split("\n")[0]
        errs = random.Random(f"{seed}{text}").random() >= right
        probability = sure if first.startswith("+") != errs else 1 - sure
        return Answer(masses={"A": probability, "B": 1 - probability}, prompt_tokens=7)

    return PairwiseJudge(Scripted(script), load_prompt("pairwise"))


def test_the_better_answer_stands_first_in_half_of_them() -> None:
    found = labelled(rows(200))
    first = sum(one.comparison.first.startswith("+") for one in found)
    assert 70 < first < 130
    assert all((one.human == 1.0) == one.comparison.first.startswith("+") for one in found)


def test_a_good_judge_is_usable() -> None:
    found = measure(oracle(0.9), labelled(rows(200)), "mine")
    assert found.word == USABLE and found.doubts == [] and found.accuracy is not None and found.consistency is not None
    assert 0.85 < found.accuracy.mean < 0.95 and found.accuracy.low > 0.8 and found.consistency.mean == 1.0
    assert found.first_bias == pytest.approx(0.5) and found.tokens == 2800
    assert found.kappa is not None and found.kappa == pytest.approx(2 * found.accuracy.mean - 1, abs=0.05)
    assert found.calibration_error is not None and found.calibration_error < 0.06  # sure by 0.9, right in about 0.9


def test_a_judge_that_likes_what_comes_first_is_noise() -> None:
    judge = PairwiseJudge(Scripted(first_with(0.9)), load_prompt("pairwise"))
    found = measure(judge, labelled(rows(100)), "mine")
    assert found.word == NOISE and found.accuracy is not None and found.accuracy.mean == 0.5 and found.first_bias == pytest.approx(0.9)
    assert found.consistency is not None and found.consistency.mean == 0.0 and "chance" in found.doubts[0]


def test_under_sixty_five_in_a_hundred_is_noise_however_many() -> None:
    found = measure(oracle(0.6), labelled(rows(2000)), "mine")
    assert found.accuracy is not None and found.accuracy.low > 0.5 and found.word == NOISE and "under 65 %" in found.doubts[0]


def test_invalid_verdicts_are_counted_and_too_many_are_noise() -> None:
    good = oracle(1.0)

    def script(question: Question) -> Answer:
        text = question.messages[0].content.split("[Message]\n")[1].split("\n")[0]
        return Answer("I like both.") if int(text.split()[-1]) % 4 == 0 else good.model.script(question)  # type: ignore[attr-defined]

    found = measure(PairwiseJudge(Scripted(script), load_prompt("pairwise")), labelled(rows(100)), "mine")
    assert found.invalid == {"no verdict in the text": 25} and found.accuracy is not None and found.accuracy.mean == 1.0
    assert found.accuracy.count == 75 and found.word == NOISE and found.doubts == ["25 of 100 comparisons have no valid verdict"]


def test_no_verdict_at_all_is_noise() -> None:
    found = measure(PairwiseJudge(Scripted(lambda question: Answer("Hm.")), load_prompt("pairwise")), labelled(rows(5)), "mine")
    assert found.accuracy is None and found.word == NOISE and found.consistency is None and json.dumps(found.to_dict())


def test_ties_of_people_count_for_agreement_alone() -> None:
    said = [Verdict(0.9, (), "j", "ai"), Verdict(0.5, (), "j", "ai"), Verdict(0.2, (), "j", "ai")]
    found = summarised(said, [Labelled(comparison(), human) for human in (1.0, 0.5, 0.0)], "mine")
    assert found.accuracy is not None and found.accuracy.count == 2 and found.accuracy.mean == 1.0 and found.kappa == pytest.approx(1.0)


def test_length_alone_is_shown_beside() -> None:
    """Of each pair the longer answer is the better one, and the rule that prefers it is right always."""
    found = measure(
        rule_judge("longer"),
        labelled([Example("preference", row.prompt, (_answer("long " * 9), _answer("short"))) for row in rows(50)]),
        "mine",
    )
    assert found.longer_accuracy == 1.0 and found.prefers_longer == 1.0 and found.word == USABLE and found.consistency is None


def _answer(text: str) -> Completion:
    return Completion((Message("assistant", text),))


def test_a_calibration_is_fitted_where_there_are_enough() -> None:
    """Sure by 0.99 and right in 0.75: much too sure."""
    found = measure(oracle(0.75, sure=0.99), labelled(rows(400)), "mine")
    assert found.calibration.kind in ("platt", "isotonic") and found.calibrated_error is not None and found.calibration_error is not None
    assert found.calibrated_error < 0.1 < found.calibration_error
    assert measure(oracle(0.75, sure=0.99), labelled(rows(150)), "mine").calibration.kind == "none"


def test_the_table_names_what_it_shows() -> None:
    text = table([measure(oracle(0.9), labelled(rows(60)), "mine.jsonl"), measure(rule_judge("shorter"), labelled(rows(60)), "other")])
    header, first, second = text.splitlines()
    assert header.split()[:3] == ["data", "pairs", "invalid"] and first.endswith(USABLE) and "mine.jsonl" in first and " - " in second


def test_agreement_as_the_books_have_it() -> None:
    """Cohen's kappa of the table (20, 5, 10, 15) is 0.4; Fleiss' and Krippendorff's examples are in tests/annotation."""
    cells = [("yes", "yes", 20), ("yes", "no", 5), ("no", "yes", 10), ("no", "no", 15)]
    pairs = [(a, b) for a, b, count in cells for _ in range(count)]
    said = [Judgement(str(i), who, value) for i, pair in enumerate(pairs) for who, value in zip(("a", "b"), pair, strict=True)]
    assert cohen_kappa(said).value == pytest.approx(0.4)


@pytest.mark.parametrize(("file", "pairs", "bad"), [("llmbar/Natural.json", 100, 0), ("pandalm_test/testset-v1.json", 993, 6)])
def test_real_data_is_read(file: str, pairs: int, bad: int, shared_data: Path) -> None:
    """LLMBar and PandaLM as their authors publish them, judged by length. Six answers in PandaLM are JSON booleans."""
    rows, errors = readable(str(shared_data / file))
    found = measure(rule_judge("longer"), labelled(rows), file, together=2000)
    assert found.count == pairs and len(errors) == bad and found.accuracy is not None and found.longer_accuracy is not None
    assert 0.4 < found.accuracy.mean < 0.75 and found.kappa is not None
