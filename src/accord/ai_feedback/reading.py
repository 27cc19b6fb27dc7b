"""From what a model answered to the probability of each option: its own distribution where it is known, strictly parsed text elsewhere.

An absent verdict, two verdicts, an option whose probability is not known: each is a reason, counted, and never taken for 0.5.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from accord.ai_feedback.asking import Answer, Question
from accord.ai_feedback.verdicts import OK

NO_VERDICT, TWO_VERDICTS, CUT_OFF = "no verdict in the text", "more than one verdict in the text", "cut off before a verdict"
MISSING = "option {} is not among the likeliest tokens"
UNRESOLVED = "the options begin with the same token and the server does not say what follows it"
TOLERANCE = 0.01
"""How much of the options' probability may be unknown: tokens that could belong to several, ratings below the likeliest tokens."""

Tokens = Sequence[tuple[str, dict[str, float]]]
"""As in `Answer.top`."""
Read = tuple[dict[str, float] | None, str, float | None]
"""Probabilities that sum to 1, or None; "ok" or why not; the probability of saying an option at all, or None where text was read."""


def read(question: Question, answer: Answer) -> Read:
    """The probability of each option of a question."""
    if answer.error is not None:
        return None, answer.error, None
    option, place = None, 0
    if question.max_new_tokens:
        stated, status = stated_option(answer.text, question.verdict, question.options)
        if stated is None:
            return None, CUT_OFF if answer.finish == "length" and status == NO_VERDICT else status, None
        option, place = stated
    if answer.masses is not None:
        return normalised(answer.masses, question.options)
    if answer.top is not None:
        token = _token_at(answer.top, place)
        if token is not None:
            return _from_top(answer.top[token:], question.options, ended=answer.finish == "stop")
    if option is None:
        option, status = lone_option(answer.text, question.verdict, question.options)
        if option is None:
            return None, status, None
    return {name: float(name == option) for name in question.options}, OK, None


def normalised(masses: Mapping[str, float], options: Mapping[str, object]) -> Read:
    """Masses of all options, made to sum to 1."""
    for name in options:
        if name not in masses:
            return None, MISSING.format(name), None
    total = sum(masses[name] for name in options)
    if not total > 0:
        return None, "no option has any probability", None
    return {name: masses[name] / total for name in options}, OK, min(1.0, total)


# -- text --------------------------------------------------------------------------------------------------------------------------


def verdict_pattern(verdict: str, options: Mapping[str, tuple[str, ...]]) -> re.Pattern[str]:
    """Finds the line that states an option: the words of `verdict` in any case, an option as it is spelled, nothing behind it on its line."""
    before, after = (r"\s+".join(map(re.escape, part.split())) for part in verdict.split("{option}"))
    spelled = "|".join(re.escape(word) for word in sorted(_words(options), key=len, reverse=True))
    return re.compile(
        rf"(?i:(?<!\w){before})(?P<verdict>[ \t*_(\[\"']*(?P<option>{spelled})(?!\w)[ \t*_)\]\"'.!]*){after}[ \t\r*_.]*(?=\n|$)"
    )


def stated_option(text: str, verdict: str, options: Mapping[str, tuple[str, ...]]) -> tuple[tuple[str, int] | None, str]:
    """The option that a text states on exactly one line, and where its statement begins behind the verdict's words; or None and why."""
    found = list(verdict_pattern(verdict, options).finditer(text))
    if len(found) != 1:
        return None, TWO_VERDICTS if found else NO_VERDICT
    return (_words(options)[found[0]["option"]], found[0].start("verdict")), OK


def lone_option(text: str, verdict: str, options: Mapping[str, tuple[str, ...]]) -> tuple[str | None, str]:
    """The option that is all of a text but for marks around it, or that its one verdict line states; or None and why."""
    words = _words(options)
    alone = re.sub(r"^[\W_]+|[\W_]+$", "", text)
    if alone in words:
        return words[alone], OK
    stated, status = stated_option(text, verdict, options)
    return (None, status) if stated is None else (stated[0], status)


def _words(options: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """The option that each spelling means, without blanks and brackets around it."""
    return {re.sub(r"^[\W_]+|[\W_]+$", "", spelling) or spelling: name for name, spellings in options.items() for spelling in spellings}


# -- a server's likeliest tokens -----------------------------------------------------------------------------------------------------


def _token_at(tokens: Tokens, place: int) -> int | None:
    """The token that begins at a character of the text; None where none does."""
    start = 0
    for index, (token, _) in enumerate(tokens):
        if start >= place:
            return index if start == place else None
        start += len(token)
    return None


def _from_top(tokens: Tokens, options: Mapping[str, tuple[str, ...]], *, ended: bool) -> Read:
    """The options' probabilities from the likeliest tokens in each place, spelled by one token or by several along the text."""
    masses, unresolved = _along(tokens, options, ended=ended)
    known = sum(masses.values())
    missing = [name for name in options if name not in masses]
    listed = [math.exp(logprob) for logprob in tokens[0][1].values()]
    hidden = min(len(missing) * min(listed, default=1.0), max(0.0, 1.0 - sum(listed)))
    if missing and (len(options) == 2 or hidden > TOLERANCE * (known + hidden)):
        return None, MISSING.format(missing[0]), None
    if unresolved > TOLERANCE * (known + unresolved):
        return None, UNRESOLVED, None
    return normalised({**dict.fromkeys(options, 0.0), **masses}, options)


def _along(tokens: Tokens, options: Mapping[str, tuple[str, ...]], *, ended: bool) -> tuple[dict[str, float], float]:
    """Masses of the options, and the mass of beginnings whose rest the server does not tell.

    In each place a token may complete a spelling, or begin a longer one ("(" of "(A", "1" of "10"). What follows is known behind the
    token that was taken alone.

    Args:
        ended: True: the text ended by itself behind its last token. False: it was cut off there.
    """
    spelled = {spelling: name for name, spellings in options.items() for spelling in spellings}
    masses: dict[str, float] = {}
    unresolved, weight, begun = 0.0, 1.0, ""
    for taken, near in tokens:
        onward = 0.0
        for token, logprob in near.items():
            said, mass = begun + token, weight * math.exp(logprob)
            name = spelled.get(said)
            open_to = {other for spelling, other in spelled.items() if spelling != said and spelling.startswith(said)} - {name}
            if begun in spelled and (name or open_to):
                masses[spelled[begun]] -= mass
            if name is not None:
                masses[name] = masses.get(name, 0.0) + mass
            if open_to and token == taken:
                onward = mass
            elif open_to:
                unresolved += mass
        if not onward:
            return masses, unresolved
        begun, weight = begun + taken, onward
    return masses, unresolved + (0.0 if ended and begun in spelled else weight)
