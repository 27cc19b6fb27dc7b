"""Generated constraint prompts: what the sentences say is what the checkers read, deterministic, train and held-out apart."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from accord.data.instructions import constraint_prompts, topics
from accord.errors import ConfigError
from accord.rewards.constraints import check_rows, constraints_of, judge


def test_every_prompt_parses_and_none_is_twice() -> None:
    rows = constraint_prompts(1500, 0) + constraint_prompts(600, 0, held_out=True)
    assert len(rows) == 2100 == len({row.prompt_id for row in rows})
    assert 1.4 < check_rows(rows) / len(rows) < 1.6
    assert {row.kind for row in rows} == {"prompt"}
    found = Counter(id for row in rows for id in row.columns["instruction_id_list"])
    assert len(found) == 14 and min(found.values()) > 50


def test_train_and_held_out_share_no_topic() -> None:
    train, held = topics(held_out=False), topics(held_out=True)
    assert not set(train) & set(held)
    assert len(set(train)) == len(train) == 50 and len(set(held)) == len(held) == 24
    for name, rows in ((train, constraint_prompts(300, 3)), (held, constraint_prompts(300, 3, held_out=True))):
        assert {row.columns["topic"] for row in rows} <= set(name)
        assert all(row.columns["topic"] in row.prompt[0].content for row in rows)


def test_the_seed_decides_and_longer_lists_begin_with_shorter_ones() -> None:
    assert constraint_prompts(40, 5) == constraint_prompts(80, 5)[:40]
    assert constraint_prompts(40, 5) != constraint_prompts(40, 6)
    assert all(len(row.columns["kwargs"]) == 1 for row in constraint_prompts(100, 5, most_constraints=1))


def written(row_text: str) -> str:
    """An answer that follows the prompt's sentences, written from the English text alone."""
    sentences = row_text.split(". ", 1)[1]
    answer = "it is good"
    words = re.search(r"at least (\d+) words", sentences)
    if words:
        answer = " ".join(["so"] * int(words.group(1)))
    keyword = re.search(r'Use the word "(\w+)"( at least twice)?', sentences)
    if keyword:
        answer = f"{keyword.group(1)} {keyword.group(1)} {answer}"
    forbidden = re.search(r'Do not use the word "is"', sentences)
    if forbidden:
        answer = answer.replace(" is", "")
    numbers = {"one": 1, "two": 2, "three": 3, "four": 4}
    listed = re.search(r"exactly (\w+) (bullet points|items|sentence)", sentences)
    if listed:
        mark = {"bullet points": "- ", "items": "{}. ", "sentence": ""}[listed.group(2)]
        answer = ("\n" if mark else " ").join(mark.format(i + 1) + answer + ("" if mark else ".") for i in range(numbers[listed.group(1)]))
    start = re.search(r'Begin with "([^"]+)"', sentences)
    if start:
        answer = f"{start.group(1)} {answer}"
    if "<<title>>" in sentences:
        answer = f"<<well>>\n{answer}"
    last = re.search(r"End with the word (\w+)", sentences)
    if last:
        answer += f" {last.group(1)}"
    answer += {"a question": "?", "an exclamation": "!"}.get(
        (re.search(r"End with (an? \w+) mark", sentences) or re.match("()", "")).group(1), ""
    )  # type: ignore[union-attr]
    if "double quotation" in sentences:
        answer = f'"{answer}"'
    if "capital letters only" in sentences:
        answer = answer.upper()
    return answer.lower() if "lower case" in sentences else answer


def test_an_answer_that_does_what_the_sentences_say_satisfies_every_constraint() -> None:
    """The words of the prompt and the constraint columns agree, and no two constraints of a prompt exclude each other."""
    for row in constraint_prompts(1200, 1) + constraint_prompts(500, 1, held_out=True):
        verdict = judge(written(row.prompt[0].content), constraints_of(row.columns))
        assert verdict.all, (row.prompt[0].content, written(row.prompt[0].content), verdict.broken)


def test_an_answer_that_ignores_the_sentences_breaks_most() -> None:
    rows = constraint_prompts(500, 2)
    share = sum(judge("Well, Yes", constraints_of(row.columns)).share for row in rows) / len(rows)
    assert share < 0.35


@pytest.mark.parametrize(
    ("count", "most", "message"), [(0, 2, "count >= 1"), (5, 3, "1 or 2"), (100_000, 1, r"There are not 100000 different")]
)
def test_what_cannot_be_made_is_refused(count: int, most: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        constraint_prompts(count, 0, most_constraints=most)
