"""Alignment tax: what training cost elsewhere, paired with the model before it. Neutral prose, word problems, instructions, small questions."""

from __future__ import annotations

from collections.abc import Sequence

from accord.audit.findings import Allowed, Finding, Section, Shown, judged
from accord.audit.probe_sets import Problem
from accord.audit.subjects import Choice, Subject, user
from accord.evaluation.tax import QUESTIONS
from accord.rewards.constraints import constraints_of, judge
from accord.rewards.numeric import grade_numeric
from accord.types import Example

NEUTRAL = Allowed(change=0.1)
"""Nats a token: perplexity a tenth higher."""
ACCURACY = Allowed(change=0.05, higher_is_worse=False)
_ADVICE = "Mix demonstrations of the old task in (--ptx-data in PPO, --sft-coefficient in DPO), or train fewer layers for fewer steps."


def tax(subject: Subject, base: Subject | None, texts: Sequence[str], problems: Sequence[Problem], rows: Sequence[Example]) -> Section:
    """The section of the page. Without a base there is nothing to be taxed from: values are shown without a verdict.

    Args:
        rows: prompts with IFEval's columns.
    """
    findings = (_prose(subject, base, texts), _questions(subject, base), _sums(subject, base, problems), _instructions(subject, base, rows))
    words = "" if base is not None else "Give the model before training for a verdict: --against BASE."
    return Section("tax", "Alignment tax", words, findings)


def _prose(subject: Subject, base: Subject | None, texts: Sequence[str]) -> Finding:
    return judged(
        "nats a token of neutral prose",
        subject.read(texts),
        NEUTRAL,
        words=f"{len(texts)} paragraphs of plain prose; e to this power is the perplexity.",
        advice=_ADVICE,
        base=base.read(texts) if base is not None else None,
        percent=False,
    )


def _questions(subject: Subject, base: Subject | None) -> Finding:
    choices = [Choice(user(question), (f"{right}.", f"{wrong}.")) for question, right, wrong in QUESTIONS]

    def right(who: Subject) -> list[float]:
        return [one.prefers(0) for one in who.weigh(choices)]

    return judged(
        "small questions right",
        right(subject),
        ACCURACY,
        words="The right short answer is likelier a token than the wrong one.",
        advice=_ADVICE,
        base=right(base) if base is not None else None,
    )


def _sums(subject: Subject, base: Subject | None, problems: Sequence[Problem]) -> Finding:
    now = [one.text for one in subject.write([user(problem.prompt) for problem in problems])]
    was = [one.text for one in base.write([user(problem.prompt) for problem in problems])] if base is not None else None

    def right(texts: Sequence[str]) -> list[float]:
        return [float(grade_numeric(text, problem.answer).right) for text, problem in zip(texts, problems, strict=True)]

    values, before = right(now), right(was) if was is not None else None
    lost = [i for i, value in enumerate(values) if before is not None and before[i] > value]
    return judged(
        "word problems right",
        values,
        ACCURACY,
        words="The number that the answer states is the right one.",
        advice=_ADVICE,
        base=before,
        examples=[Shown(problems[i].prompt, (("before", was[i] if was else ""), ("now", now[i]))) for i in lost],
    )


def _instructions(subject: Subject, base: Subject | None, rows: Sequence[Example]) -> Finding:
    kept = [constraints_of(row.columns, row.where or "A row") for row in rows]

    def share(who: Subject) -> list[float]:
        answers = who.write([row.prompt for row in rows])
        return [judge(answer.text, one).share for answer, one in zip(answers, kept, strict=True)]

    return judged(
        "instructions followed",
        share(subject),
        ACCURACY,
        words="Share of a prompt's instructions that a program finds kept (strict).",
        advice=_ADVICE,
        base=share(base) if base is not None else None,
    )
