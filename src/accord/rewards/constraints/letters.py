"""Constraints on case and punctuation."""

from __future__ import annotations

from collections.abc import Callable

from accord.rewards.constraints.language import plausible
from accord.rewards.constraints.relations import compare
from accord.rewards.constraints.text import words

_COMMAS = ",，、،"


def english_capital(answer: str) -> bool:
    """English in capital letters only: some letter, and none in lower case. Too short to tell the language counts as English."""
    return answer.isupper() and plausible(answer, "en")


def english_lowercase(answer: str) -> bool:
    """English in lower case only: some letter, and none in capitals. Too short to tell the language counts as English."""
    return answer.islower() and plausible(answer, "en")


def capital_word_frequency(answer: str, *, capital_relation: str, capital_frequency: int) -> bool:
    """How many words are all in capitals. "I", "A", "NASA" and "COVID-19" are; a number alone is none."""
    return compare(sum(word.isupper() for word in words(answer)), capital_relation, capital_frequency)


def uppercase(answer: str) -> bool:
    """No letter in lower case and at least one capital, in any language."""
    return answer.isupper()


def lowercase(answer: str) -> bool:
    """No capital and at least one letter in lower case, in any language."""
    return answer.islower()


def title_case(answer: str) -> bool:
    """Every word begins with a capital; words that begin with a digit do not matter."""
    starts = [word[0] for word in words(answer) if word[0].isalpha()]
    return bool(starts) and all(start.isupper() for start in starts)


def sentence_case(answer: str) -> bool:
    """The first letter is a capital and some letter is in lower case."""
    first = next((sign for sign in answer if sign.isalpha()), "")
    return first.isupper() and any(sign.islower() for sign in answer)


def no_comma(answer: str) -> bool:
    """No comma anywhere, those of Chinese, Japanese and Arabic included; numbers such as 1,000 too."""
    return not set(_COMMAS) & set(answer)


def forbidden_marks(answer: str, *, marks: str) -> bool:
    """None of these signs occurs."""
    return not set(marks) & set(answer)


def mark_frequency(answer: str, *, relation: str, mark: str, frequency: int) -> bool:
    """How often a sign or a run of signs occurs, without overlap."""
    return compare(answer.count(mark), relation, frequency)


KINDS: dict[str, Callable[..., bool]] = {
    "change_case:english_capital": english_capital,
    "change_case:english_lowercase": english_lowercase,
    "change_case:capital_word_frequency": capital_word_frequency,
    "change_case:uppercase": uppercase,
    "change_case:lowercase": lowercase,
    "change_case:title_case": title_case,
    "change_case:sentence_case": sentence_case,
    "punctuation:no_comma": no_comma,
    "punctuation:forbidden_marks": forbidden_marks,
    "punctuation:mark_frequency": mark_frequency,
}
