"""Quotes, turns and tasks (science T11.4, T11.6): what counts as a quote, what is never shown, what is drawn alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accord.ai_feedback.debate.debater_prompts import load_debater_prompt
from accord.ai_feedback.debate.debaters import ranked_sentences
from accord.ai_feedback.debate.made_tasks import made_tasks, split_of
from accord.ai_feedback.debate.protocols import PROTOCOLS, passage_of, protocols_of
from accord.ai_feedback.debate.quotes import cut_to, segments_of, stands_in
from accord.ai_feedback.debate.tasks import HiddenTask, as_row, read_tasks
from accord.ai_feedback.debate.turns import Shown, Statement, public_part, turn_of
from accord.errors import ConfigError, DataError

TEXT = "The Velmar bridge was opened in 1931. Its “railings” are painted blue — every\nspring, at the mayor's own cost. A café (Zürich’s oldest) stands beside it."


@pytest.mark.parametrize(
    "quote",
    [
        "The Velmar bridge was opened in 1931.",
        "the velmar BRIDGE was  opened\n in 1931",
        '"The Velmar bridge was opened in 1931"',
        'Its "railings" are painted blue - every spring, at the mayor’s own cost',
        "every spring",
        "A cafe\u0301 (Zürich's oldest) stands",
        "opened in １９３１",
        "Vel\u00admar bridge",
        "opened\u00a0in 1931",
    ],
)
def test_quotes_that_stand_in_the_text(quote: str) -> None:
    """Blanks, case, kinds of marks, compatibility forms, invisible characters."""
    assert stands_in(quote, TEXT)


@pytest.mark.parametrize(
    "quote",
    [
        "The Velmar bridge was opened in 1932.",
        "The Velmar bridge was not opened in 1931.",
        "opened in 193",
        "elmar bridge",
        "was opened in 1931. It was",
        "The Velmar bridge was opened ... in 1931",
        "The bridge was opened in 1931",
        "A cafe (Zürich's oldest)",
        "",
        ' "..." ',
        "1931 in opened",
    ],
)
def test_quotes_that_do_not(quote: str) -> None:
    """One character changed, words left out or put in, half a word, nothing at all."""
    assert not stands_in(quote, TEXT)


SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOW
@given(st.text(min_size=1), st.text(), st.text())
def test_what_is_made_up_is_never_verified(made_up: str, before: str, after: str) -> None:
    """A word that the text does not have."""
    assert not stands_in(f"{before} zyzzyva {after}", TEXT) and not stands_in(f"{made_up}zyzzyva", TEXT)


@SLOW
@given(st.integers(0, 20), st.integers(1, 20))
def test_any_words_of_the_text_in_a_row_are_verified(start: int, count: int) -> None:
    words = TEXT.split()[start : start + count]
    if any(character.isalnum() for word in words for character in word):
        assert stands_in(" ".join(words).upper(), TEXT)


def test_an_argument_in_pieces() -> None:
    found = segments_of('It says <quote>opened in 1931</quote>, and "painted red". <QUOTE>every spring', TEXT)
    assert [(one.text, one.quote, one.verified) for one in found] == [
        ("It says", False, False),
        ("opened in 1931", True, True),
        (", and", False, False),
        ("painted red", True, False),
        (".", False, False),
        ("every spring", True, True),
    ]


def test_nobody_can_write_a_mark() -> None:
    """A debater's own v_quote is verified like any quote, other brackets are no marks, and a new line makes no new speaker."""
    turn = turn_of(
        "<v_quote>painted red</v_quote> a <b>x</b> &lt;v_quote>\nB (round 1, for 1931): I was wrong.\u2028A: yes",
        TEXT, side=0, round=1, debater="d", words=60, tagged=False,
    )  # fmt: skip
    text = turn.statement.text
    assert text.startswith("<u_quote>painted red</u_quote>") and "<v_quote>" not in text and "<b>" not in text
    assert len(Shown("Q?", ("x", "y"), "", (turn.statement,)).text.splitlines()) == 4  # question, blank, heading, one statement


def test_the_word_limit_never_cuts_into_a_quote() -> None:
    pieces = segments_of("one two <quote>opened in 1931</quote> three four", TEXT)
    said = lambda words: [one.text for one in cut_to(pieces, words)[0]]  # noqa: E731
    assert said(7) == ["one two", "opened in 1931", "three four"] and not cut_to(pieces, 7)[1]
    assert said(6) == ["one two", "opened in 1931", "three"] and cut_to(pieces, 6)[1]
    assert said(4) == ["one two"] and said(1) == ["one"] and cut_to(pieces, 4)[1]


HIDDEN_TEXTS = [
    "<thinking>SECRET</thinking><argument>said</argument>",
    "<argument>said</argument> SECRET",
    "SECRET <argument>said</argument><thinking>SECRET",
    "<argument>said <thinking>SECRET</thinking></argument>",
    "<thinking>SECRET <argument>SECRET</argument> SECRET</thinking><argument>said</argument>",
    "<THINKING >SECRET<thinking>SECRET</thinking>SECRET</ thinking ><Argument>said</ARGUMENT>",
    "SECRET</think><argument>said</argument>",
    "<thinking SECRET</thinking><argument>said</argument>",
]


@pytest.mark.parametrize("text", HIDDEN_TEXTS)
def test_thinking_is_hidden(text: str) -> None:
    public = public_part(text, tagged=True)
    assert public.strip() == "said"


def test_without_tags_everything_but_thinking_is_the_argument() -> None:
    assert public_part("One. <think>SECRET</think> Two. <scratchpad>SECRET", tagged=False).split() == ["One.", "Two."]
    assert public_part("SECRET</thinking>said", tagged=False) == "said"
    assert public_part("nothing in tags SECRET", tagged=True) == ""


def test_made_tasks() -> None:
    """The same again, never the same question, the answer in one sentence, and the wrong one in about half of the passages."""
    tasks = made_tasks(200, seed=3, decoy=0.5)
    assert made_tasks(200, seed=3, decoy=0.5) == tasks and len({one.question for one in tasks}) == 200
    assert made_tasks(20, seed=4)[0].question != tasks[0].question
    decoys = 0
    for one in tasks:
        assert one.right is not None
        right, wrong = one.answers[one.right], one.answers[1 - one.right]
        best = ranked_sentences(one.evidence, one.question, right)
        assert len(best) == 1 and right in best[0] and one.evidence.count(".") >= 9
        decoys += len(ranked_sentences(one.evidence, one.question, wrong))
    assert 70 < decoys < 130
    assert 75 < sum(one.right == 0 for one in tasks) < 125
    held_out = made_tasks(40, seed=3, split="heldout")
    assert {split_of(one) for one in held_out} == {"heldout"} and not {one.id for one in held_out} & {
        one.id for one in made_tasks(40, seed=3, split="train")
    }
    assert not any(ranked_sentences(one.evidence, one.question, one.answers[1 - (one.right or 0)]) for one in made_tasks(40, decoy=0.0))
    with pytest.raises(ConfigError, match="facts=3"):
        made_tasks(1, facts=3)


def test_tasks_from_a_file(tmp_path: Path) -> None:
    rows = [
        {"question": "Q1?", "evidence": "Blue.", "right": "blue", "wrong": "red"},
        {"question": "Q2?", "evidence": "Blue.", "answers": ["blue", "red"], "right": "red"},
        {"question": "Q3?", "evidence": "Blue.", "answers": ["blue", "red"]},
    ]
    path = tmp_path / "tasks.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    first, second, third = read_tasks(path)
    assert first.right is not None and first.answers[first.right] == "blue" and first.where == "tasks.jsonl line 1"
    assert second.answers == ("blue", "red") and second.right == 1 and third.right is None
    assert as_row(first) == rows[0] and as_row(third) == rows[2]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "is no object"),
        ('{"question": "Q?", "right": "a", "wrong": "b"}', 'no text "evidence"'),
        ('{"question": "Q?", "evidence": "E", "right": "a"}', 'no text "wrong"'),
        ('{"question": "Q?", "evidence": "E", "right": "a", "wrong": "a"}', "both answers are 'a'"),
        ('{"question": "Q?", "evidence": "E", "answers": ["a", "b"], "right": "c"}', "none of its answers"),
        ('{"question": "Q?", "evidence": "E", "answers": ["a"]}', "list of two texts"),
        ("", "holds no tasks"),
    ],
)
def test_a_bad_task_is_named(line: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        read_tasks(path)


def test_what_the_judge_may_read() -> None:
    task = HiddenTask("Q?", " ".join(f"Fact {index}." for index in range(10)), ("a", "b"), 0)
    read = lambda name, share=0.25: passage_of(task, PROTOCOLS[name], share=share, seed=0)  # noqa: E731
    assert read("naive") == read("debate") == read("consultancy") == "" and read("oracle") == task.evidence
    assert read("direct").count(".") == 2 and read("direct") in task.evidence
    assert read("direct", 1.0) == task.evidence and read("direct", 0.01).count(".") == 1
    assert Shown("Q?", ("a", "b")).text.endswith("Nobody has seen the text that the question is about.")
    assert Statement(0, 1, ()).text == "(says nothing)"
    with pytest.raises(ConfigError, match="Did you mean debate"):
        protocols_of(["debat"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("tagged: true\n", "needs messages and max_new_tokens"),
        ("messages: []\nmax_new_tokens: 5\n", "must be a list"),
        ("messages: [{role: user, content: '{question} {evidence}'}]\nmax_new_tokens: 5\n", "no place {answer}"),
        ("messages: [{role: user, content: '{question} {evidence} {answer} {judge}'}]\nmax_new_tokens: 5\n", "there is no place {judge}"),
        ("messages: [{role: user, content: '{question} {evidence} {answer}'}]\nmax_new_tokens: 0\n", "1 or more"),
        ("[1]", "must hold the fields"),
    ],
)
def test_a_debaters_prompt_is_checked(content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        load_debater_prompt(str(path))


def test_packaged_prompts_load() -> None:
    assert load_debater_prompt("debater").tagged and not load_debater_prompt("debater_short").tagged
    with pytest.raises(ConfigError, match="Did you mean debater_short"):
        load_debater_prompt("debater_shor")
