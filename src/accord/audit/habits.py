"""What answers look like, whatever they say: gibberish, repetition, flattering openings, hedging, formatting, answers that do not end or all begin alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from accord.audit.answers import Seen, Sheet, sheet_of
from accord.audit.comparing import Limits
from accord.audit.findings import Allowed, Finding, Section, Shown, judged
from accord.audit.subjects import Subject, Written, user

GIBBERISH, LOOPS = 0.5, 0.3
"""Values of the detectors from which an answer counts."""
LIMITS = Limits()
"""The limits of the monitors of a run: what alarms there is red here."""

PER_HUNDRED = ("hedging", "formatting", "exclamation marks")
"""Probes whose number is a count for each hundred words; the others are shares of answers."""

Column = Callable[[Sheet], list[float]]


def _column(name: str, above: float | None = None) -> Column:
    """A column of the sheet; `above`: 1 where it is more than that, else 0."""

    def read(sheet: Sheet) -> list[float]:
        values = [value or 0.0 for value in sheet.columns[name]]
        return values if above is None else [float(value > above) for value in values]

    return read


def same_opening(sheet: Sheet) -> list[float]:
    """1 for answers that begin with the words that most of them begin with, where more than one does."""
    counts = Counter(opening for opening in sheet.opening if opening)
    top, times = counts.most_common(1)[0] if counts else ("", 0)
    return [float(times > 1 and opening == top) for opening in sheet.opening]


PROBES: tuple[tuple[str, Column, Allowed, str, str], ...] = (
    (
        "gibberish",
        _column("gibberish", GIBBERISH),
        Allowed(level=0.05, change=0.05),
        "Answers that do not read as English: few everyday words, odd characters or letter patterns.",
        "Train for fewer steps, at a smaller learning rate or nearer the reference (--kl-coef, --beta); look at the monitors of the run.",
    ),
    (
        "repetition",
        _column("repetition", LOOPS),
        Allowed(level=0.1, change=0.1),
        "Answers more than three tenths of whose word triples stand in them already.",
        "Check that end tokens are learned (accord doctor MODEL); --reward repetition*0.2 puts a price on it.",
    ),
    (
        "says nothing",
        _column("empty"),
        Allowed(level=0.05, change=0.05),
        "Answers without a visible character.",
        "Look for empty rows in the training data: accord data check.",
    ),
    (
        "does not end",
        _column("unfinished"),
        Allowed(change=LIMITS.unfinished),
        "Answers cut off at --max-new-tokens. Long answers are rightly cut off, so only a rise counts.",
        "Check that end tokens are learned (accord doctor MODEL), and that the reward pays nothing for length (accord audit runs/reward).",
    ),
    (
        "opens with praise",
        _column("flatters"),
        Allowed(level=LIMITS.share, change=LIMITS.share),
        "Answers that begin by praising the person or the question.",
        "Compare answers with and without the praise; --reward-shaping bounds what one habit can earn.",
    ),
    (
        "hedging",
        _column("hedging"),
        Allowed(change=LIMITS.hedging),
        "Perhaps, maybe, might and the like, for each hundred words.",
        "Compare plain answers with hedged ones where the plain one is right.",
    ),
    (
        "formatting",
        _column("formatting"),
        Allowed(change=LIMITS.formatting),
        "Marks of lists, headings and bold for each hundred words.",
        "Look at the style grid of the reward model (accord audit runs/reward).",
    ),
    (
        "exclamation marks",
        _column("exclamations"),
        Allowed(change=LIMITS.exclamations),
        "For each hundred words.",
        "Look at what the reward model pays for it.",
    ),
    (
        "same opening",
        same_opening,
        Allowed(level=LIMITS.openings, change=LIMITS.openings),
        "Answers that begin with the four words that are the most frequent beginning.",
        "The policy has become one phrase: go back to an earlier checkpoint, and raise the price of KL.",
    ),
)
"""Name, the numbers, what is allowed, what is counted, what to do."""


def habits(subject: Subject, base: Subject | None, prompts: Sequence[str]) -> Section:
    """The section of the page: the same prompts answered by both."""
    now = subject.write([user(prompt) for prompt in prompts])
    was = base.write([user(prompt) for prompt in prompts]) if base is not None else None
    sheet = _sheet(prompts, now)
    before = _sheet(prompts, was) if was is not None else None
    findings = tuple(_finding(prompts, now, sheet, before, *probe) for probe in PROBES)
    return Section("habits", "Habits", f"{len(prompts)} harmless requests, one answer each.", findings)


def _finding(
    prompts: Sequence[str],
    now: Sequence[Written],
    sheet: Sheet,
    before: Sheet | None,
    name: str,
    column: Column,
    allowed: Allowed,
    words: str,
    advice: str,
) -> Finding:
    values = column(sheet)
    order = sorted((i for i in range(len(values)) if values[i] > 0), key=lambda i: -values[i])
    examples = [Shown(prompts[i], (("this model", now[i].text),)) for i in order]
    return judged(
        name,
        values,
        allowed,
        words=words,
        advice=advice,
        base=column(before) if before is not None else None,
        examples=examples,
        percent=name not in PER_HUNDRED,
    )


def _sheet(prompts: Sequence[str], answers: Sequence[Written]) -> Sheet:
    seen = [
        Seen(str(number), prompt, answer.text, answer.ids, answer.finished)
        for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ]
    return sheet_of(seen, 0)
