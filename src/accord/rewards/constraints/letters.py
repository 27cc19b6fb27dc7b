"""Constraints on case and punctuation."""

from __future__ import annotations

from accord.rewards.constraints.base import checker, compare
from accord.rewards.constraints.language import plausible
from accord.rewards.constraints.text import words

_COMMAS = ",，、،"


@checker("change_case:english_capital")
def english_capital(answer: str) -> bool:
    """English in capital letters only: some letter, and none in lower case. Too short to tell the language counts as English."""
    return answer.isupper() and plausible(answer, "en")


@checker("change_case:english_lowercase")
def english_lowercase(answer: str) -> bool:
    """English in lower case only: some letter, and none in capitals. Too short to tell the language counts as English."""
    return answer.islower() and plausible(answer, "en")


@checker("change_case:capital_word_frequency")
def capital_word_frequency(answer: str, *, capital_relation: str, capital_frequency: int) -> bool:
    """How many words are all in capitals. "I", "A", "NASA" and "COVID-19" are; a number alone is none."""
    return compare(sum(word.isupper() for word in words(answer)), capital_relation, capital_frequency)


@checker("change_case:uppercase")
def uppercase(answer: str) -> bool:
    """No letter in lower case and at least one capital, in any language."""
    return answer.isupper()


@checker("change_case:lowercase")
def lowercase(answer: str) -> bool:
    """No capital and at least one letter in lower case, in any language."""
    return answer.islower()


@checker("change_case:title_case")
def title_case(answer: str) -> bool:
    """Every word begins with a capital; words that begin with a digit do not matter."""
    starts = [word[0] for word in words(answer) if word[0].isalpha()]
    return bool(starts) and all(start.isupper() for start in starts)


@checker("change_case:sentence_case")
def sentence_case(answer: str) -> bool:
    """The first letter is a capital and some letter is in lower case."""
    first = next((sign for sign in answer if sign.isalpha()), "")
    return first.isupper() and any(sign.islower() for sign in answer)


@checker("punctuation:no_comma")
def no_comma(answer: str) -> bool:
    """No comma anywhere, those of Chinese, Japanese and Arabic included; numbers such as 1,000 too."""
    return not set(_COMMAS) & set(answer)


@checker("punctuation:forbidden_marks")
def forbidden_marks(answer: str, *, marks: str) -> bool:
    """None of these signs occurs."""
    return not set(marks) & set(answer)


@checker("punctuation:mark_frequency")
def mark_frequency(answer: str, *, relation: str, mark: str, frequency: int) -> bool:
    """How often a sign or a run of signs occurs, without overlap."""
    return compare(answer.count(mark), relation, frequency)
