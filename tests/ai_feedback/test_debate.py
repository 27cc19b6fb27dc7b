"""Scripted debaters and judges through the real pipeline (science T11.1, T11.2, T11.6): who wins, what order does, what stays hidden."""

from __future__ import annotations

from math import log10

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accord.ai_feedback.asking import OUT_OF_BUDGET, Answer, Question
from accord.ai_feedback.debate.judging import QuoteOverseer
from accord.ai_feedback.debate.made_tasks import made_tasks
from accord.ai_feedback.debate.measures import RIGHT, WRONG, measured, ratings
from accord.ai_feedback.debate.protocols import PROTOCOLS
from accord.ai_feedback.debate.records import preference_row, transcript, truth_row
from accord.ai_feedback.debate.running import Rules
from accord.ai_feedback.debate.tasks import HiddenTask
from ai_feedback.debating import (
    FABRICATING,
    QUOTING,
    accuracy,
    against,
    debater,
    honest,
    judged_by,
    lying,
    played,
    trusting,
    verifying,
)
from ai_feedback.scripted import Scripted, first_with

TASKS = made_tasks(12, seed=1, decoy=0.0)
MIXED = made_tasks(24, seed=2, decoy=0.5)


@pytest.mark.parametrize("protocol", ["debate", "debate_sequential"])
def test_a_liar_loses_to_a_judge_that_verifies(protocol: str) -> None:
    """Fabricated quotes never count, so the honest side wins every debate, in both orders."""
    found = against(TASKS, debater(honest, "honest"), debater(lying, "liar"), judged_by(verifying), protocol=protocol)
    assert accuracy(found) == 1.0 and all(one.verdict.consistent for one in found)
    (row,) = measured(found)
    assert row.quotes[RIGHT].verified == row.quotes[RIGHT].quotes == row.quotes[WRONG].quotes == 4 * len(TASKS)
    assert row.quotes[WRONG].verified == 0 and row.brier == pytest.approx(0.05**2)


def test_to_a_judge_that_trusts_the_liar_is_as_good() -> None:
    """Quotes that say as much as the real ones, about as many of the question's words: no better than a coin."""
    found = against(TASKS, FABRICATING, FABRICATING, QuoteOverseer(trusts=True))
    assert accuracy(found) == 0.5 and not any(one.verdict.choice is not None for one in found)
    assert accuracy(against(TASKS, FABRICATING, FABRICATING, QuoteOverseer())) == 1.0
    persuaded = against(TASKS, debater(honest, "honest"), debater(lying, "liar"), judged_by(trusting))
    assert accuracy(persuaded) <= 0.5


def test_consultancy_with_a_gullible_judge_is_a_coin() -> None:
    """One that argues for the right answer half the time is believed all the time."""
    for consultant, judge in ((debater(lying, "liar"), judged_by(trusting)), (FABRICATING, QuoteOverseer(trusts=True))):
        found = played(TASKS, "consultancy", [consultant], judge)
        assert accuracy(found) == 0.5 and len(found) == 2 * len(TASKS)
        assert [one.correct for one in found if one.case.right_debater] == [1.0] * len(TASKS)
        assert [one.correct for one in found if one.case.wrong_debater] == [0.0] * len(TASKS)


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
@pytest.mark.parametrize("probability", [1.0, 0.8])
def test_a_judge_that_likes_what_comes_first(protocol: str, probability: float) -> None:
    """0.5 everywhere and consistent nowhere, under every protocol."""
    found = played(TASKS, protocol, [debater(honest, "honest")], judged_by(first_with(probability)))
    assert [one.verdict.probability for one in found] == pytest.approx([0.5] * len(found)) and accuracy(found) == 0.5
    (row,) = measured(found)
    assert row.consistency is not None and row.consistency.mean == 0.0 and row.first_bias == pytest.approx(probability)


def test_swapped_answers_change_nothing_for_a_judge_without_a_side() -> None:
    """The same verdict on a task whose answers stand the other way round."""
    turned = [HiddenTask(one.question, one.evidence, (one.answers[1], one.answers[0]), 1 - (one.right or 0)) for one in MIXED]
    for protocol in PROTOCOLS:
        kept, swapped = (played(tasks, protocol, [QUOTING], QuoteOverseer()) for tasks in (MIXED, turned))
        towards = [one.towards_right for one in kept]
        if protocol == "consultancy":  # for either answer in turn
            assert towards == [one.towards_right for index in range(len(MIXED)) for one in swapped[2 * index : 2 * index + 2][::-1]]
        elif protocol != "direct":  # its excerpt is drawn by the task
            assert towards == [one.towards_right for one in swapped]


def test_debate_gains_where_evidence_is_hidden() -> None:
    """Real quotes on both sides: the one about another thing has fewer of the question's words. Without debaters nothing is known."""
    found = [one for name in PROTOCOLS for one in played(MIXED, name, [QUOTING], QuoteOverseer())]
    rows = {one.protocol: one for one in measured(found)}
    right = {name: row.accuracy.mean for name, row in rows.items() if row.accuracy is not None}
    assert right["debate"] == right["debate_sequential"] == right["oracle"] == 1.0
    assert right["naive"] == 0.5 <= right["direct"] < 1.0 and 0.5 <= right["consultancy"] < 1.0
    gained = rows["debate"].minus_naive
    assert gained is not None and gained.low > 0 and gained.mean == 0.5 and rows["naive"].minus_naive is None


def test_who_has_heard_what() -> None:
    """At the same time: nobody has heard this round. One after the other: the second has heard the first."""
    heard: dict[str, list[int]] = {}
    for protocol in ("debate", "debate_sequential", "consultancy"):
        scripted = debater(honest, protocol)
        played(TASKS[:1], protocol, [scripted], judged_by(verifying), rounds=2)
        assert isinstance(scripted.model, Scripted)
        heard[protocol] = [question.messages[0].content.count("(round ") for question in scripted.model.asked]
    assert sorted(heard["debate"]) == [0] * 4 + [2] * 4
    assert sorted(heard["debate_sequential"]) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert sorted(heard["consultancy"]) == [0] * 4 + [1] * 4


HEARD = st.text(alphabet='ab<>/"“” \n', max_size=12)
PIECES = st.lists(
    st.sampled_from(
        [
            "<thinking>SECRET</thinking>",
            "<think>SECRET <argument>SECRET</argument></think>",
            "<THINKING>SECRET<thinking>SECRET</thinking></THINKING>",
            "<scratchpad>SECRET</scratchpad >",
            "<argument>open</argument>",
            "<argument><quote>never said</quote></argument>",
            "<argument>x <thinking>SECRET</thinking> y</argument>",
        ]
    )
    | HEARD,
    max_size=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PIECES.map("".join), min_size=1, max_size=3), st.sampled_from(["", "<thinking>SECRET", "SECRET</thinking>"]), st.booleans())
def test_nothing_hidden_reaches_judge_or_rival(texts: list[str], end: str, tagged: bool) -> None:
    """Whatever debaters write: no thinking and none of the evidence that they did not say, in any question to anybody else."""
    evidence = "The vault EVIDENCE holds one key. The door EVIDENCE is blue."
    task = HiddenTask("Which color is the door?", evidence, ("blue", "red"), 0)
    said = [f"{end}{text}" if end.startswith("SECRET") else f"{text}{end}" for text in texts]
    drawn = iter(range(10**6))

    def script(question: Question) -> Answer:
        return Answer(said[next(drawn) % len(said)])

    for protocol in ("debate", "debate_sequential", "consultancy", "naive"):
        speaker = debater(script, "d", prompt="debater" if tagged else "debater_short")
        judge = judged_by(first_with(0.7))
        (*_, decision) = played([task], protocol, [speaker], judge)
        assert isinstance(speaker.model, Scripted) and isinstance(judge.judge.model, Scripted)
        for question in judge.judge.model.asked:
            text = question.messages[-1].content
            assert "SECRET" not in text and "EVIDENCE" not in text
            assert "<v_quote>" not in text.split("Question:", 1)[1]  # nothing of the evidence was quoted
        for question in speaker.model.asked:
            assert "SECRET" not in question.messages[-1].content
        kept = transcript(decision, Rules())
        assert all("SECRET" not in run["judge_sees"] and "EVIDENCE" not in run["judge_sees"] for run in kept["runs"])
        assert all(turn["raw"] in said for run in kept["runs"] for turn in run["turns"])  # where everything is kept


def test_a_question_that_cannot_be_asked_is_invalid() -> None:
    """A budget that stops a debater leaves the case without a verdict and the judge unasked; the others go on."""
    broken = TASKS[0].question

    def script(question: Question) -> Answer:
        return Answer(error=OUT_OF_BUDGET) if broken in question.messages[0].content else honest(question)

    judge = judged_by(verifying)
    found = played(TASKS[:3], "debate", [debater(script, "poor")], judge)
    assert [one.verdict.invalid for one in found] == [f"a debater: {OUT_OF_BUDGET}", None, None]
    assert found[0].correct is None and isinstance(judge.judge.model, Scripted) and len(judge.judge.model.asked) == 4
    (row,) = measured(found)
    assert row.invalid == {f"a debater: {OUT_OF_BUDGET}": 1} and row.accuracy is not None and row.accuracy.count == 2


def test_verdicts_are_preference_rows() -> None:
    """The right answer first where the judge was right, its probability as the label, evidence in the prompt, and who said so."""
    (decision,) = against(TASKS[:1], debater(honest, "honest"), debater(lying, "liar"), judged_by(verifying))
    row, task = preference_row(decision, {"rules": "r"}), TASKS[0]
    assert task.right is not None and row.completions[0].text == task.answers[task.right]
    assert row.probability == pytest.approx(0.95) and row.columns["label_source"] == "debate" and row.columns["protocol"] == "debate"
    assert task.evidence in row.prompt[0].content and row.prompt[0].content.endswith(task.question)
    assert row.columns["judge"]["debaters"] == ["honest", "liar"][:: 1 if task.right == 0 else -1] and row.columns["judge"]["rules"] == "r"
    truth = truth_row(task)
    assert truth.prompt == row.prompt and truth.completions == row.completions and truth.probability is None
    (silent,) = played(TASKS[:1], "naive", [], judged_by(first_with(0.7)))
    assert preference_row(silent, {}).columns["label_source"] == "ai"


def test_ratings_of_debaters() -> None:
    """One that lies to a judge that verifies: persuasive for the truth alone. A judge that is always sure leaves no finite rating."""
    speakers = [debater(honest, "honest"), debater(lying, "liar")]
    found = played(MIXED, "debate", speakers, judged_by(verifying))
    assert len(found) == 4 * len(MIXED)
    rated = ratings(found)
    assert rated.problem is None
    points = {name: interval.mean for name, interval in rated.points.items()}
    assert points[f"honest, {RIGHT}"] > max(points[f"honest, {WRONG}"], points[f"liar, {WRONG}"], points[f"liar, {RIGHT}"])
    assert sum(points.values()) == pytest.approx(0.0, abs=1e-6)
    certain = ratings(played(TASKS, "debate", [QUOTING], QuoteOverseer()))
    assert not certain.points and "never lost" in (certain.problem or "")
    assert "no decision has two debaters" in (ratings(played(TASKS, "naive", [], QuoteOverseer())).problem or "")


def test_one_debater_against_itself_is_the_log_of_the_odds() -> None:
    found = played(MIXED, "debate", [QUOTING], judged_by(lambda question: verifying(question)))
    towards = [one.towards_right for one in found]
    share = sum(value for value in towards if value is not None) / len(towards)
    rated = ratings(found)
    gap = rated.points[f"rule:quote, {RIGHT}"].mean - rated.points[f"rule:quote, {WRONG}"].mean
    assert gap == pytest.approx(400 * log10(share / (1 - share)), abs=1e-4)
