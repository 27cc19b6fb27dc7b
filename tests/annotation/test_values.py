"""What annotations may say, what is refused and how, and the examples they become: by hand, no database."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from accord.data.annotation_examples import MARGINS, examples_of, step_labels, tasks_of
from accord.data.annotation_values import check_annotation, check_task, kinds_for
from accord.errors import ConfigError, DataError
from accord.types import Annotation, Completion, Example, Message, Task, from_json, task_id, to_json
from labelling import answer, pair, prompt, talk, task

PAIR = pair(1)
RANKING = task("ranking", "Which?", answer("a"), answer("b"), answer("c"))
RATING = task("rating", "How good?", answer("fine"))
STEPS = task("steps", "2+2+2?", answer("2+2=4", "4+2=7", "So 7"))
EDIT = task("edit", "Say hello.", answer("Helo."))
CHAT = task("chat", "Be brief.")
ONE = task("chat", "Hi", talk("Hello.", "2+2?", "5"))
TWO = task("chat", "Hi", talk("Hello.", "2+2?", "5"), talk("Yo.", "2+2?", "4", "Sure?", "Yes."))
TASKS = {"pair": PAIR, "ranking": RANKING, "rating": RATING, "steps": STEPS, "edit": EDIT, "chat": CHAT, "one": ONE, "two": TWO}


def said(kind: Any, value: Any, on: Task, **more: Any) -> Annotation:
    return Annotation("x1", on.id, kind, value, "anna", **more)


GOOD = [
    said("pair", {"choice": 0}, PAIR, strength=4),
    said("pair", {"choice": "tie"}, PAIR, probability=0.5),
    said("pair", {"choice": "both_bad"}, PAIR, shown_order=(1, 0), seconds=2.5, rationale="Both rude."),
    said("ranking", {"ranks": [2, 1, 2]}, RANKING),
    said("rating", {"rating": 7, "flags": ["wrong", "rude"]}, RATING),
    said("steps", {"labels": [1, -1, None]}, STEPS),
    said("steps", {"first_error": 1, "alternative": {"step": 1, "text": "4+2=6"}}, STEPS),
    said("steps", {"first_error": None}, STEPS),
    said("edit", {"of": 0, "text": "Hello."}, EDIT),
    said("edit", {"of": 1, "text": "No, never."}, PAIR),
    said(
        "chat",
        {"turns": [{"user": "Hi", "answers": ["Yes", "No"], "choice": 1, "strength": 2}, {"user": "And?", "answers": ["So."]}]},
        CHAT,
    ),
    said("chat", {"turns": [{"turn": 0, "rating": 6, "flags": ["rude"]}, {"turn": 1, "rating": 2, "text": "4"}]}, ONE),
    said("chat", {"turns": [{"turn": 1, "text": "4"}]}, ONE),
    said("chat", {"turns": [{"turn": 0, "choice": "tie"}, {"turn": 1, "choice": 1, "strength": 4}]}, TWO),
    said("flag", {"reason": "harmful"}, PAIR),
    said("skip", {"reason": "not my field"}, RANKING),
    said("pair", {"erased": True}, PAIR),
]


@pytest.mark.parametrize("annotation", GOOD, ids=lambda annotation: f"{annotation.kind}-{json.dumps(annotation.value)[:30]}")
def test_good_values_pass_and_survive_json(annotation: Annotation) -> None:
    on = next(t for t in TASKS.values() if t.id == annotation.task)
    assert check_annotation(annotation, on) is annotation
    assert from_json(json.loads(json.dumps(to_json(annotation))), Annotation) == annotation


@pytest.mark.parametrize("on", [*TASKS.values(), pair(2, gold={"choice": 1})], ids=lambda on: on.kind)
def test_tasks_survive_json(on: Task) -> None:
    assert check_task(on) is on
    assert from_json(json.loads(json.dumps(to_json(on))), Task) == on


BAD: list[tuple[Annotation, str]] = [
    (said("pair", {"choice": 2}, PAIR), '"choice" is 2; it is 0 or 1 (which answer), "tie" or "both_bad".'),
    (said("pair", {"choice": True}, PAIR), '"choice" is True; it is 0 or 1 (which answer), "tie" or "both_bad".'),
    (said("pair", {"choice": []}, PAIR), '"choice" is []; it is 0 or 1 (which answer), "tie" or "both_bad".'),
    (said("pair", {}, PAIR), 'the value of a pair needs "choice".'),
    (said("pair", {"choice": 0, "note": ""}, PAIR), 'the value of a pair has no "note".'),
    (said("pair", [], PAIR), 'a value is an object such as {"choice": 0}, not [].'),
    (said("pair", {"choice": 0}, PAIR, strength=5), "strength is 5; it is 1 (hardly better), 2, 3 or 4 (far better)."),
    (said("pair", {"choice": "tie"}, PAIR, strength=2), "strength 2 needs a choice of 0 or 1; the choice is 'tie'."),
    (said("pair", {"choice": 1}, PAIR, probability=0.9), "probability 0.9 that answer 0 is better does not fit the choice 1."),
    (said("pair", {"choice": 0}, PAIR, probability=1.5), "probability is 1.5; it lies between 0 and 1."),
    (said("pair", {"choice": 0}, PAIR, probability=float("nan")), "probability is nan; it lies between 0 and 1."),
    (said("pair", {"choice": 0}, PAIR, shown_order=(0, 0)), "shown_order [0, 0] is no order of its 2 answers."),
    (said("pair", {"choice": 0}, PAIR, seconds=-1), "seconds is -1; it must be 0 or more."),
    (said("pair", {"choice": 0}, PAIR, rationale=" "), "rationale is ' '; it needs a text."),
    (said("pair", {"choice": 0}, PAIR, rationale="\ud83d"), "rationale has half of a character (\\ud83d, at 1)."),
    (said("pair", {"choice": 0}, PAIR, source="oracle"), 'there is no source "oracle". The sources are: human, ai, rule, debate, simulated.'),
    (said("ranking", {"ranks": [1, 2]}, RANKING), '"ranks" must be a list of 3 ranks, one an answer; found [1, 2].'),
    (said("ranking", {"ranks": [2, 2, 3]}, RANKING), '"ranks" is [2, 2, 3]; ranks are whole numbers from 1 (the best, always there) to 3, equal ones are ties.'),
    (said("ranking", {"ranks": [1, 2, 4]}, RANKING), '"ranks" is [1, 2, 4]; ranks are whole numbers from 1 (the best, always there) to 3, equal ones are ties.'),
    (said("ranking", {"ranks": [1, 2, 2]}, RANKING, strength=1), "a ranking has no strength; it belongs to a pair."),
    (said("rating", {"rating": 8}, RATING), '"rating" is 8; it is a whole number from 1 (worst) to 7 (best).'),
    (said("rating", {"rating": 3.5}, RATING), '"rating" is 3.5; it is a whole number from 1 (worst) to 7 (best).'),
    (said("rating", {"rating": 3, "flags": ["a", "a"]}, RATING), "\"flags\" is ['a', 'a']; it is a list of different short names, such as [\"wrong\", \"harmful\"]."),
    (said("rating", {"rating": 3, "flags": [[]]}, RATING), '"flags" is [[]]; it is a list of different short names, such as ["wrong", "harmful"].'),
    (said("steps", {"labels": [1, 1]}, STEPS), '"labels" must be a list of 3 labels, one a step; found [1, 1].'),
    (said("steps", {"labels": [1, 2, 0]}, STEPS), '"labels" is [1, 2, 0]; a label is 1 (right), 0 (neutral), -1 (wrong) or null (not judged).'),
    (said("steps", {"labels": [True, 1, 0]}, STEPS), '"labels" is [True, 1, 0]; a label is 1 (right), 0 (neutral), -1 (wrong) or null (not judged).'),
    (said("steps", {}, STEPS), 'a steps value has "labels" (one a step) or "first_error" (which step, or null), one of the two.'),
    (said("steps", {"first_error": 3}, STEPS), '"first_error" is 3; it is the number of a step, 0 to 2, or null where there is none.'),
    (said("steps", {"first_error": 1, "alternative": {"step": 5, "text": "x"}}, STEPS), '"step" of the alternative is 5; it is the number of a step, 0 to 2.'),
    (said("steps", {"first_error": 1, "alternative": {"step": 1, "text": ""}}, STEPS), "\"text\" of the alternative is ''; it needs a text."),
    (said("edit", {"of": 0, "text": "Helo. "}, EDIT), '"text" is the same as answer 0; an edit changes something.'),
    (said("edit", {"of": 1, "text": "Hello"}, EDIT), '"of" is 1; it is the number of an answer, 0 to 0.'),
    (said("chat", {"turns": []}, CHAT), '"turns" must be a list with at least one turn; found [].'),
    (said("chat", {"turns": [{"user": "Hi", "answers": ["a", "b"]}]}, CHAT), 'turn 1: "choice" is None; it is 0 or 1 (which answer), "tie" or "both_bad".'),
    (said("chat", {"turns": [{"user": "Hi", "answers": ["a"], "choice": 0}]}, CHAT), 'turn 1: "choice" is 0 and there is one answer; leave it out.'),
    (said("chat", {"turns": [{"user": "Hi", "answers": []}]}, CHAT), 'turn 1: "answers" must be a list of one or two texts.'),
    (said("chat", {"turns": [{"turn": 2, "rating": 3}]}, ONE), "turn 1: \"turn\" is 2; it is the number of an assistant's turn, 0 to 1."),
    (said("chat", {"turns": [{"turn": 1, "rating": 3}, {"turn": 1, "rating": 4}]}, ONE), 'turn 2: "turn" is 1 after 1; each turn is judged once, in their order.'),
    (said("chat", {"turns": [{"turn": 1}]}, ONE), 'turn 1: a turn of one conversation needs a "rating", or a better "text".'),
    (said("chat", {"turns": [{"turn": 1, "text": " 5"}]}, ONE), 'turn 1: "text" is the same as what was said; an edit changes something.'),
    (said("chat", {"turns": [{"turn": 1, "rating": 8}]}, ONE), 'turn 1: "rating" is 8; it is a whole number from 1 (worst) to 7 (best).'),
    (said("chat", {"turns": [{"turn": 1, "choice": 0}]}, ONE), 'turn 1: the value of a chat turn has no "choice".'),
    (said("chat", {"turns": [{"turn": 2, "choice": 0}]}, TWO), "turn 1: \"turn\" is 2; it is the number of an assistant's turn, 0 to 1."),
    (said("chat", {"turns": [{"turn": 0}]}, TWO), 'turn 1: "choice" is None; it is 0 or 1 (which answer), "tie" or "both_bad".'),
    (said("chat", {"turns": [{"turn": 0, "choice": "tie", "strength": 2}]}, TWO), "turn 1: strength 2 needs a choice of 0 or 1; the choice is 'tie'."),
    (said("chat", {"turns": ["good"]}, ONE), "turn 1 is 'good'; a turn is an object with turn and what is said of it."),
    (said("edit", {"of": 0, "text": "x"}, ONE), "a chat task takes no edit. It takes: chat, flag, skip."),
    (said("skip", {"reason": ""}, PAIR), "\"reason\" is ''; it needs a text."),
    (said("rating", {"rating": 3}, PAIR), "a pair task takes no rating. It takes: pair, edit, flag, skip."),
    (said("edit", {"of": 0, "text": "x"}, CHAT), "a chat task takes no edit. It takes: chat, flag, skip."),
    (said("vote", {}, PAIR), 'there is no kind "vote". The kinds are: pair, ranking, rating, steps, edit, chat, flag, skip, undo.'),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "message"), BAD, ids=[f"{n}-{a.kind}" for n, (a, _) in enumerate(BAD)])
def test_bad_values_are_refused_with_the_reason(annotation: Annotation, message: str) -> None:
    on = next(t for t in TASKS.values() if t.id == annotation.task)
    with pytest.raises(DataError) as caught:
        check_annotation(annotation, on)
    told = str(caught.value)
    assert told == f"Annotation of task {on.id}: {message}"


@pytest.mark.parametrize(
    ("on", "message"),
    [
        (task("pair", "Q", answer("a")), "a pair task has 2 answers; this one has 1."),
        (task("ranking", "Q", answer("a")), "a ranking task has 2 to 20 answers; this one has 1."),
        (task("pair", "Q", answer("a"), answer("a", model="other")), "has the same answer twice; there is nothing to compare."),
        (task("chat", "Q", answer("a"), answer("b"), answer("c")), "a chat task has 0 to 2 answers; this one has 3."),
        (task("chat", "Q", Completion((Message("user", "more?"),))), "each conversation of a chat task has a turn of the assistant."),
        (replace(PAIR, prompt=()), "has no prompt."),
        (replace(PAIR, prompt=prompt("\udc00")), "the text of its user turn has half of a character (\\udc00, at 1)."),
        (
            task("steps", "Q", answer("a", "b"), step_alternatives=[["c"], "d"]),
            "must be a list of 2 lists of texts, one a step; found [['c'], 'd'].",
        ),
        (task("steps", "Q", answer("a"), step_alternatives=[[" "]]), "is ' '; it needs a text."),
        (replace(PAIR, round=-1), "round is -1; it is a whole number from 0 to 999,999."),
        (replace(PAIR, gold={"choice": 3}), '"choice" is 3; it is 0 or 1 (which answer), "tie" or "both_bad".'),
        (replace(PAIR, kind="poll"), 'there is no kind "poll". The kinds are: pair, ranking, rating, steps, edit, chat.'),  # type: ignore[arg-type]
    ],
)
def test_tasks_that_cannot_be_asked_are_refused(on: Task, message: str) -> None:
    with pytest.raises(DataError) as caught:
        check_task(on)
    assert str(caught.value).endswith(message)


def test_a_task_id_is_its_content_and_round() -> None:
    same = task_id("pair", PAIR.prompt, (answer("yes 1", model="a"), answer("no 1")))
    assert same == PAIR.id
    assert len({PAIR.id, pair(1, round=1).id, pair(2).id, task_id("pair", PAIR.prompt, PAIR.completions[::-1])}) == 4


def test_kinds_that_a_task_takes() -> None:
    assert kinds_for(EDIT) == ["edit", "flag", "skip"]
    assert kinds_for(RANKING) == ["ranking", "edit", "flag", "skip"]


def texts(example: Example) -> list[str]:
    return [m.content for c in example.completions for m in c.messages]


def test_a_choice_is_a_preference_with_a_margin() -> None:
    """Strength 3 of 1 to 4 lies two thirds up the scale 0 to 1; P(first better) = 0.2 is P(second better) = 0.8."""
    (found,) = examples_of(said("pair", {"choice": 1}, PAIR, strength=3, probability=0.2, round=2, guideline_version=4), PAIR)
    assert found.kind == "preference" and texts(found) == ["no 1", "yes 1"]
    assert found.strength == pytest.approx(2 / 3) and found.probability == pytest.approx(0.8)
    wanted = {"annotator": "anna", "label_source": "human", "round": 2, "guideline_version": 4, "task_id": PAIR.id, "annotation_id": "x1"}
    assert found.columns == {**wanted, "arm": "random", "strength_level": 3}
    assert [MARGINS[level] for level in (1, 2, 3, 4)] == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_ties_and_bad_pairs() -> None:
    (tie,) = examples_of(said("pair", {"choice": "tie"}, PAIR), PAIR)
    assert (tie.kind, tie.probability, texts(tie)) == ("preference", 0.5, ["yes 1", "no 1"])
    bad = examples_of(said("pair", {"choice": "both_bad"}, PAIR), PAIR)
    assert [(e.kind, e.label, texts(e)) for e in bad] == [("labelled", False, ["yes 1"]), ("labelled", False, ["no 1"])]


def test_rankings_ratings_and_edits() -> None:
    (ranking,) = examples_of(said("ranking", {"ranks": [2, 1, 2]}, RANKING), RANKING)
    assert (ranking.kind, ranking.ranks) == ("ranking", (2, 1, 2))
    labels = {r: [e.label for e in examples_of(said("rating", {"rating": r}, RATING), RATING)] for r in range(1, 8)}
    assert labels == {1: [False], 2: [False], 3: [False], 4: [], 5: [True], 6: [True], 7: [True]}
    demonstration, preference = examples_of(said("edit", {"of": 0, "text": "Hello."}, EDIT), EDIT)
    assert (demonstration.kind, texts(demonstration)) == ("demonstration", ["Hello."])
    assert (preference.kind, texts(preference)) == ("preference", ["Hello.", "Helo."])
    assert demonstration.completions[0].source == {"kind": "human", "annotator": "anna"}


def test_steps_to_the_first_error_and_the_better_step() -> None:
    assert step_labels({"first_error": 1}, 3) == (1, -1, None)
    assert step_labels({"first_error": None}, 3) == (1, 1, 1)
    whole, better = examples_of(said("steps", {"first_error": 1, "alternative": {"step": 1, "text": "4+2=6"}}, STEPS), STEPS)
    assert (whole.kind, whole.step_labels) == ("steps", (1, -1, None))
    assert (texts(better), better.step_labels, better.completions[0].finished) == (["2+2=4", "4+2=6"], (1, 1), False)
    assert examples_of(said("steps", {"labels": [None, None, None]}, STEPS), STEPS) == []


def test_a_chat_is_a_preference_a_choice_and_goes_on_with_what_was_chosen() -> None:
    turns = [
        {"user": "Hi", "answers": ["Yes", "No"], "choice": 1, "strength": 4},
        {"user": "And?", "answers": ["So."]},
        {"user": "Bye", "answers": ["Go", "Leave"], "choice": "both_bad"},
    ]
    found = examples_of(said("chat", {"turns": turns}, CHAT), CHAT)
    assert [(e.kind, texts(e), [m.content for m in e.prompt]) for e in found] == [
        ("preference", ["No", "Yes"], ["Be brief.", "Hi"]),
        ("labelled", ["Go"], ["Be brief.", "Hi", "No", "And?", "So.", "Bye"]),
        ("labelled", ["Leave"], ["Be brief.", "Hi", "No", "And?", "So.", "Bye"]),
    ]
    assert found[0].strength == 1.0


def asked(example: Example) -> list[str]:
    return [m.content for m in example.prompt]


def test_a_recorded_conversation_teaches_turn_by_turn() -> None:
    """Rated 6 and 2, and the second answer rewritten: the prompt of each is the conversation up to there."""
    turns = [{"turn": 0, "rating": 6}, {"turn": 1, "rating": 2, "flags": ["wrong"], "text": "4"}]
    found = examples_of(said("chat", {"turns": turns}, ONE), ONE)
    assert [(e.kind, texts(e), asked(e), e.label, e.columns["turn"]) for e in found] == [
        ("labelled", ["Hello."], ["Hi"], True, 0),
        ("labelled", ["5"], ["Hi", "Hello.", "2+2?"], False, 1),
        ("demonstration", ["4"], ["Hi", "Hello.", "2+2?"], None, 1),
        ("preference", ["4", "5"], ["Hi", "Hello.", "2+2?"], None, 1),
    ]
    assert found[1].columns["rating_flags"] == ["wrong"] and found[2].completions[0].source["annotator"] == "anna"
    cut = replace(ONE, completions=(replace(ONE.completions[0], finished=False),))
    first, second = examples_of(said("chat", {"turns": turns}, cut), cut)[:2]
    assert first.completions[0].finished and not second.completions[0].finished


def test_two_conversations_are_compared_up_to_each_turn() -> None:
    """At the second turn the two have said different things before, so each is compared whole, from where they part."""
    turns = [{"turn": 0, "choice": 1, "strength": 4}, {"turn": 1, "choice": 0}]
    first, second = examples_of(said("chat", {"turns": turns}, TWO), TWO)
    assert (first.kind, texts(first), asked(first), first.strength, first.columns["turn"]) == (
        "preference",
        ["Yo.", "Hello."],
        ["Hi"],
        1.0,
        0,
    )
    assert [[m.content for m in c.messages] for c in second.completions] == [["Hello.", "2+2?", "5"], ["Yo.", "2+2?", "4"]]
    assert asked(second) == ["Hi"] and second.columns["turn"] == 1
    alike = task("chat", "Hi", talk("Hello.", "2+2?", "5"), talk("Hello.", "2+2?", "4"))
    (only,) = examples_of(said("chat", {"turns": turns}, alike), alike)
    assert (texts(only), asked(only)) == (["5", "4"], ["Hi", "Hello.", "2+2?"])


def test_tasks_of_other_kinds_ask_about_the_same_answers() -> None:
    """A conversation of two turns whose last answer was judged: rated whole, rewritten, or judged turn by turn from the first answer on."""
    before = (*prompt("Hi"), Message("assistant", "Hello."), Message("user", "2+2?"))
    example = Example("preference", before, (answer("4"), answer("5")), where="row 1")
    (edit,) = tasks_of(example, kind="edit")
    assert edit.kind == "edit" and {c.text for c in edit.completions} == {"4", "5"} and edit.prompt == before
    assert sorted((t.kind, t.completions[0].text) for t in tasks_of(example, kind="rating")) == [("rating", "4"), ("rating", "5")]
    for made, last in zip(sorted(tasks_of(example, kind="chat"), key=lambda t: t.completions[0].text), ("4", "5"), strict=True):
        assert made.prompt == prompt("Hi") and check_task(made)
        assert [m.content for m in made.completions[0].messages] == ["Hello.", "2+2?", last]
    (both,) = tasks_of(Example("preference", prompt("Hi"), TWO.completions), kind="chat")
    assert {c.id for c in both.completions} == {c.id for c in TWO.completions}
    for kind, wrong in (("preference", "ranking"), ("steps", "rating")):
        with pytest.raises(ConfigError, match=f"row 1: a {kind} makes no {wrong} task"):
            tasks_of(replace(example, kind=kind), kind=wrong)  # type: ignore[arg-type]


def test_what_says_nothing_teaches_nothing() -> None:
    assert not [e for kind in ("flag", "skip") for e in examples_of(said(kind, {"reason": "x"}, PAIR), PAIR)]
    assert examples_of(said("edit", {"erased": True}, EDIT), EDIT) == []


def test_tasks_of_examples_hide_which_answer_was_chosen() -> None:
    """Over 200 rows the chosen answer comes first about half the time: 100 with standard deviation 7; and swapping a row changes nothing."""
    first = 0
    for number in range(200):
        answers = (answer(f"good {number}"), answer(f"bad {number}"))
        example = Example("preference", prompt(f"Q{number}"), answers, columns={"topic": "x"})
        (made,) = tasks_of(example, round=3)
        assert made.kind == "pair" and made.round == 3 and made.columns == {"topic": "x"} and made.gold is None
        assert tasks_of(replace(example, completions=answers[::-1]), round=3) == [made]
        first += made.completions[0] == answers[0]
    assert 65 < first < 135
    assert tasks_of(Example("prompt", prompt("Q"))) == []
    steps = Example("steps", prompt("Q"), (Completion((Message("assistant", "a"), Message("assistant", "b"))),), step_labels=(1, -1))
    assert [t.kind for t in tasks_of(steps)] == ["steps"]
