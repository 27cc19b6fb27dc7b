"""Graders against verdicts by hand, against real answers by others, and against their own mirror image."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accord.data.files import read_rows
from accord.errors import DataError
from accord.rewards.choices import grade_choice
from accord.rewards.format import FormatReward
from accord.rewards.matching import grade_exact, grade_normalized
from accord.rewards.numeric import grade_numeric
from accord.rewards.plain import plain_text
from accord.rewards.quantities import read_quantities
from accord.rewards.stated import stated_answer
from accord.rewards.symbolic import grade_boxed, grade_symbolic
from rewards import graded_answers as table

CASES: list[tuple[Callable[..., Any], Any]] = [
    *((grade_numeric, row) for row in table.NUMERIC),
    *((grade_symbolic, row) for row in table.SYMBOLIC),
    *((grade_boxed, row) for row in table.BOXED),
    *((grade_choice, row) for row in table.CHOICE),
    *((grade_choice, row) for row in table.CHOICE_WITH_TEXT),
    *((grade_normalized, row) for row in table.NORMALIZED),
    *((grade_exact, row) for row in table.EXACT),
]


def test_graders_agree_with_people() -> None:
    """At least 300 cases, at least 99 % of them as people say; those that are not are listed."""
    pytest.importorskip("math_verify")
    differing = []
    for grader, (text, gold, verdict, *choices) in CASES:
        found = grader(text, gold, **({"choices": choices[0]} if choices else {}))
        if found.outcome != verdict:
            differing.append(f"{grader.__name__}({text!r}, {gold!r}): {found.outcome} ({found.reason}), by hand {verdict}")
        assert found.reason
    print("\n".join(differing))
    assert len(CASES) >= 300
    assert len({(grader, str(row)) for grader, row in CASES}) == len(CASES)
    assert len(differing) <= 0.01 * len(CASES), differing


def test_gsm8k_solutions(shared_data: Path) -> None:
    """Each gold solution is right against itself and wrong against the next one that has another answer."""
    rows = [row for row, _ in read_rows(shared_data / "gsm8k" / "test.jsonl")]
    golds = [str(row["answer"]) for row in rows]
    stated = [gold.split("####")[1].strip().replace(",", "") for gold in golds]
    for index, gold in enumerate(golds):
        assert grade_numeric(gold, gold).outcome == "right", gold
        assert grade_numeric(f"So it is {stated[index]}.", gold).outcome == "right", gold
        other = next(o for o in range(index + 1, index + len(golds)) if float(stated[o % len(golds)]) != float(stated[index])) % len(golds)
        assert grade_numeric(gold, golds[other]).outcome == "wrong", (gold, golds[other])
        mirrored = stated[index].removeprefix("-") if stated[index].startswith("-") else f"-{stated[index]}"
        assert grade_numeric(f"#### {mirrored}", gold).outcome == ("wrong" if float(stated[index]) else "right")


def test_svamp_answers(shared_data: Path) -> None:
    rows = json.loads((shared_data / "svamp" / "SVAMP.json").read_text(encoding="utf-8"))
    for row, following in zip(rows, [*rows[1:], rows[0]], strict=True):
        number = float(row["Answer"])
        plain = str(int(number)) if number.is_integer() else row["Answer"]
        assert grade_numeric(f"{row['Equation']} = {plain}", row["Answer"]).outcome == "right", row["ID"]
        expected = "right" if float(following["Answer"]) == number else "wrong"
        assert grade_numeric(f"The answer is {plain}.", following["Answer"]).outcome == expected, row["ID"]


@pytest.mark.parametrize("file", ["dev.json", "test.json"])
def test_aqua_choices(shared_data: Path, file: str) -> None:
    """Options are texts such as "A)21"; each letter, in four ways of saying it, is right where it is the key and wrong elsewhere."""
    rows = [row for row, _ in read_rows(shared_data / "aqua" / file)]
    assert len(rows) == 254
    for row in rows:
        for letter in "ABCDE":
            expected = "right" if letter == row["correct"] else "wrong"
            for said in (letter, f"The answer is ({letter}).", f"So {letter} is correct.", f"Let me see.\n\n{letter}) it is"):
                assert grade_choice(said, row["correct"], choices=row["options"]).outcome == expected, (row["question"], said)


NUMBERS = st.builds(
    lambda sign, number, unit: f"{sign}{number}{unit}",
    st.sampled_from(["", "-", "+"]),
    st.one_of(
        st.integers(0, 99999).map(str),
        st.integers(1000, 9999999).map(lambda n: f"{n:,}"),
        st.decimals(0, 999, places=2).map(str),
        st.tuples(st.integers(0, 99), st.integers(1, 99)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
        st.tuples(st.integers(1, 9), st.integers(0, 6)).map(lambda pair: f"{pair[0]}e{pair[1]}"),
    ),
    st.sampled_from(["", "%", " km", " m", " dollars", " cents", " hours", " minutes", " apples", " red apples", " cm^2"]),
)


@given(NUMBERS, NUMBERS, st.booleans())
@example("25%", "0.25", False)
@example("0.33", "1/3", False)
@settings(max_examples=300, deadline=None)
def test_grading_is_symmetric(first: str, second: str, require_unit: bool) -> None:
    forth = grade_numeric(first, second, require_unit=require_unit).outcome
    assert forth == grade_numeric(second, first, require_unit=require_unit).outcome
    assert grade_numeric(first, first, require_unit=require_unit).outcome == "right"


@given(
    st.integers(-(10**9), 10**9), st.sampled_from(["{}", "#### {}", "The answer is {}.", "\\boxed{{{}}}", "<answer>{}</answer>", "x = {}"])
)
@settings(max_examples=200, deadline=None)
def test_every_integer_is_read_with_its_sign_and_commas(number: int, form: str) -> None:
    assert grade_numeric(form.format(number), number).outcome == "right"
    assert grade_numeric(form.format(f"{number:,}"), str(number)).outcome == "right"
    assert grade_numeric(form.format(-number), number).outcome == ("right" if number == 0 else "wrong")


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_gets_a_verdict(text: str) -> None:
    """No text makes a grader raise: what cannot be read is an answer that was not found."""
    for grader, gold in ((grade_numeric, "5"), (grade_choice, "A"), (grade_normalized, "yes"), (grade_exact, "yes")):
        assert grader(text, gold).outcome in ("right", "wrong", "no answer")


@pytest.mark.parametrize("form", ["{}", "#### {}", "1e{}", "10^{}", "1.{}", "1/{}", "{}/7", "1:{}", "1 9/{}", "-{} km", "{}%"])
def test_a_number_of_thousands_of_digits_is_none(form: str) -> None:
    """A policy that repeats one digit must not end the run: Python raises on numbers of more than 4,300 digits."""
    text = form.format("9" * 5000)
    assert grade_numeric(text, "5").outcome == "no answer"
    assert grade_choice(text, "A", choices=["21", "22"]).outcome == "no answer"
    assert grade_numeric(f"{'9' * 900} + 1 = {'9' * 900}", "9" * 900).outcome == "right"


HOSTILE = ["1 ", "12 ", "1,", "1/", "1:", "1 = ", "1+1=", "1 km 1 m ", "~1", "-", "$", "{", "(", "\\boxed{", "\\frac{1}{", "\\text{", "answer is ", "#### ", "<answer>",
           "<think>", "1 or ", "A or ", "(A) ", "12:30 ", "minus ", "per ", "**", "the ", "\n", " "]  # fmt: skip


@pytest.mark.parametrize("pattern", HOSTILE)
def test_a_degenerate_answer_takes_no_time(pattern: str) -> None:
    """8,000 characters of one pattern, which a policy writes in 2,000 tokens: time that grows with their square would hold up a round."""
    text = pattern * (8000 // len(pattern))
    form = FormatReward("{work}#### {answer}")
    for grade in (
        lambda: grade_numeric(text, "5"),
        lambda: grade_choice(text, "A"),
        lambda: grade_normalized(text, "yes"),
        lambda: form.grade(text),
    ):
        before = time.process_time()
        grade()
        assert time.process_time() - before < 1.5


def test_several_answers_say_that_the_last_counts() -> None:
    found = grade_numeric("The answer is 5. No: #### 6", "6")
    assert (found.outcome, found.reason) == ("right", "6 is 6; the last of 2 stated answers counts")
    assert "the last number counts" in grade_numeric("5 and then 6 apples", "6").reason


def test_a_unit_that_is_not_compared_is_said() -> None:
    assert "'km' is stated on one side only and not compared" in grade_numeric("5 km", "5").reason
    assert grade_numeric("5 km", "5", require_unit=True).outcome == "wrong"
    assert grade_numeric("5 km", "5 km", require_unit=True).outcome == "right"


def test_a_text_without_a_mark_can_be_refused() -> None:
    assert grade_numeric("It makes 72 clips", "72", unmarked=False).outcome == "no answer"
    assert grade_numeric("72", "72", unmarked=False).outcome == "right"


@pytest.mark.parametrize(
    ("grader", "gold"),
    [
        (grade_numeric, "unknown"),
        (grade_numeric, ""),
        (grade_exact, " "),
        (grade_normalized, None),
        (grade_choice, "Z"),
        (grade_symbolic, ""),
    ],
)
def test_a_gold_that_cannot_be_read_is_an_error(grader: Callable[..., Any], gold: Any) -> None:
    """Never a wrong answer: the row is at fault, not the model."""
    with pytest.raises(DataError, match="gold answer"):
        grader("5", gold)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (r"$1\,000\frac{1}{2}$", ["2001/2"]),
        ("from 3 to 5 km", ["3", "5"]),
        ("5 ft 3 in and 2 kg", ["21/4", "2"]),
        ("5−3 = 2", ["5", "3", "2"]),
    ],
)
def test_numbers_in_a_text(text: str, values: list[str]) -> None:
    """5 ft 3 in is 5 + 3/12 = 21/4 ft."""
    assert [str(one.value) for one in read_quantities(plain_text(text))] == values


def test_thinking_is_never_an_answer() -> None:
    assert stated_answer("<think>the answer is 5") is None
    stated = stated_answer("<think>the answer is 5</think>\\boxed{6}")
    assert stated is not None
    assert (stated.text, stated.mark, stated.count) == ("6", "boxed", 1)
