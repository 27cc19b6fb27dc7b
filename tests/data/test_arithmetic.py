"""The made arithmetic: right, different, split for good, and planted errors that are errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.data.arithmetic import ERRORS, MORE_ERRORS, Chain, arithmetic_prompts, arithmetic_solutions, chains, planted_errors
from accord.data.read import read_examples
from accord.data.write import write_examples
from accord.errors import ConfigError


def worked_out(question: str) -> list[int]:
    """The values of a problem from its words alone."""
    values = [int(re.search(r"Start with (\d+)", question).group(1))]  # type: ignore[union-attr]
    for verb, number in re.findall(r"(Add|Subtract|Multiply by) (\d+)", question):
        before = values[-1]
        values.append({"Add": before + int(number), "Subtract": before - int(number), "Multiply by": before * int(number)}[verb])
    return values


def test_a_problem_by_hand() -> None:
    """7 + 5 = 12, 12 * 2 = 24, 24 - 3 = 21."""
    chain = Chain(7, (("+", 5), ("*", 2), ("-", 3)))
    assert chain.question == "Start with 7. Add 5. Multiply by 2. Subtract 3. What is the result?"
    assert chain.steps == ["7 + 5 = 12", "12 * 2 = 24", "24 - 3 = 21"]
    (prompt,) = arithmetic_prompts([chain], instruction="Answer after ####.")
    assert prompt.prompt[0].content == f"{chain.question}\nAnswer after ####."
    assert (prompt.kind, prompt.columns["answer"], prompt.columns["steps"]) == ("prompt", "21", chain.steps)
    worked, direct = (arithmetic_solutions([chain], worked=worked)[0].completions[0].text for worked in (True, False))
    assert worked == "7 + 5 = 12\n12 * 2 = 24\n24 - 3 = 21\n#### 21"
    assert direct == "#### 21"


@given(st.integers(0, 10**6), st.tuples(st.integers(2, 4), st.integers(0, 3)), st.integers(5, 50), st.booleans())
@settings(max_examples=30, deadline=None)
def test_problems_are_right_and_in_range(seed: int, sizes: tuple[int, int], largest: int, negative: bool) -> None:
    steps = (sizes[0], sizes[0] + sizes[1])
    found = chains(20, seed=seed, steps=steps, largest=largest, limit=100, negative=negative)
    assert len({chain.question for chain in found}) == 20
    for chain in found:
        values = worked_out(chain.question)
        assert chain.values == values
        assert steps[0] <= len(chain.operations) <= steps[1]
        assert all((-100 if negative else 0) <= value <= 100 for value in values)
        assert 1 <= chain.start <= largest


def test_the_same_seed_gives_the_same_problems() -> None:
    assert chains(50, seed=3) == chains(50, seed=3)
    assert chains(50, seed=3)[:20] == chains(20, seed=3)
    assert chains(50, seed=3) != chains(50, seed=4)


def test_training_and_held_out_problems_are_disjoint_for_any_seeds() -> None:
    train = {chain.question for seed in range(3) for chain in chains(300, seed=seed, split="train")}
    held_out = {chain.question for seed in range(3) for chain in chains(300, seed=seed, split="heldout")}
    assert not train & held_out
    both = chains(1000, seed=9)
    assert 0.18 < sum(chain.split == "heldout" for chain in both) / 1000 < 0.32


def test_all_operations_and_lengths_occur() -> None:
    found = chains(200)
    assert {operation for chain in found for operation, _ in chain.operations} == {"+", "-", "*"}
    assert {len(chain.operations) for chain in found} == {2, 3, 4}


@given(st.integers(0, 10**6), st.sampled_from(ERRORS), st.sampled_from(["none", "wrong"]))
@settings(max_examples=30, deadline=None)
def test_planted_errors_are_where_the_labels_say(seed: int, kind: str, after: str) -> None:
    """Read from the lines alone: what comes before is the right working, the marked line is not, and the result is wrong."""
    problems = chains(20, seed=seed)
    for problem, example in zip(problems, planted_errors(problems, seed=seed, share=1.0, errors=[kind], after=after), strict=True):  # type: ignore[arg-type]
        lines = [message.content for message in example.completions[0].messages]
        place = example.columns["first_error"]
        labels = example.step_labels
        assert labels is not None
        assert len(lines) == len(labels) == len(problem.steps)
        assert lines[:place] == problem.steps[:place]
        assert lines[place] != problem.steps[place]
        assert labels == (*(1,) * place, -1, *((None if after == "none" else -1),) * (len(lines) - place - 1))
        assert (example.columns["error"], example.columns["answer"]) == (kind, str(problem.values[-1]))
        ends = [int(line.rpartition("=")[2]) for line in lines]
        assert str(ends[-1]) == example.columns["stated"] != example.columns["answer"]
        for index, line in enumerate(lines):
            first, sign, second, result = re.fullmatch(r"(-?\d+) ([-+*]) (\d+) = (-?\d+)", line).groups()  # type: ignore[union-attr]
            sound = {"+": int(first) + int(second), "-": int(first) - int(second), "*": int(first) * int(second)}[sign] == int(result)
            follows = int(first) == (ends[index - 1] if index else problem.start)
            asked = (sign, int(second)) == problem.operations[index]
            broken = {"slip": not sound, "operation": not asked, "copy": not follows}
            assert broken == {name: name == kind and index == place for name in ERRORS}


@pytest.mark.parametrize("kind", (*ERRORS, *MORE_ERRORS))
@pytest.mark.parametrize("after", ["none", "wrong"])
def test_errors_that_models_make_with_the_line_of_the_answer(kind: str, after: str) -> None:
    """The first line that differs from the right working is the one marked; the stated answer is wrong; what the kind says is so."""
    problems = chains(200, seed=5)
    found = planted_errors(problems, seed=5, share=1.0, errors=[kind], after=after, answer_line=True)  # type: ignore[arg-type]
    for problem, example in zip(problems, found, strict=True):
        lines = [message.content for message in example.completions[0].messages]
        right, place, labels = [*problem.steps, f"#### {problem.values[-1]}"], example.columns["first_error"], example.step_labels
        assert labels is not None
        assert lines[:place] == right[:place] and lines[place] != right[place]
        assert labels == (*(1,) * place, -1, *((None if after == "none" else -1),) * (len(lines) - place - 1))
        assert lines[-1] == f"#### {example.columns['stated']}" != right[-1]
        if example.columns["error"] == "skip":
            assert len(lines) == len(right) - 1
        elif example.columns["error"] == "answer":
            assert (lines[:-1], place) == (problem.steps, len(right) - 1)
        elif example.columns["error"] == "operand":
            asked, taken = (line.split()[:3] for line in (right[place], lines[place]))
            assert asked[:2] == taken[:2] and asked[2] != taken[2]
    drawn = [example.columns["error"] for example in found]
    assert set(drawn) <= {kind, "slip"} and drawn.count(kind) >= 190


def test_the_share_of_planted_errors() -> None:
    found = planted_errors(chains(400), share=0.25)
    wrong = [example for example in found if example.columns["first_error"] is not None]
    assert 0.17 < len(wrong) / 400 < 0.33
    right = [example for example in found if example.columns["first_error"] is None]
    assert all(set(example.step_labels or ()) == {1} and example.columns["stated"] == example.columns["answer"] for example in right)
    assert {example.columns["error"] for example in wrong} == set(ERRORS)


def test_rows_survive_a_file(tmp_path: Path) -> None:
    problems = chains(10)
    for name, examples in (("prompts", arithmetic_prompts(problems)), ("steps", planted_errors(problems))):
        path = tmp_path / f"{name}.jsonl"
        write_examples(examples, path)
        back = list(read_examples(path))
        assert [(e.kind, e.prompt, e.completions and e.completions[0].text, e.step_labels, e.columns) for e in back] == [
            (e.kind, e.prompt, e.completions and e.completions[0].text, e.step_labels, e.columns) for e in examples
        ]


@pytest.mark.parametrize(
    "arguments",
    [
        {"steps": (1, 3)},
        {"steps": (3, 2)},
        {"largest": 0},
        {"limit": 5},
        {"split": "test"},
        {"count": 10**4, "steps": (2, 2), "largest": 2, "limit": 4},
    ],
)
def test_arguments_out_of_range(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="chains"):
        chains(**{"count": 5, **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [{"share": 1.5}, {"errors": []}, {"errors": ["typo"]}, {"errors": ["skip"]}, {"after": "right"}])
def test_planting_out_of_range(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="planted_errors"):
        planted_errors(chains(2), **arguments)  # type: ignore[arg-type]
