"""The code reward: HumanEval's own solutions pass, broken ones do not, and what an answer's program is."""

from __future__ import annotations

import ast
import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from accord.data.read import read_examples
from accord.errors import ConfigError, DataError
from accord.rewards.code import CodeReward, extract_code, program
from accord.rewards.combine import combined
from accord.rewards.sandbox import Execution, Limits
from accord.types import Message, Rollout

LIMITS = Limits(wall_seconds=60, cpu_seconds=30)


def rollout(text: str, prompt: str = "Write a function f that adds one.", **columns: Any) -> Rollout:
    columns = {"test": "assert f(1) == 2", "entry_point": "f", **columns}
    return Rollout("p", (Message("user", prompt),), (1,), (2,), text, (0.0,), "stop", columns=columns)


def problems(shared_data: Path) -> list[dict[str, Any]]:
    with gzip.open(shared_data / "humaneval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def broken(row: dict[str, Any]) -> str:
    """The solution with its last return giving None."""
    tree = ast.parse(row["prompt"] + row["canonical_solution"])
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == row["entry_point"])
    function.body.insert(1, ast.Return(ast.Constant(None)))
    return ast.unparse(ast.fix_missing_locations(tree))


def check_problems(rows: list[dict[str, Any]]) -> None:
    reward = CodeReward(limits=LIMITS)
    columns = [{key: value for key, value in row.items() if key != "prompt"} for row in rows]
    right = reward.score([rollout(row["canonical_solution"], row["prompt"], **given) for row, given in zip(rows, columns, strict=True)])
    assert [score.explanation for score in right] == ["passed"] * len(rows)
    assert [score.value for score in right] == [1.0] * len(rows)
    wrong = reward.score(
        [rollout(f"```python\n{broken(row)}\n```", row["prompt"], **given) for row, given in zip(rows, columns, strict=True)]
    )
    assert [score.value for score in wrong] == [0.0] * len(rows)
    assert all((score.explanation or "").startswith("failed: ") for score in wrong)


def test_twenty_problems_of_humaneval(shared_data: Path) -> None:
    """Every eighth, and those whose tests call helper functions of the prompt (32, 38, 50)."""
    rows = problems(shared_data)
    assert len(rows) == 164
    check_problems([rows[number] for number in sorted({*range(0, 136, 8), 32, 38, 50, 163})])


@pytest.mark.slow
def test_all_problems_of_humaneval(shared_data: Path) -> None:
    check_problems(problems(shared_data))


def test_rows_read_from_the_file_carry_their_tests(shared_data: Path) -> None:
    [example] = list(read_examples(shared_data / "humaneval" / "HumanEval.jsonl.gz", kind="prompt", limit=1))
    answer = str(example.columns["canonical_solution"])
    [score] = CodeReward(limits=LIMITS).score([Rollout("p", example.prompt, (1,), (2,), answer, (0.0,), "stop", columns=example.columns)])
    assert score.value == 1.0


RIGHT = "def f(x):\n    return x + 1\n"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (RIGHT, RIGHT),
        (f"Sure:\n```python\n{RIGHT}```\nDone.", RIGHT),
        (f"```\n{RIGHT}```", RIGHT),
        (f"```py\n{RIGHT}```\nUse:\n```python\nprint(f(1))\n```", RIGHT),
        (f"```python\nold = 1\n```\n```python\n{RIGHT}```", RIGHT),
        (f"```bash\nls\n```\n```Python\n{RIGHT}```", RIGHT),
        (f"```python\n{RIGHT}", RIGHT),
        ("```js\nx\n```", "```js\nx\n```"),
    ],
)
def test_the_code_of_an_answer(answer: str, code: str) -> None:
    assert extract_code(answer, "f") == code


def test_the_program_of_an_answer() -> None:
    prompt = 'import math\n\ndef f(x):\n    """Add one."""\n'
    assert program(prompt, "    return x + 1", "f") == 'import math\n\ndef f(x):\n    """Add one."""\n    return x + 1'
    assert program(prompt, "return x + 1", "f").endswith('"""\n    return x + 1')
    assert program(prompt, RIGHT, "f") == f"{prompt}\n\n{RIGHT}"
    assert program("Write f, please.", RIGHT, "f") == RIGHT
    for answer in ("    return x + 1", "return x + 1", RIGHT, f"Here:\n```python\n{RIGHT}```"):
        namespace: dict[str, Any] = {}
        exec(program(prompt, answer, "f"), namespace)
        assert namespace["f"](1) == 2


def test_an_answers_own_failure_is_a_zero_with_its_reason_and_a_part() -> None:
    scores = CodeReward(limits=Limits(wall_seconds=2)).score(
        [
            rollout(RIGHT),
            rollout("no code at all"),
            rollout("import os; os._exit(0)"),
            rollout("def f(x):\n    import time; time.sleep(99)"),
        ]
    )
    assert [score.value for score in scores] == [1.0, 0.0, 0.0, 0.0]
    assert all(score.error is None for score in scores)
    assert [score.parts["crashed"] for score in scores] == [0.0, 0.0, 1.0, 0.0]
    assert scores[3].parts["timed_out"] == 1.0 and scores[3].explanation == "timed out: more than 2 s"
    assert (scores[1].explanation or "").startswith("failed: SyntaxError")


def test_tests_as_a_list_with_a_setup() -> None:
    row = {"test": None, "test_list": ["assert f(1) == TWO", "assert f(2) == 3"], "test_setup_code": "TWO = 2", "entry_point": None}
    for isolated in (True, False):
        good, bad = CodeReward(isolated=isolated).score([rollout(RIGHT, **row), rollout("def f(x): return 2", **row)])
        assert (good.value, bad.value) == (1.0, 0.0)


def test_a_sandbox_that_cannot_start_is_an_error_and_no_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    [score] = combined([CodeReward()], [rollout(RIGHT)])
    assert score.value is None and (score.error or "").startswith("the sandbox did not start: FileNotFoundError")
    assert CodeReward.judged(Execution("not started", "x")).value is None


def test_too_many_runs_that_say_nothing_stop_the_run() -> None:
    """Tests that never call the answer say nothing about any: the twentieth in a row is one too many."""
    reward = CodeReward(limits=LIMITS, max_failure_share=0.5)
    reward.failures.least = 4
    idle = rollout(RIGHT, test="assert True", entry_point=None)
    assert [score.value for score in reward.score([rollout(RIGHT), rollout(RIGHT), idle])] == [1.0, 1.0, None]
    with pytest.raises(ConfigError, match=r"The sandbox failed on 3 of the last 5 answers, .* the tests never call the answer"):
        reward.score([idle, idle])


def test_a_row_without_tests_is_named() -> None:
    with pytest.raises(DataError, match=r'^Row T/1 has no "test" or "test_list"\.'):
        CodeReward().score([rollout(RIGHT, test=None, task_id="T/1")])
