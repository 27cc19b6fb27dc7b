"""Constraints on which words and letters an answer holds, and how often."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from accord.rewards.constraints.relations import compare
from accord.rewards.constraints.text import words


def _whole(word: str) -> re.Pattern[str]:
    """The word or phrase with no letter or digit next to it, any case."""
    return re.compile(rf"(?<!\w){re.escape(word.strip())}(?!\w)", re.IGNORECASE)


def existence(answer: str, *, keywords: list[str]) -> bool:
    """Every keyword occurs, in any case. Inside a longer word counts ("intern" in "internship"), as in the published evaluation."""
    return all(keyword.strip().lower() in answer.lower() for keyword in keywords)


def frequency(answer: str, *, relation: str, keyword: str, frequency: int) -> bool:
    """How often a keyword occurs, in any case. Inside a longer word counts, as in the published evaluation; see whole_word_frequency."""
    return compare(answer.lower().count(keyword.strip().lower()), relation, frequency)


def forbidden_words(answer: str, *, forbidden_words: list[str]) -> bool:
    """None of the words occurs as a whole word, in any case: "rocket" is no "rock"."""
    return not any(_whole(word).search(answer) for word in forbidden_words)


def letter_frequency(answer: str, *, let_relation: str, letter: str, let_frequency: int) -> bool:
    """How often a letter (or another single sign, such as #) occurs, in any case."""
    return compare(answer.lower().count(letter.strip().lower()), let_relation, let_frequency)


def whole_word_frequency(answer: str, *, relation: str, keyword: str, frequency: int) -> bool:
    """How often a word or phrase occurs as a whole, in any case: "rivers" is no "river"."""
    return compare(len(_whole(keyword).findall(answer)), relation, frequency)


def in_order(answer: str, *, keywords: list[str]) -> bool:
    """The keywords occur as whole words in this order, each after the end of the one before."""
    place = 0
    for keyword in keywords:
        match = _whole(keyword).search(answer, place)
        if match is None:
            return False
        place = match.end()
    return True


def one_of(answer: str, *, keywords: list[str]) -> bool:
    """Exactly one of the keywords occurs as a whole word, any number of times."""
    return sum(bool(_whole(keyword).search(answer)) for keyword in keywords) == 1


def forbidden_letters(answer: str, *, letters: str) -> bool:
    """None of these letters occurs, in any case."""
    return not set(letters.lower()) & set(answer.lower())


def no_word_over(answer: str, *, max_frequency: int) -> bool:
    """No word occurs more than max_frequency times, in any case."""
    return max(Counter(word.lower() for word in words(answer)).values(), default=0) <= max_frequency


def distinct_words(answer: str, *, relation: str, num_words: int) -> bool:
    """The number of different words, in any case."""
    return compare(len({word.lower() for word in words(answer)}), relation, num_words)


KINDS: dict[str, Callable[..., bool]] = {
    "keywords:existence": existence,
    "keywords:frequency": frequency,
    "keywords:forbidden_words": forbidden_words,
    "keywords:letter_frequency": letter_frequency,
    "keywords:whole_word_frequency": whole_word_frequency,
    "keywords:in_order": in_order,
    "keywords:one_of": one_of,
    "keywords:forbidden_letters": forbidden_letters,
    "keywords:no_word_over": no_word_over,
    "keywords:distinct_words": distinct_words,
}
