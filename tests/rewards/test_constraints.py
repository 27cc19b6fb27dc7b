"""Instruction constraints: hand-made verdicts for every checker, rows in IFEval's layout, errors, strict and loose, and the reward."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.data.read import read_examples
from accord.errors import DataError
from accord.rewards.combine import FunctionReward, combined
from accord.rewards.constraints import (
    CHECKERS,
    RELATIONS,
    Constraint,
    ConstraintReward,
    check_rows,
    constraints,
    constraints_of,
    judge,
    loose_variants,
)
from accord.rewards.constraints.language import LANGUAGES, detect
from accord.rewards.constraints.relations import compare
from accord.rewards.constraints.text import sentences, words
from accord.types import Message, Rollout, Score
from rewards.constraint_cases import CASES
from rewards.language_samples import DECLARATION, EVERYDAY

FLAT = [
    pytest.param(id, arguments, answer, holds, id=f"{id}-{place}-{'holds' if holds else 'broken'}-{number}")
    for id, cases in CASES.items()
    for place, (arguments, right, wrong) in enumerate(cases)
    for holds, answers in ((True, right), (False, wrong))
    for number, answer in enumerate(answers)
]


@pytest.mark.parametrize(("id", "arguments", "answer", "holds"), FLAT)
def test_hand_made_verdicts(id: str, arguments: dict[str, Any], answer: str, holds: bool) -> None:
    [constraint] = constraints_of({"instruction_id_list": [id], "kwargs": [arguments]})
    assert constraint.holds(answer) is holds


def test_every_checker_has_two_answers_of_each_kind_and_a_sentence() -> None:
    assert set(CASES) == set(CHECKERS)
    assert len(CHECKERS) >= 30
    for id, cases in CASES.items():
        assert sum(len(right) for _, right, _ in cases) >= 2, id
        assert sum(len(wrong) for _, _, wrong in cases) >= 2, id
        assert CHECKERS[id].about.endswith((".", ":")), id


@pytest.mark.parametrize("id", CHECKERS)
def test_an_empty_answer_satisfies_nothing(id: str) -> None:
    arguments = CASES[id][0][0]
    assert not Constraint(id, arguments).holds("")
    assert not Constraint(id, arguments).holds(" \n ")


@pytest.mark.parametrize("id", CHECKERS)
@settings(max_examples=25)
@given(answer=st.text(alphabet=st.sampled_from("aB1 .,!?*-|#[]<>\"'`\n{}:")) | st.text())
def test_no_answer_makes_a_checker_raise(id: str, answer: str) -> None:
    for arguments, _, _ in CASES[id]:
        assert Constraint(id, arguments).holds(answer) in (True, False)


@given(st.integers(0, 9), st.integers(0, 9))
def test_relations_are_each_others_opposites(count: int, number: int) -> None:
    verdict = {relation: compare(count, relation, number) for relation in RELATIONS}
    assert verdict["at least"] is not verdict["less than"]
    assert verdict["at most"] is not verdict["more than"]
    assert verdict["exactly"] is (verdict["at least"] and verdict["at most"])


@given(st.text())
def test_loose_never_breaks_what_strict_holds(answer: str) -> None:
    found = [Constraint(id, arguments) for id, cases in CASES.items() for arguments, _, _ in cases]
    strict, loose = judge(answer, found), judge(answer, found, loose=True)
    assert all(b or not a for (_, a), (_, b) in zip(strict.held, loose.held, strict=True))


def test_loose_variants_by_hand() -> None:
    assert loose_variants("Sure:\n*a*\nBye") == [
        "Sure:\n*a*\nBye",
        "*a*\nBye",
        "Sure:\n*a*",
        "*a*",
        "Sure:\na\nBye",
        "a\nBye",
        "Sure:\na",
        "a",
    ]
    wrapped = [Constraint("change_case:lowercase")]
    assert not judge("Sure, here it is:\nall low\nHope it Helps", wrapped).all
    assert judge("Sure, here it is:\nall low\nHope it Helps", wrapped, loose=True).all
    quoted = [Constraint("startend:first_word", {"first_word": "a*b"})]
    assert not judge("Sure\nab", [Constraint("startend:first_word", {"first_word": "x"})], loose=True).all
    assert judge("a*b", quoted).all


def test_words_and_sentences() -> None:
    assert words("Don't stop: well-known, 3rd; snake_case é") == ["Don't", "stop", "well-known", "3rd", "snake", "case", "é"]
    assert words("यह एक घर है") == ["यह", "एक", "घर", "है"]
    assert sentences('Dr. Smith said "Go." Then he left... maybe. 3.5 is pi, e.g. here!') == [
        'Dr. Smith said "Go."',
        "Then he left...",
        "maybe.",
        "3.5 is pi, e.g. here!",
    ]
    assert sentences("# Title\nText one.\n1. First\n2. Second") == ["# Title", "Text one.", "1. First", "2. Second"]


@pytest.mark.parametrize("code", DECLARATION)
def test_language_of_the_declaration(code: str) -> None:
    assert detect(DECLARATION[code]) == code


@pytest.mark.parametrize("code", EVERYDAY)
def test_language_of_an_everyday_line(code: str) -> None:
    assert code in LANGUAGES
    assert detect(EVERYDAY[code]) == code


def test_language_without_evidence_is_none() -> None:
    assert detect("42 !!") is None
    assert detect("Zzz brrr") is None
    assert detect("") is None


def test_all_rows_of_ifeval_parse(shared_data: Path) -> None:
    rows = list(read_examples(shared_data / "ifeval" / "input_data.jsonl"))
    assert len(rows) == 541
    assert check_rows(rows) == 834
    found = Counter(id for row in rows for id in row.columns["instruction_id_list"])
    assert len(found) == 25 and set(found) <= set(CHECKERS)
    every = sorted({key for row in rows for given in row.columns["kwargs"] for key in given})
    for row in rows:
        padded = [{key: given.get(key) for key in every} for given in row.columns["kwargs"]]
        plain = constraints_of(row.columns)
        assert constraints_of({**row.columns, "kwargs": padded}) == plain
        assert constraints_of({key: json.dumps(row.columns[key]) for key in ("instruction_id_list", "kwargs")}) == plain


def test_the_prompts_of_ifeval_are_english(shared_data: Path) -> None:
    found = Counter(detect(row.prompt[-1].content) for row in read_examples(shared_data / "ifeval" / "input_data.jsonl"))
    assert found["en"] >= 0.98 * 541
    assert sum(count for code, count in found.items() if code not in ("en", None)) <= 2


@pytest.mark.parametrize(
    ("ids", "given", "message"),
    [
        (["keywords:existance"], [{}], 'row 7: unknown instruction id "keywords:existance". The nearest is "keywords:existence".'),
        (["keywords:existence"], [{"keywords": None}], 'row 7: keywords:existence has no "keywords" in its kwargs. It needs keywords.'),
        (["keywords:existence"], [{"keywords": "a"}], "row 7: \"keywords\" of keywords:existence is 'a' and must be a list of texts."),
        (
            ["keywords:existence"],
            [{"keywords": ["a"], "keyword": "b"}],
            'row 7: keywords:existence takes no "keyword". The nearest is "keywords".',
        ),
        (["punctuation:no_comma"], [{"mark": "b"}], 'row 7: punctuation:no_comma takes no "mark". It takes no kwargs.'),
        (
            ["length_constraints:number_words"],
            [{"relation": "at leats", "num_words": 3}],
            'row 7: "relation" of length_constraints:number_words is \'at leats\'. The nearest is "at least". '
            "Known are at least, less than, at most, more than, exactly.",
        ),
        (
            ["length_constraints:number_words"],
            [{"relation": "at least", "num_words": 2.5}],
            'row 7: "num_words" of length_constraints:number_words is 2.5 and must be a whole number of 0 or more.',
        ),
        (["punctuation:no_comma"], [], "row 7 has 1 instruction ids and 0 kwargs. Give one dictionary for each id, {} for none."),
        (["punctuation:no_comma"], ["x"], "row 7: the kwargs of punctuation:no_comma are 'x' and must be a dictionary."),
        ([], [], "row 7: instruction_id_list is empty. Give at least one instruction id, or leave the row out."),
        (None, [], 'row 7 has no list "instruction_id_list". Constraint rows need prompt, instruction_id_list, kwargs. See docs/data.md'),
        (
            "not json",
            [],
            'row 7 has no list "instruction_id_list". Constraint rows need prompt, instruction_id_list, kwargs. See docs/data.md',
        ),
    ],
)
def test_a_bad_row_is_one_clear_error(ids: Any, given: Any, message: str) -> None:
    with pytest.raises(DataError) as raised:
        constraints_of({"instruction_id_list": ids, "kwargs": given}, "row 7")
    assert str(raised.value) == message


def test_whole_numbers_that_a_table_made_floats() -> None:
    [found] = constraints_of({"instruction_id_list": ["detectable_format:number_bullet_lists"], "kwargs": [{"num_bullets": 2.0}]})
    assert found == Constraint("detectable_format:number_bullet_lists", {"num_bullets": 2})


def rollout(text: str, ids: list[str], given: list[dict[str, Any]]) -> Rollout:
    columns = {"instruction_id_list": ids, "kwargs": given, "key": 12}
    return Rollout("p", (Message("user", "x"),), (1,), (2,), text, (0.0,), "stop", columns=columns)


MIXED = (
    ["punctuation:no_comma", "startend:last_word", "keywords:existence", "keywords:existence"],
    [{}, {"last_word": "DONE"}, {"keywords": ["a"]}, {"keywords": ["z"]}],
)


def test_the_reward_is_the_share_and_each_constraint_is_a_part() -> None:
    """Of four constraints three hold (no comma, ends with DONE, has an a, has no z): 3/4."""
    [score] = ConstraintReward().score([rollout("All is DONE", *MIXED)])
    assert score == Score(
        0.75,
        {"punctuation:no_comma": 1.0, "startend:last_word": 1.0, "keywords:existence": 1.0, "keywords:existence#2": 0.0},
        explanation="broken: keywords:existence#2",
    )
    [all_or_nothing] = ConstraintReward(all_or_nothing=True).score([rollout("All is DONE", *MIXED)])
    assert all_or_nothing.value == 0.0
    [right] = ConstraintReward(all_or_nothing=True).score([rollout("A zebra is DONE", *MIXED)])
    assert right.value == 1.0 and right.explanation == "all constraints hold"
    [strict], [loose] = (ConstraintReward(loose=loose).score([rollout("A zebra is DONE\nBye", *MIXED)]) for loose in (False, True))
    assert (strict.value, loose.value) == (0.75, 1.0)


def test_the_function_and_the_source_agree_in_a_weighted_sum() -> None:
    rollouts = [rollout("All, DONE", *MIXED), rollout("a z DONE", *MIXED)]
    by_function = FunctionReward(constraints, 2.0, "constraints").score(rollouts)
    by_source = ConstraintReward(weight=2.0).score(rollouts)
    assert by_function == by_source
    total = combined([ConstraintReward(weight=2.0)], rollouts)
    assert [score.value for score in total] == [1.0, 2.0]
    assert total[0].parts["constraints/punctuation:no_comma"] == 0.0


def test_a_rollout_without_constraints_names_its_key() -> None:
    with pytest.raises(DataError, match=r'^Row with key 12: unknown instruction id "x:y"\.'):
        ConstraintReward().score([rollout("a", ["x:y"], [{}])])


def test_a_list_number_of_thousands_of_digits_is_no_number() -> None:
    [constraint] = constraints_of({"instruction_id_list": ["detectable_format:numbered_list"], "kwargs": [{"num_items": 1}]})
    assert not constraint.holds(f"{'1' * 5000}. one") and not constraint.holds("10000000001. one")
    assert constraint.holds("1. one") and constraint.holds("0001. one")


HOSTILE = ["Dr. ", "[", "*", "<<", "a.", "- ", "|-", "|a|b|\n", "```\n", "P.S. ", "a@b.", "1.", "_", "\n", "--- ", "A-"]


@pytest.mark.parametrize("id", CHECKERS)
def test_a_degenerate_answer_takes_no_time(id: str) -> None:
    """20,000 characters of one pattern: a checker that tries every way to match them would take minutes."""
    before = time.process_time()
    for pattern in HOSTILE:
        Constraint(id, CASES[id][0][0]).holds(f"x{pattern * (20_000 // len(pattern))}x")
    assert time.process_time() - before < 3
