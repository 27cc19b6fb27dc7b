"""The accuracy reward: 1 where an answer is right, 0 where it is wrong or states nothing, no score where the grader failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from accord.errors import ConfigError, DataError
from accord.rewards.choices import grade_choice
from accord.rewards.grader_process import FailureBudget, GraderFailure, GraderProcess
from accord.rewards.matching import grade_exact, grade_normalized
from accord.rewards.numeric import grade_numeric
from accord.rewards.verdicts import Grader, Verdict
from accord.types import Example, Rollout, Score

GRADERS: dict[str, Grader] = {"numeric": grade_numeric, "choice": grade_choice, "exact": grade_exact, "normalized": grade_normalized}
"""Graders that cannot hang: they run here."""
SEPARATE_GRADERS = {"symbolic": "accord.rewards.symbolic:grade_symbolic", "boxed": "accord.rewards.symbolic:grade_boxed"}
"""Graders that can: they run in a `GraderProcess`."""
GOLD_COLUMNS = ("answer", "solution", "gold")
CHOICE_COLUMNS = ("choices", "options")


class AccuracyReward:
    """Grades answers against a column of their row; a `RewardSource`.

    Args:
        grader: numeric, choice, exact, normalized, symbolic, boxed, or "file.py:function" / "module:function" of your own, called with
            (text, gold, **options) in a process of its own.
        gold: the column with the right answer, or several of which the first that a row has counts.
        weight: of this reward in the sum.
        name: in the metrics; `<name>/no_answer` is the share of answers that state nothing.
        options: passed to the grader, such as {"require_unit": True}.
        timeout: seconds one answer may take in a process of its own.
        max_failure_share: more failures than this among the last 200 answers stop the run, see `FailureBudget`.
    """

    def __init__(
        self,
        grader: str = "numeric",
        *,
        gold: str | Sequence[str] = GOLD_COLUMNS,
        weight: float = 1.0,
        name: str = "accuracy",
        options: Mapping[str, Any] | None = None,
        timeout: float = 5.0,
        max_failure_share: float = 0.1,
    ) -> None:
        if grader not in GRADERS and grader not in SEPARATE_GRADERS and ":" not in grader:
            known = ", ".join([*GRADERS, *SEPARATE_GRADERS])
            raise ConfigError(f"There is no grader {grader!r}. Graders: {known}, or file.py:function for your own.")
        self.grader, self.weight, self.name = grader, weight, name
        self.gold = (gold,) if isinstance(gold, str) else tuple(gold)
        self.options = dict(options or {})
        self.failures = FailureBudget(f"Grader {grader}", max_failure_share=max_failure_share)
        self.process = None if grader in GRADERS else GraderProcess(SEPARATE_GRADERS.get(grader, grader), timeout=timeout)

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        """One score a rollout.

        Raises:
            DataError: naming the row, if it has no gold answer or one that cannot be read.
            ConfigError: if too many gradings failed.
        """
        return [self._score(rollout) for rollout in rollouts]

    def check(self, rows: Iterable[Example]) -> int:
        """Grade every row's gold answer against itself, before a run needs it; returns how many there were.

        Raises:
            DataError: naming the row, if one has none, or one that is not right by its own grader.
        """
        count = 0
        for count, row in enumerate(rows, start=1):  # noqa: B007
            where = row.where or _place(row.prompt_id, row.prompt[-1].content if row.prompt else "")
            gold, options = self._known(row.columns, where)
            text = gold if isinstance(gold, str) else str(gold)
            try:
                verdict = self._grade(text, gold, options)
            except DataError as error:
                raise DataError(f"{where}: {error}") from error
            except GraderFailure as error:
                raise DataError(f"{where}: the gold answer {text[:60]!r} cannot be graded: {error}.") from error
            if (
                isinstance(verdict, Verdict)
                and not verdict.right
                and not (self.grader in ("boxed", "choice") and verdict.outcome == "no answer")
            ):
                raise DataError(f"{where}: the gold answer {text[:60]!r} is not right by its own grader {self.grader} ({verdict.reason}).")
        return count

    def close(self) -> None:
        """End the grader's process, if it has one."""
        if self.process is not None:
            self.process.close()

    def _score(self, rollout: Rollout) -> Score:
        where = _place(rollout.prompt_id, rollout.prompt[-1].content if rollout.prompt else "")
        gold, options = self._known(rollout.columns, where)
        try:
            verdict = self._grade(rollout.text, gold, options)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        except GraderFailure as error:
            self.failures.count(str(error))
            return Score(None, error=f"{self.name}: {error}")
        self.failures.count(None)
        return verdict.score() if isinstance(verdict, Verdict) else Score(verdict)

    def _grade(self, text: str, gold: Any, options: Mapping[str, Any]) -> Verdict | float:
        return GRADERS[self.grader](text, gold, **options) if self.process is None else self.process.grade(text, gold, options)

    def _known(self, columns: Mapping[str, Any], where: str) -> tuple[Any, dict[str, Any]]:
        """A row's gold answer, and the options for its grader."""
        gold = next((columns[name] for name in self.gold if columns.get(name) is not None), None)
        if gold is None or gold == "":
            wanted = " or ".join(repr(name) for name in self.gold)
            raise DataError(
                f"{where} has no gold answer in column {wanted} (it has: {', '.join(columns) or 'none'}). Name the column: gold=..."
            )
        options = dict(self.options)
        if self.grader == "choice" and "choices" not in options:
            options["choices"] = next((columns[name] for name in CHOICE_COLUMNS if columns.get(name) is not None), None)
        return gold, options


def _place(prompt_id: str, prompt: str) -> str:
    return f"Prompt {prompt_id} ({' '.join(prompt.split())[:60]!r})"
