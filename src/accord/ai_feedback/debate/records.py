"""What a run of debates writes: transcripts with everything in them, and verdicts as preference rows that training takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from accord.ai_feedback.debate.running import Decision, Rules, Run
from accord.ai_feedback.debate.tasks import HiddenTask, as_row
from accord.ai_feedback.debate.turns import LETTERS
from accord.ai_feedback.labels import labelled_row
from accord.ai_feedback.verdicts import as_record
from accord.types import Completion, Example, Message

SCHEMA = 1


def transcript(decision: Decision, rules: Rules) -> dict[str, Any]:
    """All of a decision, hidden thinking too, and word for word what the judge was shown. JSON-able."""
    case = decision.case
    return {
        "schema": SCHEMA,
        "task_id": case.task.id,
        "task": as_row(case.task),
        "where": case.task.where,
        "protocol": case.protocol.name,
        "answers": list(case.task.answers),
        "debaters": list(case.debaters),
        "right": case.task.right,
        "correct": decision.correct,
        "verdict": as_record(decision.verdict),
        "runs": [_run(run, rules) for run in decision.runs],
    }


def preference_row(decision: Decision, about: dict[str, Any]) -> Example:
    """A valid decision as a comparison of the two answers to evidence and question, with the verdict's soft label.

    The judge saw no evidence; who learns from its verdicts does.

    Args:
        about: what the verdict depends on: judge, debaters, rules.
    """
    case, task = decision.case, decision.case.task
    columns = {"protocol": case.protocol.name, "task": task.id}
    record = {**about, "debaters": list(case.debaters), **as_record(decision.verdict)}
    return labelled_row(pair_of(task, columns), decision.verdict, record)


def pair_of(task: HiddenTask, columns: dict[str, Any] | None = None) -> Example:
    """A task's two answers to its evidence and question, in the task's order, without a label."""
    prompt = (Message("user", f"{task.evidence}\n\n{task.question}"),)
    answers = tuple(Completion((Message("assistant", answer),)) for answer in task.answers)
    return Example("preference", prompt, answers, plain=True, columns=dict(columns or {}), where=task.where)


def truth_row(task: HiddenTask) -> Example:
    """The same with its right answer preferred: what a reward model learns where the truth is known."""
    assert task.right is not None, f"{task.where} has no right answer"
    pair = pair_of(task, {"annotator": "truth", "label_source": "rule"})
    ordered = pair.completions if task.right == 0 else tuple(reversed(pair.completions))
    return Example("preference", pair.prompt, ordered, plain=True, columns=pair.columns, where=pair.where)


def rows_of(decisions: Sequence[Decision], about: dict[str, Any]) -> list[Example]:
    """The valid ones as preference rows."""
    return [preference_row(one, about) for one in decisions if one.verdict.probability is not None]


def _run(run: Run, rules: Rules) -> dict[str, Any]:
    turns = [
        {
            "side": LETTERS[turn.statement.side],
            "answer": run.answers[turn.statement.side],
            "shown": turn.statement.text,
            "segments": [asdict(segment) for segment in turn.statement.segments],
            **{name: value for name, value in asdict(turn).items() if name != "statement"},
            "round": turn.statement.round,
        }
        for turn in run.turns
    ]
    return {"swapped": run.swapped, "turns": turns, "judge_sees": run.shown(rules).text}
