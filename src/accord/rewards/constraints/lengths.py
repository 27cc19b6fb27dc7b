"""Constraints on length: words, sentences, paragraphs, characters, lines, and where a paragraph begins."""

from __future__ import annotations

from collections.abc import Callable

from accord.rewards.constraints.relations import compare
from accord.rewards.constraints.text import divided, lines, paragraphs, sentences, without_marks, words


def number_words(answer: str, *, relation: str, num_words: int) -> bool:
    """The number of words. "don't" and "well-known" count as one word each, as a person counts."""
    return compare(len(words(answer)), relation, num_words)


def number_sentences(answer: str, *, relation: str, num_sentences: int) -> bool:
    """The number of sentences. A list item is a sentence; lines of a poem without a full stop are one."""
    return compare(len(sentences(answer)), relation, num_sentences)


def number_paragraphs(answer: str, *, num_paragraphs: int) -> bool:
    """Exactly so many paragraphs with the divider `***` between them. Empty lines divide none here; an empty part fails."""
    found = divided(answer, "***")
    return found is not None and len(found) == num_paragraphs


def nth_paragraph_first_word(answer: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Exactly so many paragraphs between empty lines, and the n-th (from 1) begins with this word; case and marks around it do not matter."""
    found = paragraphs(answer)
    if len(found) != num_paragraphs or not 1 <= nth_paragraph <= len(found):
        return False
    return without_marks(found[nth_paragraph - 1].split()[0]) == without_marks(first_word)


def plain_paragraphs(answer: str, *, relation: str, num_paragraphs: int) -> bool:
    """The number of paragraphs between empty lines."""
    return compare(len(paragraphs(answer)), relation, num_paragraphs)


def word_window(answer: str, *, min_words: int, max_words: int) -> bool:
    """From min_words to max_words words, both ends allowed."""
    return min_words <= len(words(answer)) <= max_words


def character_window(answer: str, *, min_characters: int, max_characters: int) -> bool:
    """From min_characters to max_characters characters, both ends allowed; white space inside counts, around the answer not."""
    return min_characters <= len(answer.strip()) <= max_characters


def sentence_window(answer: str, *, min_sentences: int, max_sentences: int) -> bool:
    """From min_sentences to max_sentences sentences, both ends allowed."""
    return min_sentences <= len(sentences(answer)) <= max_sentences


def number_lines(answer: str, *, relation: str, num_lines: int) -> bool:
    """The number of lines with something on them."""
    return compare(len(lines(answer)), relation, num_lines)


def sentence_length(answer: str, *, max_words: int) -> bool:
    """No sentence has more than max_words words."""
    return all(len(words(sentence)) <= max_words for sentence in sentences(answer))


KINDS: dict[str, Callable[..., bool]] = {
    "length_constraints:number_words": number_words,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "length_constraints:plain_paragraphs": plain_paragraphs,
    "length_constraints:word_window": word_window,
    "length_constraints:character_window": character_window,
    "length_constraints:sentence_window": sentence_window,
    "length_constraints:number_lines": number_lines,
    "length_constraints:sentence_length": sentence_length,
}
