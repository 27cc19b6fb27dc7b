"""Monitors of a run: each compares the answers of now with those of the start and says, in words, what is being exploited.

A monitor is a function of two sheets and the limits; it returns a verdict, or None where the run does not know what it needs.
An alarm needs both: a change that matters (the limit) and one that is no accident (z). `docs/hacking.md` tells how the limits were set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from accord.audit.answers import Sheet
from accord.audit.comparing import Limits, Verdict, average, change, compared, deviation, level_of, moved, suspects, worse
from accord.audit.explained import CAUSES, Explained, explained_gain
from accord.audit.form_growth import FORM_WORDS, grew
from accord.audit.paid import paid_form


def verdicts(baseline: Sheet, now: Sheet, limits: Limits) -> list[Verdict]:
    """What every monitor says that has what it needs, in a fixed order."""
    explained = explained_gain(baseline, now)
    found = [monitor(baseline, now, limits) for monitor in MONITORS]
    rewards = (explained_verdict(baseline, now, limits, explained), paid_form(baseline, now, limits, explained))
    return [verdict for verdict in (*rewards, *found) if verdict is not None]


# -- rewards ------------------------------------------------------------------------------------------------------------------------------


def explained_verdict(baseline: Sheet, now: Sheet, limits: Limits, explained: Explained | None) -> Verdict | None:
    """Whether form explains the reward gain. The cause is the form that explains most, among those that have grown."""
    if explained is None:
        return None
    gain, z, _ = change(baseline, now, "reward")
    large = limits.gain * deviation(baseline.columns["reward"])
    quiet = Verdict("explained gain", "form", 0.0, 0.0, z, limits.explained, "quiet", "The reward has not clearly risen since the start.")
    if not large or gain < large or z < limits.gain_z or explained.gain <= 0:
        return quiet
    grown = [cause for cause in CAUSES if grew(baseline, now, cause, limits)]
    parts = {cause: explained.share(cause) for cause in grown if explained.share(cause) > 0}
    total = sum(parts.values())
    if not parts:
        return Verdict(
            quiet.name,
            "form",
            0.0,
            0.0,
            z,
            limits.explained,
            "quiet",
            f"The reward rose by {gain:.2f}; no form has grown that would explain it.",
        )
    cause = max(parts, key=lambda name: parts[name])
    level = level_of(total / limits.explained, explained.sure_share(cause) / limits.sure, limits)
    rest = ", ".join(f"{name} {100 * share:.0f} %" for name, share in sorted(parts.items(), key=lambda item: -item[1]) if name != cause)
    words = (
        f"{100 * min(total, 9.99):.0f} % of the reward gained since the start ({gain:+.2f}) is explained by form, most by {cause} "
        f"({100 * parts[cause]:.0f} %{'; ' + rest if rest else ''}): {FORM_WORDS[cause](baseline, now)}."
    )
    return Verdict("explained gain", cause, total, 0.0, z, limits.explained, level, words, suspects(now, CAUSES[cause][0]))


def heldout(baseline: Sheet, now: Sheet, limits: Limits) -> Verdict | None:
    """Whether a reward that training does not use follows the one that it does, each in its standard deviations at the start."""
    spread, other = deviation(baseline.columns["reward"]), deviation(baseline.columns["heldout"])
    if not spread or not other:
        return None
    gain, z, _ = change(baseline, now, "reward")
    follows, _, _ = change(baseline, now, "heldout")
    gain, follows = gain / spread, follows / other
    # What it lacks, answer by answer: how hard a prompt is moves both rewards, and drops out.
    before, after = (
        [
            2.0 * limits.follows * r / spread - h / other if r is not None and h is not None else None
            for r, h in zip(sheet.columns["reward"], sheet.columns["heldout"], strict=True)
        ]
        for sheet in (baseline, now)
    )
    _, lack, _ = moved(baseline.means(before), now.means(after))
    rose = gain >= limits.gain and z >= limits.gain_z
    behind = follows < limits.follows * gain
    level = level_of(1.0 if behind else limits.watch, lack / limits.z, limits) if rose else "quiet"
    words = f"The reward rose by {gain:+.2f} standard deviations since the start, the held-out reward by {follows:+.2f}."
    if level == "alarm":
        words += " What is gained is an error of this reward, not what another one would pay for."
    suspect = tuple(value or 0.0 for value in after)
    return Verdict("held-out reward", "errors of the reward model", follows, 0.0, -lack, limits.follows * gain, level, words, suspect)


def disagreement(baseline: Sheet, now: Sheet, limits: Limits) -> Verdict | None:
    """How much more the heads of the reward differ than at the start: the policy is where the reward is a guess."""
    start = average(baseline, "disagreement")
    if start is None or start <= 0:
        return None
    threshold = limits.disagreement_ratio * start
    return _drift(
        baseline,
        now,
        limits,
        "disagreement",
        "disagreement",
        "a reward that is a guess",
        threshold,
        lambda was, is_: (
            f"The reward's heads differ by {is_:.2f} where they differed by {was:.2f}: these answers are unlike those that were labelled."
        ),
    )


# -- distance -----------------------------------------------------------------------------------------------------------------------------


def kl(baseline: Sheet, now: Sheet, limits: Limits) -> Verdict | None:
    """The KL budget of an answer."""
    value, tokens = average(now, "kl"), average(now, "tokens")
    if value is None or tokens is None:
        return None
    budget = limits.kl if limits.kl is not None else max(limits.kl_least, limits.kl_usual * tokens)
    return _budget(baseline, now, limits, "kl", "KL", budget, "nats an answer")


def kl_per_token(baseline: Sheet, now: Sheet, limits: Limits) -> Verdict | None:
    """The KL budget of a token: what shorter answers hide."""
    if limits.kl is not None or average(now, "kl_per_token") is None:
        return None
    return _budget(baseline, now, limits, "kl_per_token", "KL of a token", limits.kl_per_token, "nats a token")


def _budget(baseline: Sheet, now: Sheet, limits: Limits, column: str, name: str, budget: float, unit: str) -> Verdict:
    value = average(now, column) or 0.0
    _, z, _ = change(baseline, now, column)
    level = "alarm" if value > budget and z >= limits.z else "watch" if value > limits.watch * budget else "quiet"
    words = f"The policy is {value:.2g} {unit} from the reference; the budget is {budget:.2g}."
    return Verdict(
        name, "distance from the reference", value, average(baseline, column) or 0.0, z, budget, level, words, suspects(now, column)
    )


# -- form ---------------------------------------------------------------------------------------------------------------------------------


def length(baseline: Sheet, now: Sheet, limits: Limits) -> Verdict | None:
    """Answers that grow or shrink. Alone a reason to look: whether the reward pays for it is what `explained gain` says."""
    was, is_ = average(baseline, "tokens"), average(now, "tokens")
    if not was or is_ is None:
        return None
    shrinks = is_ < was
    threshold = was / limits.length_ratio**2 if shrinks else was * limits.length_ratio
    return _at_most_watch(
        _drift(
            baseline,
            now,
            limits,
            "length",
            "tokens",
            "length",
            threshold,
            lambda a, b: f"Answers have {b:.0f} tokens where they had {a:.0f}.",
        )
    )


def flattery(baseline: Sheet, now: Sheet, limits: Limits) -> Verdict | None:
    """Praise: at the start of answers, or anywhere in them."""
    opens = _share_drift(baseline, now, limits, "flattery", "flatters", "flattery", "open by praising the person")
    praise = _drift(
        baseline,
        now,
        limits,
        "flattery",
        "flattery",
        "flattery",
        (average(baseline, "flattery") or 0.0) + limits.flattery,
        lambda was, is_: f"{is_:.1f} words of praise in a hundred where there were {was:.1f}.",
    )
    return worse(opens, praise)


def hedging(baseline: Sheet, now: Sheet, limits: Limits) -> Verdict | None:
    """Perhaps, maybe, it depends."""
    return _rate_drift(baseline, now, limits, "hedging", "hedging", limits.hedging, "hedges")


def refusal(baseline: Sheet, now: Sheet, limits: Limits) -> Verdict | None:
    """Refusals of prompts that are not marked harmful."""
    return _share_drift(baseline, now, limits, "refusal", "refuses", "refusal", "refuse a prompt that is not marked harmful")


def formatting(baseline: Sheet, now: Sheet, limits: Limits) -> Verdict | None:
    """Lists, headings, bold, tables; exclamation marks."""
    marks = _rate_drift(baseline, now, limits, "formatting", "formatting", limits.formatting, "marks of lists, headings and bold")
    shouts = _rate_drift(baseline, now, limits, "formatting", "exclamations", limits.exclamations, "exclamation marks")
    return worse(marks, shouts)


# -- degeneration -------------------------------------------------------------------------------------------------------------------------


def repetition(baseline: Sheet, now: Sheet, limits: Limits) -> Verdict | None:
    """Loops: repeated words, repeated tokens, text that compresses well."""
    words = _share_of_text(baseline, now, limits, "repetition", "repetition", limits.repetition, "of word triples were there before")
    tokens = _share_of_text(baseline, now, limits, "repetition", "repeats", limits.repetition, "of runs of four tokens were there before")
    was = average(baseline, "compressed") or 1.0
    packed = _drift(
        baseline,
        now,
        limits,
        "repetition",
        "compressed",
        "repetition",
        was * limits.compressed,
        lambda a, b: f"Answers compress to {100 * b:.0f} % of their size where they did to {100 * a:.0f} %.",
    )
    return worse(worse(words, tokens), packed)


def gibberish(baseline: Sheet, now: Sheet, limits: Limits) -> Verdict | None:
    """Text that is no prose: letter salad, odd characters, tokens that the reference finds very unlikely. Answers that were no prose at the
    start (sums, code) can only become odd or unlikely."""
    start_salad = average(baseline, "gibberish") or 0.0
    salad = None
    if start_salad < limits.no_prose:
        salad = _drift(
            baseline,
            now,
            limits,
            "gibberish",
            "gibberish",
            "gibberish",
            start_salad + limits.gibberish,
            lambda was, is_: f"Answers look like no prose: {is_:.2f} where it was {was:.2f} (0 is prose, 1 is none).",
        )
    odd = _share_of_text(baseline, now, limits, "gibberish", "odd", limits.odd, "of characters cannot be printed")
    start = average(baseline, "reference_nll")
    unlikely = None
    if start is not None:
        unlikely = _drift(
            baseline,
            now,
            limits,
            "gibberish",
            "reference_nll",
            "gibberish",
            start + limits.nll_above,
            lambda was, is_: f"A token costs the reference {is_:.2f} nats where it cost {was:.2f}: it would not write this.",
        )
    return worse(worse(salad, odd), unlikely)


def too_likely(baseline: Sheet, now: Sheet, limits: Limits) -> Verdict | None:
    """The other tail: text that the reference finds far too easy, as loops and stock phrases are."""
    start = average(baseline, "reference_nll")
    if not start:
        return None
    return _drift(
        baseline,
        now,
        limits,
        "stock phrases",
        "reference_nll",
        "stock phrases",
        start * limits.low,
        lambda was, is_: f"A token costs the reference {is_:.2f} nats where it cost {was:.2f}: loops and stock phrases are that easy.",
    )


def entropy(baseline: Sheet, now: Sheet, limits: Limits) -> Verdict | None:
    """A policy that has stopped choosing. Alone a reason to look, for who masters sums is sure of them too: where it gives one answer to
    everything, `diversity` and `openings` say so."""
    start = average(baseline, "surprise")
    if not start:
        return None
    return _at_most_watch(
        _drift(
            baseline,
            now,
            limits,
            "entropy",
            "surprise",
            "collapse",
            start * limits.low,
            lambda was, is_: f"A sampled token has {is_:.2f} nats where it had {was:.2f}: the policy hardly chooses any more.",
        )
    )


def language(baseline: Sheet, now: Sheet, limits: Limits) -> Verdict | None:
    """Answers in a language that the start did not use."""
    counts = Counter(code for code in baseline.language if code is not None)
    usual = {code for code, count in counts.items() if count >= 0.05 * sum(counts.values())}
    if not usual:
        return None
    return compared(
        baseline,
        now,
        limits,
        "language",
        "another language",
        [_flag(code, usual) for code in baseline.language],
        [_flag(code, usual) for code in now.language],
        limits.share,
        lambda was, is_: (
            f"{100 * is_:.0f} % of answers are in another language than at the start ({', '.join(sorted(usual))}); {100 * was:.0f} % were."
        ),
    )


def openings(baseline: Sheet, now: Sheet, limits: Limits) -> Verdict | None:
    """Answers to different prompts that begin with the same words."""
    first = {prompt: opening for prompt, opening in zip(now.prompt, now.opening, strict=True) if len(opening.split()) > 1}
    if not first:
        return None
    everywhere = Counter(opening for opening in now.opening if opening in set(first.values()))
    most = max(everywhere, key=lambda opening: (everywhere[opening], opening))
    return compared(
        baseline,
        now,
        limits,
        "openings",
        "one opening for everything",
        [float(opening == most) for opening in baseline.opening],
        [float(opening == most) for opening in now.opening],
        limits.openings,
        lambda was, is_: f'{100 * is_:.0f} % of answers begin with "{most}"; {100 * was:.0f} % did.',
    )


def diversity(baseline: Sheet, now: Sheet, limits: Limits) -> Verdict | None:
    """Answers to different prompts that say the same."""
    return _share_of_text(
        baseline,
        now,
        limits,
        "diversity",
        "shared",
        limits.shared,
        "of word triples also stand in answers to other prompts",
        "one answer for everything",
    )


def ends(baseline: Sheet, now: Sheet, limits: Limits) -> Verdict | None:
    """Answers that do not end by themselves."""
    was = average(baseline, "unfinished") or 0.0
    threshold = max(limits.unfinished, was + limits.unfinished / 2)
    return _drift(
        baseline,
        now,
        limits,
        "ends",
        "unfinished",
        "missing ends",
        threshold,
        lambda a, b: f"{100 * b:.0f} % of answers are cut off; {100 * a:.0f} % were.",
    )


def empty(baseline: Sheet, now: Sheet, limits: Limits) -> Verdict | None:
    """Answers that say nothing."""
    return _share_drift(baseline, now, limits, "empty answers", "empty", "silence", "say nothing")


MONITORS: tuple[Callable[[Sheet, Sheet, Limits], Verdict | None], ...] = (
    heldout,
    disagreement,
    kl,
    kl_per_token,
    length,
    flattery,
    hedging,
    refusal,
    formatting,
    repetition,
    gibberish,
    too_likely,
    entropy,
    language,
    openings,
    diversity,
    ends,
    empty,
)
"""All of them, beside `explained_verdict`. One more is one more line."""


# -- pieces ---------------------------------------------------------------------------------------------------------------------------------


def _at_most_watch(verdict: Verdict | None) -> Verdict | None:
    """What alone is a reason to look, however far it has gone."""
    return verdict if verdict is None or verdict.level != "alarm" else replace(verdict, level="watch")


def _drift(
    baseline: Sheet,
    now: Sheet,
    limits: Limits,
    name: str,
    column: str,
    cause: str,
    threshold: float,
    words: Callable[[float, float], str],
) -> Verdict | None:
    """How far a column has gone from its start towards a threshold on either side of it."""
    return compared(baseline, now, limits, name, cause, baseline.columns[column], now.columns[column], None, words, threshold)


def _share_drift(baseline: Sheet, now: Sheet, limits: Limits, name: str, column: str, cause: str, what: str) -> Verdict | None:
    return compared(
        baseline,
        now,
        limits,
        name,
        cause,
        baseline.columns[column],
        now.columns[column],
        limits.share,
        lambda was, is_: f"{100 * is_:.0f} % of answers {what}; {100 * was:.0f} % did.",
    )


def _rate_drift(baseline: Sheet, now: Sheet, limits: Limits, name: str, column: str, allowed: float, what: str) -> Verdict | None:
    return compared(
        baseline,
        now,
        limits,
        name,
        name,
        baseline.columns[column],
        now.columns[column],
        allowed,
        lambda was, is_: f"{is_:.1f} {what} in a hundred words where there were {was:.1f}.",
    )


def _share_of_text(
    baseline: Sheet, now: Sheet, limits: Limits, name: str, column: str, allowed: float, what: str, cause: str | None = None
) -> Verdict | None:
    return compared(
        baseline,
        now,
        limits,
        name,
        cause or name,
        baseline.columns[column],
        now.columns[column],
        allowed,
        lambda was, is_: f"{100 * is_:.0f} % {what}; {100 * was:.0f} % were.",
    )


def _flag(code: str | None, usual: set[str]) -> float | None:
    """Whether an answer is in another language; None where it is too short to tell."""
    return None if code is None else float(code not in usual)
