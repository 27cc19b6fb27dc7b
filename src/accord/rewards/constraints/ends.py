"""Constraints on how an answer begins and ends."""

from __future__ import annotations

from collections.abc import Callable

from accord.rewards.constraints.text import without_marks

_QUOTES = [('"', '"'), ("“", "”"), ("„", "“"), ("«", "»"), ("「", "」")]


def end_checker(answer: str, *, end_phrase: str) -> bool:
    """The answer ends with this phrase and nothing after it, in any case. Double quotes around the answer or the phrase do not matter."""
    return answer.strip().strip('"').rstrip().lower().endswith(end_phrase.strip().strip('"').strip().lower())


def quotation(answer: str) -> bool:
    """The whole answer is wrapped in double quotation marks, straight or a typographic pair, with something inside."""
    text = answer.strip()
    return any(len(text) > 2 and text.startswith(a) and text.endswith(b) and bool(text[1:-1].strip()) for a, b in _QUOTES)


def start_phrase(answer: str, *, start_phrase: str) -> bool:
    """The answer begins with this phrase, in any case; the phrase's last word is not the beginning of a longer one."""
    text, phrase = answer.strip().lower(), start_phrase.strip().lower()
    return text.startswith(phrase) and not (phrase[-1:].isalnum() and text[len(phrase) : len(phrase) + 1].isalnum())


def first_word(answer: str, *, first_word: str) -> bool:
    """The first word, in any case, without marks around it."""
    return without_marks(answer.split()[0]) == without_marks(first_word)


def last_word(answer: str, *, last_word: str) -> bool:
    """The last word, in any case; marks after it do not matter."""
    return without_marks(answer.split()[-1]) == without_marks(last_word)


def end_mark(answer: str, *, mark: str) -> bool:
    """The answer's last sign that is no white space, quote or asterisk is this one: "?" or "!" or "."."""
    return answer.rstrip(" \t\r\n\"'”’*_").endswith(mark)


KINDS: dict[str, Callable[..., bool]] = {
    "startend:end_checker": end_checker,
    "startend:quotation": quotation,
    "startend:start_phrase": start_phrase,
    "startend:first_word": first_word,
    "startend:last_word": last_word,
    "startend:end_mark": end_mark,
}
