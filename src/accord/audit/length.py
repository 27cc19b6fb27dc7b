"""Length, and what a judge prefers once length no longer decides: most of what preference training gains may be words (Singhal et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from accord.ai_feedback.win_rates import length_controlled, win_rate
from accord.audit.comparing import Limits
from accord.audit.detectors import word_count
from accord.audit.findings import AMBER, GREEN, LEAST, NONE, RED, Allowed, Finding, Section, Shown, judged, unknown
from accord.audit.subjects import Subject, user
from accord.errors import DataError
from accord.evaluation.intervals import Interval

Compares = Callable[[Sequence[tuple[str, str, str]]], list[float | None]]
"""(prompt, first answer, second answer) to the probability that the first is better; None: there is no valid verdict."""
RATIO = Limits().length_ratio
"""How much longer answers may grow before it is said; long answers may be good, so this alone is never red."""
_SHORTER = "Take what length explains out of the reward (--reward-shaping residual), and read the section on the reward model."


def length(subject: Subject, base: Subject | None, prompts: Sequence[str], compares: Compares | None, judge: str = "") -> Section:
    """The section of the page.

    Args:
        compares: a judge or a reward model. None: there is none, and no win rate.
        judge: its name.
    """
    now = [one.text for one in subject.write([user(prompt) for prompt in prompts])]
    was = [one.text for one in base.write([user(prompt) for prompt in prompts])] if base is not None else None
    findings = [_words(now, was)]
    if was is not None and compares is not None:
        findings += _win_rates(prompts, now, was, compares, judge)
    else:
        missing = "a base (--against)" if was is None else "a judge (--judge) or a reward model (--reward)"
        findings.append(unknown("win rate", f"It needs {missing}."))
    who = "one answer each" if was is None else "answered by both with the same random draws"
    return Section("length", "Length and win rate", f"{len(prompts)} everyday requests, {who}.", tuple(findings))


def _words(now: Sequence[str], was: Sequence[str] | None) -> Finding:
    counts = [float(word_count(text)) for text in now]
    before = [float(word_count(text)) for text in was] if was is not None else None
    limit = (RATIO - 1.0) * sum(before) / len(before) if before else None
    found = judged(
        "words an answer",
        counts,
        Allowed(change=limit),
        words="Longer is not worse by itself: it never is red, but look at the win rate at equal length.",
        advice=_SHORTER,
        base=before,
        percent=False,
    )
    return replace(found, level=AMBER if found.level == RED else found.level)


def _win_rates(prompts: Sequence[str], now: Sequence[str], was: Sequence[str], compares: Compares, judge: str) -> list[Finding]:
    said = compares([(prompt, first, second) for prompt, first, second in zip(prompts, now, was, strict=True)])
    known = [(i, probability) for i, probability in enumerate(said) if probability is not None]
    if not known:
        return [unknown("win rate", f"{judge} gave no valid verdict on any of {len(said)} comparisons.")]
    probabilities = [probability for _, probability in known]
    raw = win_rate(probabilities)
    plain = Finding("win rate", raw, Allowed(), NONE, f"How often {judge} prefers it to the base, {len(known)} of {len(said)} valid.", "")
    try:
        controlled, used = length_controlled(probabilities, [word_count(now[i]) for i, _ in known], [word_count(was[i]) for i, _ in known])
    except DataError as error:
        return [plain, unknown("win rate at equal length", str(error))]
    words = f"The same if each had been the longer one equally often; {used} comparisons say something. Red: it wins surely as it is, and surely not here."
    examples = [
        Shown(prompts[i], (("this model", now[i]), ("compared with", was[i])))
        for i, probability in sorted(known, key=lambda one: -one[1])
        if word_count(now[i]) > word_count(was[i])
    ]
    level = length_level(raw, controlled) if used >= LEAST else NONE
    finding = Finding(
        "win rate at equal length", controlled, Allowed(), level, words, _SHORTER, examples=tuple(examples[:3]) if level != GREEN else ()
    )
    return [plain, finding]


def length_level(raw: Interval, controlled: Interval) -> str:
    """red: it wins surely, and at equal length surely does not. amber: it wins surely, and at equal length not on average. Else green."""
    if raw.low <= 0.5:
        return GREEN
    return RED if controlled.high < 0.5 else AMBER if controlled.mean <= 0.5 else GREEN
