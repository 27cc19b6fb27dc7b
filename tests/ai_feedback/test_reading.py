"""Reading a server's tokens and parsing verdicts strictly (science T6.4, T7.5)."""

from __future__ import annotations

import math

import pytest

from accord.ai_feedback.asking import Answer, Question
from accord.ai_feedback.reading import CUT_OFF, NO_VERDICT, TWO_VERDICTS, UNRESOLVED, read, stated_option
from accord.types import Message

AB = {"A": ("A", " A", "(A"), "B": ("B", " B", "(B")}
TEN = {str(number): (str(number), f" {number}") for number in range(1, 11)}


def question(options: dict[str, tuple[str, ...]] = AB, tokens: int = 0) -> Question:
    return Question((Message("user", "?"),), options, tokens)


def tokens(*places: tuple[str, dict[str, float]]) -> tuple[tuple[str, dict[str, float]], ...]:
    """Places with probabilities in place of their logarithms."""
    return tuple((taken, {token: math.log(p) for token, p in near.items()}) for taken, near in places)


def answer(*places: tuple[str, dict[str, float]], finish: str = "length", text: str | None = None) -> Answer:
    made = tokens(*places)
    return Answer("".join(token for token, _ in made) if text is None else text, top=made, finish=finish)


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("It is shorter.\nAnswer: B", "B"),
        ("Answer: (A).", "A"),
        ("**Answer:** B", "B"),
        ("answer:   A  \nThat is all.", "A"),
        ("The answer: B\n", "B"),
        ("My answer is A or B.\n\nAnswer: [B]", "B"),
    ],
)
def test_one_verdict_line_counts(text: str, option: str) -> None:
    found, status = stated_option(text, "Answer: {option}", AB)
    assert status == "ok" and found is not None and found[0] == option


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Answer: A\nNo, wait.\nAnswer: B", TWO_VERDICTS),
        ("Answer: A\nAnswer: A", TWO_VERDICTS),
        ("Both are fine.", NO_VERDICT),
        ("", NO_VERDICT),
        ("Answer: A or B", NO_VERDICT),
        ("Answer: C", NO_VERDICT),
        ("Answer: Both", NO_VERDICT),
        ("Answer: a", NO_VERDICT),
        ("I prefer A", NO_VERDICT),
        ("Answer: A and that is because B is wrong", NO_VERDICT),
    ],
)
def test_absent_and_double_verdicts_are_invalid(text: str, reason: str) -> None:
    """A is not looked for before B, and nothing is guessed."""
    assert stated_option(text, "Answer: {option}", AB) == (None, reason)
    assert read(question(tokens=50), Answer(text)) == (None, reason, None)


def test_a_text_that_was_cut_off_says_so() -> None:
    assert read(question(tokens=5), Answer("Let me think", finish="length"))[1] == CUT_OFF


@pytest.mark.parametrize(("text", "option"), [("A", "A"), (" (B)", "B"), ("**B**.", "B"), ("Answer: A", "A"), ("A\n", "A")])
def test_a_lone_option_is_a_verdict_where_no_reasons_are_asked(text: str, option: str) -> None:
    found, status, mass = read(question(), Answer(text))
    assert found == {"A": float(option == "A"), "B": float(option == "B")} and status == "ok" and mass is None


@pytest.mark.parametrize("text", ["A or B", "A, because", "Neither", "7/10"])
def test_anything_else_is_none(text: str) -> None:
    assert read(question(), Answer(text))[:2] == (None, NO_VERDICT)


def test_spellings_are_summed() -> None:
    """A: 0.3 + 0.1; B: 0.2; of these together 0.6."""
    found, _, mass = read(question(), answer(("A", {"A": 0.3, " A": 0.1, "B": 0.2, "The": 0.3})))
    assert found is not None and found["A"] == pytest.approx(0.4 / 0.6) and mass == pytest.approx(0.6)


def test_a_bracket_and_a_letter_in_two_tokens() -> None:
    """ "(" with 0.8, then A 0.75 and B 0.25; beside it A alone with 0.1: A 0.1 + 0.6, B 0.2."""
    found, _, _ = read(question(), answer(("(", {"(": 0.8, "A": 0.1, "Well": 0.1}), ("A", {"A": 0.75, "B": 0.25})))
    assert found is not None and found["A"] == pytest.approx(0.7 / 0.9)


def test_a_bracket_that_was_not_taken_is_not_guessed_at() -> None:
    """Nobody knows what would follow "(": with 0.2 of the probability that is too much, with 0.001 it is not."""
    assert read(question(), answer(("A", {"A": 0.6, "B": 0.1, "(": 0.2})))[:2] == (None, UNRESOLVED)
    found, _, _ = read(question(), answer(("A", {"A": 0.6, "B": 0.1, "(": 0.001})))
    assert found is not None and found["A"] == pytest.approx(0.6 / 0.7)


def test_an_option_below_the_likeliest_tokens_is_missing() -> None:
    found, status, _ = read(question(), answer(("A", {"A": 0.99, "The": 0.005})))
    assert found is None and "option B is not among the likeliest" in status


def test_ten_in_two_tokens_is_not_one() -> None:
    """1 has 0.5, and behind it 0 has 0.4: ten is 0.2, one is 0.3; five has 0.5."""
    near = {"1": 0.5, "5": 0.4, **{str(number): 0.1 / 7 for number in (2, 3, 4, 6, 7, 8, 9)}}
    found, _, mass = read(question(TEN), answer(("1", near), ("0", {"0": 0.4, ".": 0.6})))
    assert found is not None and found["10"] == pytest.approx(0.2) and found["1"] == pytest.approx(0.3) and mass == pytest.approx(1.0)


def test_one_that_could_be_ten_is_not_guessed_at() -> None:
    near = {"1": 0.3, "5": 0.6, **{str(number): 0.1 / 7 for number in (2, 3, 4, 6, 7, 8, 9)}}
    assert read(question(TEN), answer(("5", near), (".", {".": 1.0})))[1] == UNRESOLVED


def test_ratings_too_improbable_to_be_listed_count_as_none() -> None:
    """Nine ratings at most at 0.0001 each, against 0.9: within a hundredth. At 0.05 each they could be anything."""
    found, _, _ = read(question(TEN), answer(("8", {"8": 0.8, "9": 0.1, "x": 0.0001}), finish="stop"))
    assert found is not None and found["8"] == pytest.approx(8 / 9) and found["1"] == 0.0
    assert read(question(TEN), answer(("8", {"8": 0.8, "9": 0.05}), finish="stop"))[0] is None


def test_probabilities_at_the_verdict_of_a_text() -> None:
    """The verdict line is found in the text, and the likeliest tokens are read where its option stands."""
    places = (
        ("Short", {"Short": 1.0}),
        (".\n", {".\n": 1.0}),
        ("Answer", {"Answer": 1.0}),
        (":", {":": 1.0}),
        (" B", {" B": 0.6, " A": 0.2}),
    )
    found, _, mass = read(question(tokens=50), answer(*places))
    assert found is not None and found["B"] == pytest.approx(0.75) and mass == pytest.approx(0.8)


def test_tokens_that_do_not_meet_the_verdict_leave_its_text() -> None:
    """A token that holds the colon and the letter: there is no place between them to read."""
    found, status, mass = read(question(tokens=50), answer(("Answer", {"Answer": 1.0}), (": B", {": B": 0.9, ": A": 0.1})))
    assert found == {"A": 0.0, "B": 1.0} and status == "ok" and mass is None


def test_an_error_is_its_own_reason() -> None:
    assert read(question(), Answer(error="not asked: the budget is spent"))[1] == "not asked: the budget is spent"
