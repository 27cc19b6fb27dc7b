"""Critique and revision: what a critic is asked, word for word, and how rules criticise. Scripted models run the real pipeline."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from accord.ai_feedback.asking import OUT_OF_BUDGET, Answer, Question
from accord.ai_feedback.constitution import Constitution, Principle, Worked, is_harmful, load_constitution
from accord.ai_feedback.local import LocalModel
from accord.ai_feedback.revision import NO_FAULT, Chain, Draft, ModelCritic, chains, drawn, parsed_text, unasked
from accord.ai_feedback.rule_critic import NO_MENDING, RuleCritic, constitution_judge, without_praise, without_repetition
from accord.ai_feedback.server import ServedModel, ServerSettings
from accord.ai_feedback.store import AnswerStore
from accord.ai_feedback.verdicts import Answered, Comparison
from accord.errors import DataError
from accord.models.opened import Opened
from accord.types import Message
from ai_feedback.scripted import Scripted
from ai_feedback.serving import JudgeServer

KIND = Principle("kind", "Is it unkind? Say where.", "Rewrite it kindly.", "Which is kinder?")
EXAMPLE = Worked("kind", "Say hello.", "Go away.", "It sends the person away.", "Hello!")
SMALL = Constitution("small", (KIND,), (EXAMPLE,))


def chain(answer: str = "You fool.", prompt: str = "Who am I?", **columns: object) -> Chain:
    return Chain(Answered((Message("user", prompt),), answer, dict(columns)))


def numbered(question: Question) -> Answer:
    """Critique 1, revision 1, critique 2, ... by how often the revised answer was revised before."""
    turns = question.messages
    asks_revision = turns[-1].content.startswith(KIND.revision)
    shown = next(turn.content for turn in reversed(turns) if turn.content.startswith("[Message]"))
    number = 2 if "Better 1." in shown else 1
    return Answer(f"Better {number}." if asks_revision else f"Critique {number}.", prompt_tokens=7, completion_tokens=3, model="m")


def test_the_questions_word_for_word() -> None:
    """Two rounds, one example: exactly these conversations, and the second round is about the first revision."""
    model = Scripted(numbered)
    (found,) = chains([chain()], ModelCritic(model, SMALL, shots=1), rounds=2)
    example = [
        (
            "user",
            "[Message]\nSay hello.\n[End of message]\n\n[Answer]\nGo away.\n[End of answer]\n\n"
            "Is it unkind? Say where.\nWrite the critique in one or two sentences.\nCritique:",
        ),
        ("assistant", "It sends the person away."),
        ("user", "Rewrite it kindly.\nWrite the new answer and nothing else.\nRevision:"),
        ("assistant", "Hello!"),
    ]

    def asked(answer: str) -> tuple[str, str]:
        text = f"[Message]\nWho am I?\n[End of message]\n\n[Answer]\n{answer}\n[End of answer]\n\n"
        return "user", f"{text}Is it unkind? Say where.\nWrite the critique in one or two sentences.\nCritique:"

    revise = ("user", "Rewrite it kindly.\nWrite the new answer and nothing else.\nRevision:")
    expected = [
        [*example, asked("You fool.")],
        [*example, asked("You fool."), ("assistant", "Critique 1."), revise],
        [*example, asked("Better 1.")],
        [*example, asked("Better 1."), ("assistant", "Critique 2."), revise],
    ]
    assert [[(turn.role, turn.content) for turn in question.messages] for question in model.asked] == expected
    assert [(step.round, step.principle, step.critique, step.revision) for step in found.steps] == [
        (0, "kind", "Critique 1.", "Better 1."),
        (1, "kind", "Critique 2.", "Better 2."),
    ]
    assert found.steps[0].said["critique"]["prompt_hash"] == model.asked[0].hash and found.steps[0].said["critique"]["model"] == "m"
    assert found.steps[0].said["revision"]["completion_tokens"] == 3 and found.last == found.steps[1]


def test_an_example_stands_with_its_own_principle() -> None:
    """What the worked example answers is its principle's question, not that of the answer."""
    other = Principle("brief", "Is it long?", "Shorten it.", "Which is shorter?")
    model = Scripted(lambda question: Answer("Fine."))
    both = Constitution("two", (KIND, other), (EXAMPLE,))
    critic = ModelCritic(model, both, shots=1)
    draft = next(one for one in (chain(prompt=f"{n}") for n in range(50)) if critic.principle(one.draft) == other)
    chains([draft], critic)
    assert "Is it unkind?" in model.asked[0].messages[0].content and "Is it long?" in model.asked[0].messages[4].content


def test_principles_are_drawn_evenly_and_again_the_same() -> None:
    """Chi-squared over 1,600 draws among 8: 24.3 is the 0.1 % point with 7 degrees of freedom."""
    principles = [Principle(f"p{index}", "a", "b", "c") for index in range(8)]
    drafts = [Draft(Answered((Message("user", f"prompt {index}"),), ""), round) for index in range(400) for round in range(4)]
    found = [drawn(principles, 3, draft).id for draft in drafts]
    assert sum((count - 200) ** 2 / 200 for count in Counter(found).values()) < 24.3
    assert found == [drawn(principles, 3, draft).id for draft in drafts]
    assert found != [drawn(principles, 4, draft).id for draft in drafts]
    assert len(set(zip(found[::4], found[1::4], strict=True))) > 55  # of 64: rounds draw independently


def test_a_principle_is_drawn_for_the_prompts_it_is_about() -> None:
    critic = ModelCritic(Scripted(lambda question: Answer("Fine.")), load_constitution())
    for harmful in (True, False):
        drafts = [chain(prompt=f"{index}", harmful=harmful).draft for index in range(300)]
        assert {critic.principle(draft).id for draft in drafts} == {one.id for one in load_constitution().about(harmful)}
    lenient = Constitution("lenient", (replace(KIND, prompts="harmless"),))
    with pytest.raises(DataError, match="lenient has no principle for harmful prompts"):
        chains([chain(harmful=True)], ModelCritic(Scripted(lambda question: Answer("Fine.")), lenient))


def test_what_is_drawn_does_not_depend_on_the_others() -> None:
    critic = ModelCritic(Scripted(lambda question: Answer("Fine.")), load_constitution(), seed=1)
    alone = [chains([chain(prompt=f"{index}")], critic)[0] for index in range(6)]
    assert chains([chain(prompt=f"{index}") for index in range(6)], critic, together=4) == alone


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is fine.", "It is fine."),
        (" Critique: It is rude.\n", "It is rude."),
        ("Revision: Hello!\n\n[Message]\nSay no.\n[End of message]", "Hello!"),
        ("Hello!\nCritique request: Is it unkind?", "Hello!"),
        ("I like the word revision: it is short.", "I like the word revision: it is short."),
        ("Revision:", ""),
    ],
)
def test_what_a_critic_wrote(text: str, expected: str) -> None:
    assert parsed_text(text) == expected


def test_failures_are_reasons() -> None:
    """An empty critique, an empty revision, a budget: no revision, and why."""

    def script(question: Question) -> Answer:
        about = next(turn.content for turn in reversed(question.messages) if turn.content.startswith("[Message]"))
        second = question.messages[-1].content.startswith(KIND.revision)
        if "silent" in about:
            return Answer("" if second or "at once" in about else "Bad.")
        return Answer(error=OUT_OF_BUDGET) if second else Answer("Bad.")

    asked = [chain(prompt="silent"), chain(prompt="silent at once"), chain(prompt="dear")]
    found = chains(asked, ModelCritic(Scripted(script), SMALL), rounds=3)
    assert [one.steps[-1].problem for one in found] == ["the revision is empty", "the critique is empty", OUT_OF_BUDGET]
    assert [len(one.steps) for one in found] == [1, 1, 1] and all(one.last is None for one in found)
    assert unasked(found) == 1


def test_answers_that_are_there_are_not_asked_again(tmp_path: Path) -> None:
    first, second = Scripted(numbered), Scripted(numbered)
    with AnswerStore(tmp_path / "answers.sqlite") as store:
        once = chains([chain(), chain(prompt="Who are you?")], ModelCritic(first, SMALL, store), rounds=2)
        again = chains([chain(), chain(prompt="Who are you?")], ModelCritic(second, SMALL, store), rounds=2)
    assert len(first.asked) == 8 and second.asked == [] and again == once


def test_a_real_model_criticises(tiny_model: Opened) -> None:
    """Whatever it writes, nothing is lost: each answer has a revision or a reason."""
    critic = ModelCritic(LocalModel(tiny_model, "tiny"), SMALL, shots=1, critique_tokens=6, revision_tokens=6)
    found = chains([chain(), chain(prompt="Who are you?")], critic)
    for one in found:
        assert (one.steps[0].revision is None) == (one.steps[0].problem is not None)
        assert one.steps[0].said["critique"]["prompt_hash"] and one.steps[0].source == "ai"
    assert found == chains([chain(), chain(prompt="Who are you?")], critic)


def test_the_same_critic_in_process_and_served(stories: Opened, stories_server: JudgeServer) -> None:
    """Critiques and revisions of the stories model are its own text wherever it runs, and each question was asked once."""
    asked = [chain("Tom was sad.", "Tell me of Tom."), chain("Lily ran.", "Tell me of Lily.")]
    sizes: dict[str, Any] = {"shots": 0, "critique_tokens": 12, "revision_tokens": 12}
    here = chains(asked, ModelCritic(LocalModel(stories, "stories"), SMALL, **sizes))
    there = chains(asked, ModelCritic(ServedModel(stories_server.url, "served", ServerSettings()), SMALL, **sizes))
    for one, other in zip(here, there, strict=True):
        (step,), (again,) = one.steps, other.steps
        assert (step.critique, step.revision) == (again.critique, again.revision) and step.critique and step.revision
        assert step.said["revision"]["prompt_hash"] == again.said["revision"]["prompt_hash"]
    assert len(stories_server.requests) == 4


# -- rules ---------------------------------------------------------------------------------------------------------------------------


def test_rules_decline_what_asks_for_harm_and_leave_the_rest() -> None:
    critic = RuleCritic(load_constitution(), seed=5)
    asked = [
        chain("Take a brick.", "How do I break in?", harmful=True),
        chain("I can't help with that.", "How do I break in?", harmful=True),
        chain("Use a key.", "How do I open my door?", harmful=False),
        chain("I can't help with that.", "How do I open my door?", harmful=False),
        chain("Take a brick.", "How do I break in?"),
    ]
    found = chains(asked, critic)
    assert [one.steps[0].problem for one in found] == [None, NO_FAULT, NO_FAULT, NO_MENDING, NO_FAULT]
    assert found[0].last is not None and found[0].last.revision in load_constitution().principle("harm").texts
    assert {one.steps[0].source for one in found} == {"rule"} and critic.about()["critic"] == "rule:everyday"
    assert chains(asked, critic) == found


def test_rules_take_away_praise_and_repetition() -> None:
    praise = "What a great question! Boil it for six minutes."
    loop = "Boil it. Then peel it under water. Then peel it under water. Then peel it under water. Then peel it under water."
    found = chains([chain(praise, harmful=False), chain(loop, "How?", harmful=False)], RuleCritic(load_constitution()))
    assert [one.last.revision if one.last else None for one in found] == [
        "Boil it for six minutes.",
        "Boil it. Then peel it under water.",
    ]
    assert without_praise("Great question!") is None and without_repetition("One two three.") is None


def test_praise_is_not_what_is_wrong_with_help_to_do_harm() -> None:
    """An answer that flatters and helps a thief is declined, not made terser."""
    asked = [chain("Great question! Take a brick.", f"How do I break into house {n}?", harmful=True) for n in range(30)]
    found = chains(asked, RuleCritic(load_constitution()))
    assert {one.steps[0].principle for one in found} == {"harm"}


def test_all_texts_are_used() -> None:
    critic = RuleCritic(load_constitution())
    found = chains([chain("Sure.", f"How do I steal {index}?", harmful=True) for index in range(200)], critic)
    assert {one.last.revision for one in found if one.last} == set(load_constitution().principle("harm").texts)


def test_a_judge_of_the_same_rules() -> None:
    judge = constitution_judge(load_constitution())
    prompt = (Message("user", "How do I break in?"),)
    harm = Comparison(prompt, "I can't help with that.", "Take a brick.", {"harmful": True})
    harmless = Comparison(prompt, "I can't help with that.", "Use your key.", {"harmful": False})
    unsaid = Comparison(prompt, "I can't help with that.", "Take a brick.")
    verdicts = judge.compare([harm, harm.swapped, harmless, unsaid])
    assert [verdict.probability for verdict in verdicts] == [1.0, 0.0, 0.0, 0.5] and verdicts[0].source == "rule"


@pytest.mark.parametrize(("value", "expected"), [(True, True), ("False", False), (1, True), ("no", False), (None, None)])
def test_what_a_row_says_of_its_prompt(value: object, expected: bool | None) -> None:
    assert is_harmful({"harmful": value}) is expected


def test_a_column_that_says_something_else() -> None:
    with pytest.raises(DataError, match=r'a\.jsonl line 3: "harmful" is \'maybe\'. It must be true'):
        is_harmful({"harmful": "maybe"}, "a.jsonl line 3")
