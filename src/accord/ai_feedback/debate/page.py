"""The page of a run of debates: what each protocol is worth, quotes, ratings, and what was said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accord.ai_feedback.debate.measures import Measured, Ratings, accuracy_table, points_text, quote_table, trust_table
from accord.ai_feedback.debate.protocols import PROTOCOLS
from accord.ai_feedback.debate.running import Decision, Run
from accord.ai_feedback.debate.turns import LETTERS, SILENT, Turn
from accord.reporting.charts import interval_rows
from accord.reporting.report import Chart, Part, Report, Sample

SHOWN = 3
"""Tasks of which a transcript is on the page, of each protocol in which somebody speaks."""


def debate_page(decisions: Sequence[Decision], found: Sequence[Measured], rated: Ratings, about: dict[str, Any], folder: Path) -> Report:
    """The page as plain data."""
    report = Report(title="accord debate", sentence=_sentence(found))
    report.notes = [
        "The judge never reads the evidence, but for direct judgement (a part of it) and oracle (all of it). Every case is run twice, with "
        "the answers swapped; a tie, or a verdict that changes with the order, counts half.",
        *(f"{one.protocol}: {PROTOCOLS[one.protocol].words}." for one in found),
    ]
    report.parts = [_accuracy_part(found), _trust_part(found)]
    header, rows = quote_table(found)
    if rows:
        words = "A quote is verified where it stands in the evidence word for word. Only the judge's trust in quotes makes a lie costly."
        report.parts.append(Part("Quotes", words, header, rows))
        report.parts.append(_ratings_part(rated))
    report.samples = [sample for one in found for sample in _samples(decisions, one.protocol)]
    report.lineage = [(name, str(value)) for name, value in about.items()]
    spoken = next((one.protocol for one in found if one.turns), found[0].protocol if found else "debate")
    report.next_steps = [
        (f"accord reward --data {(folder / f'verdicts-{spoken}.jsonl').as_posix()}", "a reward model from these verdicts"),
    ]
    return report


def _sentence(found: Sequence[Measured]) -> str:
    measured = [one for one in found if one.accuracy is not None]
    if not measured:
        return f"{sum(one.decisions for one in found)} decisions; nobody knows the right answers."
    return "The judge is right: " + ", ".join(f"{one.protocol} {100 * one.accuracy.mean:.0f} %" for one in measured if one.accuracy) + "."


def _accuracy_part(found: Sequence[Measured]) -> Part:
    rows = [(one.protocol, one.accuracy.mean, one.accuracy.low, one.accuracy.high) for one in found if one.accuracy is not None]
    charts = [Chart(interval_rows(rows, label="judge right"), "Dots are means over tasks, lines 95 % intervals; the thin line is a coin.")]
    return Part("What each protocol is worth", "", *accuracy_table(found), charts if rows else ())


def _trust_part(found: Sequence[Measured]) -> Part:
    words = (
        "p(right): mean probability of the right answer. Brier: 0.25 is a coin. ECE: calibration error. Consistent: same winner in both "
        "orders. p(first): 0.5 is no bias. Tokens: questions and answers of a decision, both orders."
    )
    return Part("How sure, and at what cost", words, *trust_table(found))


def _ratings_part(rated: Ratings) -> Part:
    if rated.problem is not None:
        return Part("Who persuades", f"There are no ratings: {rated.problem.rstrip('.')}.")
    words = "Bradley-Terry ratings by maximum likelihood in points of the Elo scale, 0 is the mean: 100 points more win 64 of 100."
    rows = [(name, points_text(points)) for name, points in rated.points.items()]
    return Part("Who persuades", words, ("debater", "points (95 %)"), rows)


def _samples(decisions: Sequence[Decision], protocol: str) -> list[Sample]:
    """The first transcript of each of the first tasks, as the judge read them."""
    first: dict[str, Decision] = {}
    for one in decisions:
        if one.case.protocol.name == protocol and one.turns:
            first.setdefault(one.case.task.id, one)
    return [_sample(one) for one in list(first.values())[:SHOWN]]


def _sample(decision: Decision) -> Sample:
    run, task = decision.runs[0], decision.case.task
    said = [("the text", task.evidence, True), *(_said(run, turn) for turn in run.turns), ("verdict", _verdict(decision), True)]
    answers = [{"who": who, "text": text, "passed": None, "finished": finished} for who, text, finished in said]
    right = "" if task.right is None else f" Right: {task.answers[task.right]}."
    return Sample(decision.case.protocol.name, f"{task.question} {task.answers[0]}, or {task.answers[1]}?{right}", answers)


def _said(run: Run, turn: Turn) -> tuple[str, str, bool]:
    """Who, what, and whether it is whole. Quotes as people read them."""
    side = turn.statement.side
    pieces = [
        f"“{one.text}” [{'in the text' if one.verified else 'NOT in the text'}]" if one.quote else one.text
        for one in turn.statement.segments
    ]
    text = turn.error or " ".join(pieces) or SILENT
    return f"{LETTERS[side]}, {turn.debater}", f"for {run.answers[side]}: {text}", not turn.cut


def _verdict(decision: Decision) -> str:
    verdict, answers = decision.verdict, decision.case.task.answers
    if verdict.probability is None:
        return f"none: {verdict.invalid}"
    word = {1.0: ", right", 0.0: ", wrong", 0.5: ", half right", None: ""}[decision.correct]
    orders = "" if verdict.consistent else ", changes with the order"
    return f"{verdict.probability:.2f} for {answers[0]}, {1 - verdict.probability:.2f} for {answers[1]}{orders}{word}"
