"""The reward of code: 1 when an answer's program passes the row's tests in the sandbox, 0 when it does not, an error where that cannot be known."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from accord.errors import DataError
from accord.rewards.grader_process import FailureBudget
from accord.rewards.sandbox import Execution, Limits, run_code
from accord.types import Rollout, Score

_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_PYTHON = {"", "python", "py", "python3"}


def extract_code(answer: str, entry_point: str | None = None) -> str:
    """The Python of an answer.

    Out of several fenced blocks, the last one that defines the entry point, else the last one; a block of another language is none. Without
    a block, the answer as it is. A fence that is not closed runs to the end.
    """
    blocks = [body for language, body in _FENCE.findall(answer) if language.lower() in _PYTHON]
    if not blocks:
        return answer
    defining = [body for body in blocks if entry_point and _defines(body, entry_point)]
    return (defining or blocks)[-1]


def _defines(code: str, name: str) -> bool:
    return bool(re.search(rf"^(?:async[ \t]+)?(?:def|class)[ \t]+{re.escape(name)}\b|^{re.escape(name)}[ \t]*=", code, re.MULTILINE))


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def program(prompt: str, answer: str, entry_point: str | None) -> str:
    """The whole program that an answer stands for.

    An answer that defines the entry point is run after the prompt when the prompt is code (its imports and helper functions), else alone. An
    answer that does not is the continuation of a prompt that is code, as HumanEval's: a body is indented when it is not.
    """
    code = extract_code(answer, entry_point)
    if not prompt.strip() or not _parses(prompt):
        return code
    if entry_point is None or _defines(code, entry_point):
        return f"{prompt}\n\n{code}"
    first = next((line for line in code.splitlines() if line.strip()), "")
    if first and not first[0].isspace():
        code = "\n".join(f"    {line}" for line in code.splitlines())
    return f"{prompt.rstrip()}\n{code}"


@dataclass
class CodeReward:
    """Scores rollouts whose rows have tests: 1 passed, 0 not, larger is better.

    Columns, as in HumanEval and MBPP: `test` (text) or `test_list` (a list of asserts), `entry_point`, `test_setup_code`. How it ended is the
    explanation; a sandbox that cannot start, and tests that cannot be run, are an error, never a 0, and too many stop the run.
    """

    weight: float = 1.0
    name: str = "code"
    limits: Limits = field(default_factory=Limits, kw_only=True)
    isolated: bool = field(default=True, kw_only=True)
    """True: the answer runs apart from its tests. False: in one process, for tests of classes; see `sandbox.run_code`."""
    workers: int = field(default=0, kw_only=True)
    """Sandboxes at a time; 0: as many as processors."""
    max_failure_share: float = field(default=0.1, kw_only=True)
    """More runs that say nothing than this among the last 200 stop the run, see `FailureBudget`."""

    def __post_init__(self) -> None:
        self.failures = FailureBudget("The sandbox", max_failure_share=self.max_failure_share)

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        """One score a rollout, in order.

        Raises:
            DataError: if a row has no tests.
            ConfigError: if too many could not be run.
        """
        jobs = [(rollout, *_tests_of(rollout)) for rollout in rollouts]
        with ThreadPoolExecutor(self.workers or os.cpu_count() or 1) as pool:
            found = list(pool.map(lambda job: self.judged(self._run(*job)), jobs))
        for score in found:
            self.failures.count(score.error)
        return found

    def _run(self, rollout: Rollout, tests: str, entry_point: str | None) -> Execution:
        prompt = next((message.content for message in reversed(rollout.prompt) if message.role == "user"), "")
        setup = str(rollout.columns.get("test_setup_code") or "")
        preamble = f"{setup}\n{prompt}" if _parses(prompt) else setup
        code = program(prompt, rollout.text, entry_point)
        if not self.isolated:
            tests = f"{setup}\n{tests}"
        return run_code(code, tests, entry_point=entry_point, preamble=preamble, limits=self.limits, isolated=self.isolated)

    @staticmethod
    def judged(execution: Execution) -> Score:
        """A run as a score; each outcome but an error is a part of its own, so that their shares are logged."""
        if execution.error is not None:
            return Score(None, error=execution.error)
        parts = {outcome: float(execution.outcome == outcome) for outcome in ("timed out", "out of memory", "crashed", "output too long")}
        parts = {name.replace(" ", "_"): value for name, value in parts.items()}
        reason = f"{execution.outcome}: {execution.reason}" if execution.reason else execution.outcome
        return Score(float(execution.passed), parts, explanation=reason)


def _tests_of(rollout: Rollout) -> tuple[str, str | None]:
    columns: dict[str, Any] = rollout.columns
    tests = columns.get("test") or columns.get("test_list")
    if isinstance(tests, (list, tuple)):
        tests = "\n".join(str(test) for test in tests)
    if not isinstance(tests, str) or not tests.strip():
        name = columns.get("task_id", rollout.prompt_id)
        raise DataError(f'Row {name} has no "test" or "test_list". Code rows need prompt, test, entry_point. See docs/data.md')
    entry_point = columns.get("entry_point")
    return tests, str(entry_point) if entry_point else None
