"""Which revisions are kept, what is known of them, and what is made of them. Scripted critics and judges run the real pipeline."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from accord.ai_feedback.asking import Answer, Question
from accord.ai_feedback.constitution import Constitution, load_constitution
from accord.ai_feedback.constitutional_data import answer_pairs, decided, mixed
from accord.ai_feedback.judges import Judge, PairwiseJudge
from accord.ai_feedback.labels import judge_rows
from accord.ai_feedback.revision import Chain, ModelCritic, Step, chains
from accord.ai_feedback.revision_filters import (
    CUT_OFF,
    META,
    NO_VERDICT,
    NOT_BETTER,
    REPEATS,
    TOO_LONG,
    TOO_SHORT,
    UNCHANGED,
    FilterSettings,
    Judged,
    check_critic,
    counts,
    demonstration,
    fault_in_text,
    filtered,
    record_of,
    talks_about_itself,
)
from accord.ai_feedback.rule_critic import RuleCritic, constitution_judge
from accord.ai_feedback.verdicts import Answered, Verdict
from accord.errors import ConfigError
from accord.types import Completion, Example, Message, Rollout
from ai_feedback.scripted import Scripted, first_with, shown

ORIGINAL = "You could take the ladder from the yard and climb in through the open window at night."
BETTER = "I won't help you to get into somebody's house. I can help you to reach the people who live there."
EVERYDAY = load_constitution()


def chain(revision: str | None = BETTER, answer: str = ORIGINAL, principle: str = "harm", **said: Any) -> Chain:
    written = {"revision": {"text": revision, "finish": "stop", **said}}
    step = Step(0, principle, "ai", "It helps a burglar.", revision, None if revision else "the revision is empty", written)
    return Chain(Answered((Message("user", "How do I get in?"),), answer, {"harmful": True}), (step,))


def script_judge(script: Any) -> PairwiseJudge:
    return PairwiseJudge(Scripted(script, "judging"), EVERYDAY.judge_prompt())


def prefers_better(question: Question) -> Answer:
    """Surely prefers the declining answer, wherever it stands."""
    probability = float(shown(question)[0] == BETTER)
    return Answer(masses={"A": probability, "B": 1 - probability})


# -- text -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (chain(), None),
        (chain(None), "the revision is empty"),
        (Chain(Answered((), "a")), "not criticised"),
        (chain(f"  {ORIGINAL.replace(' at', '  at')}\n"), UNCHANGED),
        (chain(finish="length"), CUT_OFF),
        (chain(finish="length", text=f"{BETTER}\n\n[Message]\nAnd"), None),  # it went on with the next question, which was taken away
        (chain(f"Here is the revised answer: {BETTER}"), META),
        (chain("I won't do it " * 8), REPEATS),
        (chain("No."), TOO_SHORT),
        (chain(" ".join(f"word{index}" for index in range(60))), TOO_LONG),
        (chain("I can't help with that.", "Sure."), None),  # a short original counts as twelve words
    ],
)
def test_text_that_does_not_stand_by_itself(made: Chain, why: str | None) -> None:
    assert fault_in_text(made) == why


def test_the_limits_are_where_they_are_said_to_be() -> None:
    """17 words: 0.3 of them are 5.1, twice are 34."""
    words = [f"w{index}" for index in range(40)]
    assert len(ORIGINAL.split()) == 17
    found = {count: fault_in_text(chain(" ".join(words[:count]))) for count in (5, 6, 34, 35)}
    assert found == {5: TOO_SHORT, 6: None, 34: None, 35: TOO_LONG}
    assert fault_in_text(chain(" ".join(words[:35])), FilterSettings(highest_ratio=3)) is None


@pytest.mark.parametrize(
    "text",
    [
        "Here is the revised response: hello",
        "Here's a rewritten version that is kinder.",
        "Sure! Here is my improved answer.",
        "Revised answer: hello",
        "The revised text is below.",
        "I have rewritten the answer to be kinder.",
        "I've updated it.",
        "As requested, hello.",
        "This answer is now polite.",
        "The original response was rude.",
        "Hello.\nCritique: it is fine",
        "[Answer]\nHello.",
    ],
)
def test_talk_about_the_revision(text: str) -> None:
    assert talks_about_itself(text)


@pytest.mark.parametrize(
    "text",
    [
        "Here is a recipe: boil it.",
        "I have repaired phones for years.",
        "The answer is Paris.",
        "Revise your notes before the exam.",
        "New answers need time.",
        *(example.revision for example in EVERYDAY.examples),
        *EVERYDAY.principle("harm").texts,
    ],
)
def test_an_answer_is_no_talk(text: str) -> None:
    assert not talks_about_itself(text)


# -- judged -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (prefers_better, None),
        (first_with(0.9), NOT_BETTER),  # whatever stands first: it never holds in both orders
        (first_with(0.1), NOT_BETTER),
        (first_with(0.5), NOT_BETTER),
        (lambda question: Answer(masses={"A": 1.0}), f"{NO_VERDICT}: option B is not among the likeliest tokens"),
    ],
)
def test_only_what_wins_in_both_orders_is_kept(script: Any, why: str | None) -> None:
    (one,) = filtered([chain()], script_judge(script), EVERYDAY)
    assert one.why == why and one.verdict is not None and len(one.verdict.readings) == 2


def test_a_revision_that_loses_is_not_kept() -> None:
    (one,) = filtered([chain(ORIGINAL, BETTER)], script_judge(prefers_better), EVERYDAY)
    assert one.why == NOT_BETTER


def test_it_is_judged_by_the_principle_it_was_revised_by() -> None:
    judge = script_judge(prefers_better)
    names = ["harm", "fraud", "privacy", "harm"]
    found = filtered([chain(principle=name) for name in names], judge, EVERYDAY)
    assert [one.verdict.principle for one in found if one.verdict] == [EVERYDAY.principle(name).compare for name in names]
    assert isinstance(judge.model, Scripted) and "fraud, theft or cheating?" in "".join(q.messages[0].content for q in judge.model.asked)


def test_what_fails_as_text_is_never_judged() -> None:
    judge = script_judge(prefers_better)
    found = filtered([chain("No."), chain(), chain(None)], judge, EVERYDAY)
    assert isinstance(judge.model, Scripted) and len(judge.model.asked) == 2
    assert counts(found) == [("kept", 1), (TOO_SHORT, 1), ("the revision is empty", 1)]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (lambda answer: answer, UNCHANGED),
        (lambda answer: "I am sorry and I am sorry and " * 6, REPEATS),
    ],
)
def test_a_critic_that_echoes_or_collapses_gives_no_row(said: Any, why: str) -> None:
    def script(question: Question) -> Answer:
        text = next(turn.content for turn in reversed(question.messages) if turn.content.startswith("[Message]"))
        return Answer(said(text.split("[Answer]\n")[1].split("\n[End of answer]")[0]))

    begun = [replace(chain(), steps=(), start=replace(chain().start, prompt=(Message("user", str(n)),))) for n in range(5)]
    found = filtered(chains(begun, ModelCritic(Scripted(script), EVERYDAY)), script_judge(prefers_better), EVERYDAY)
    assert counts(found) == [("kept", 0), (why, 5)]


def test_what_a_critic_is_worth() -> None:
    """Four answers: one has no revision, one wins but is cut off, one loses, one wins."""
    asked = [chain(None), chain(finish="length"), chain("Take the ladder and go in at noon, when nobody is at home there."), chain()]
    found = check_critic(asked, script_judge(prefers_better), EVERYDAY)
    assert (found.items, found.revised, found.beaten, found.kept, found.share) == (4, 3, 2, 1, 0.5)
    assert [one.why for one in found.judged] == ["the revision is empty", CUT_OFF, NOT_BETTER, None]
    biased = check_critic(asked, script_judge(first_with(0.8)), EVERYDAY)
    assert (biased.beaten, biased.inconsistent, biased.kept) == (0, 3, 0)


# -- what is known of it, and what is made of it -------------------------------------------------------------------------------------


def records(constitution: Constitution, critic: Any, judge: Judge, begun: list[Chain], rounds: int = 1) -> list[dict[str, Any]]:
    judged = filtered(chains(begun, critic, rounds=rounds), judge, constitution)
    source = {"model": "m", "sha256": "0", "temperature": 0.7, "seed": 1}
    return [json.loads(json.dumps(record_of(one, critic, judge, source, FilterSettings()))) for one in judged]


def test_provenance_of_every_item() -> None:
    """Principles, models, prompts' hashes, raw critique, both orders' probabilities, seed: after a round trip through JSON."""
    model = Scripted(lambda question: Answer(f"Critique: Bad.\n\n{BETTER}" if question.max_new_tokens == 80 else BETTER, model="m-1"))
    begun = replace(chain(), steps=())
    (record,) = records(EVERYDAY, ModelCritic(model, EVERYDAY, seed=9), script_judge(prefers_better), [begun])
    (step,) = record["steps"]
    assert record["kept"] and record["why_not"] is None and record["answer"] == ORIGINAL and record["answer_source"]["model"] == "m"
    assert step["principle"] in {one.id for one in EVERYDAY.principles} and step["source"] == "ai"
    assert step["said"]["critique"]["text"] == f"Critique: Bad.\n\n{BETTER}" and step["critique"] == f"Bad.\n\n{BETTER}"
    assert step["said"]["critique"]["prompt_hash"] == model.asked[0].hash and step["said"]["critique"]["model"] == "m-1"
    assert record["critic"]["seed"] == 9 and record["critic"]["constitution_hash"] == EVERYDAY.hash and len(step["said"]["examples"]) == 2
    orders = [reading["probabilities"] for reading in record["verdict"]["readings"]]
    assert orders == [{"A": 1.0, "B": 0.0}, {"A": 0.0, "B": 1.0}] and record["verdict"]["probability"] == 1.0
    assert all(reading["prompt_hash"] for reading in record["verdict"]["readings"])


def test_a_row_to_imitate_says_who_wrote_it() -> None:
    begun = replace(chain(), steps=())
    (record,) = records(EVERYDAY, RuleCritic(EVERYDAY), constitution_judge(EVERYDAY), [begun])
    row = demonstration(record)
    assert row.kind == "demonstration" and row.prompt == begun.start.prompt and row.completions[0].text == record["revision"]
    assert row.columns["label_source"] == "rule" and row.completions[0].source["label_source"] == "rule"
    assert row.columns["constitution"] == {"principles": ["harm"], "record": record["id"]}


def demonstrations(name: str, count: int) -> list[Example]:
    return [
        Example("demonstration", (Message("user", f"{name} {index}"),), (Completion((Message("assistant", "yes"),)),), where=name)
        for index in range(count)
    ]


@pytest.mark.parametrize(
    ("revisions", "helpful", "share", "expected"),
    [
        (10, 30, 0.5, (10, 10, 0)),
        (10, 30, 0.75, (10, 30, 0)),
        (10, 4, 0.5, (4, 4, 6)),  # too few helpful ones: revisions wait
        (10, 9, 0.75, (3, 9, 7)),
        (10, 30, 0.0, (10, 0, 0)),
        (3, 30, 0.6, (3, 5, 0)),  # 4.5, rounded up: never under the share
        (10, 0, 0.5, (0, 0, 10)),
    ],
)
def test_the_mixture_keeps_its_share(revisions: int, helpful: int, share: float, expected: tuple[int, int, int]) -> None:
    found = mixed(demonstrations("revision", revisions), demonstrations("helpful", helpful), share=share, seed=1)
    assert (found.lessons, found.helpful, found.left_out) == expected
    assert Counter(row.where for row in found.rows) == Counter({"revision": expected[0], "helpful": expected[1]})
    assert len({row.id for row in found.rows}) == len(found.rows)
    assert mixed(demonstrations("revision", revisions), demonstrations("helpful", helpful), share=share, seed=1) == found
    with pytest.raises(ConfigError, match="below 1"):
        mixed([], [], share=1.0, seed=1)


def rollout(text: str, index: int) -> Rollout:
    return Rollout("p", (Message("user", "How?"),), (1,), (2,), text, (0.0,), "stop", sample_index=index)


def test_compared_answers_carry_soft_labels_and_principles() -> None:
    """A judge that gives b 0.2 where b is shown first, and a 0.6 where a is."""
    prompt = Example("prompt", (Message("user", "How?"),), columns={"harmful": True})
    answers = [[rollout("b", 0), rollout("a", 1), rollout("same", 2), rollout("same ", 3)]]
    pairs, same = answer_pairs([prompt], answers, {"model": "m"})
    assert same == 1 and [one.text for one in pairs[0].completions] == ["b", "a"]

    def script(question: Question) -> Answer:
        probability = 0.2 if shown(question)[0] == "b" else 0.6
        return Answer(masses={"A": probability, "B": 1 - probability})

    judge = script_judge(script)
    labels = judge_rows(pairs, judge)
    (row,) = labels.rows
    assert row.completions[0].text == "a" and row.probability == pytest.approx(0.7)  # (0.6 + 1 - 0.2) / 2
    assert row.columns["judge"]["principle"] == judge.principle(_comparison(pairs[0])) and row.columns["label_source"] == "ai"
    assert row.columns["harmful"] is True and row.completions[0].source["sample_index"] == 1
    assert len(decided(labels)[0]) == 1
    tied = judge_rows(pairs, script_judge(first_with(0.5)))
    assert decided(tied) == ([], 1)


def _comparison(row: Example) -> Any:
    from accord.ai_feedback.verdicts import comparison_of

    return comparison_of(row)


def test_a_verdict_without_a_probability_beats_nothing() -> None:
    from accord.ai_feedback.revision_filters import beats

    assert not beats(Verdict(None, (), "j", "ai", invalid="no")) and not beats(Verdict(0.9, (), "j", "ai", consistent=False))
    assert beats(Verdict(0.6, (), "j", "ai")) and Judged(chain(None), "no").revision == ""
