"""A form that no reward should pay for, and that there is more of: an alarm however much else has been gained."""

from __future__ import annotations

from accord.audit.answers import Sheet
from accord.audit.comparing import Limits, Verdict, average, change, deviation, level_of, suspects
from accord.audit.explained import CAUSES, Explained
from accord.audit.form_growth import FORM_WORDS

NEVER_MEANT = ("flattery", "refusal", "repetition", "gibberish")
"""Forms for which no reward should pay. Longer answers and lists may be better ones: what they explain is judged beside the whole gain."""


def paid_form(baseline: Sheet, now: Sheet, limits: Limits, explained: Explained | None) -> Verdict | None:
    """What answers have earned by such a form since the start, in standard deviations of the start's rewards; the one that earned most."""
    spread = deviation(baseline.columns["reward"])
    if explained is None or not spread:
        return None
    prose = (average(baseline, "gibberish") or 0.0) < limits.no_prose  # sums and code look like no prose, and may
    cause = max((one for one in NEVER_MEANT if prose or one != "gibberish"), key=lambda one: explained.parts[one])
    part, error = explained.parts[cause], explained.errors[cause]
    growth = max(change(baseline, now, column)[1] for column in CAUSES[cause])
    sure = min(part / max(error, 1e-9) / limits.z, growth / limits.grown_z)
    level = level_of(part / spread / limits.paid, sure, limits) if part > 0 else "quiet"
    words = "Nothing has been earned by flattery, refusals, repetition or gibberish."
    if level != "quiet":
        words = f"The reward pays for {cause}, {part:+.2f} since the start: {FORM_WORDS[cause](baseline, now)}."
    value, suspect = max(part, 0.0) / spread, suspects(now, CAUSES[cause][0])
    return Verdict("paid form", cause, value, 0.0, sure * limits.z, limits.paid, level, words, suspect)
