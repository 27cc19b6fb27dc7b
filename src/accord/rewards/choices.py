"""Grading multiple choice: the letter an answer settles on, in parentheses, in prose, or by the text of its option."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

from accord.errors import DataError
from accord.rewards.matching import normalized
from accord.rewards.numeric import compare, read_number
from accord.rewards.plain import plain_text
from accord.rewards.stated import Stated, stated_answer
from accord.rewards.verdicts import Verdict, compared

_LETTER = r"(?<![A-Za-z'’])(?:\(\s*([A-Za-z])\s*\)|\[([A-Z])\]|([A-Z])(?![A-Za-z'’]))"
_ALONE = re.compile(r"[\s*_$\"'`({\[]*([A-Za-z])[\s*_$\"'`)}\].:]*")
_LEADING = re.compile(r"[\s*_$\"'`]*(?:(?:option|choice|answer)\s+)?[*_(\[{]*([A-Za-z])[*_)\]}]*\s*(?:[).:,\]-]|$)", re.IGNORECASE)
_SETTLES = re.compile(
    r"(?:\b(?:option|choice|choose|chose|select|pick|go with|going with|correct (?:answer|option|choice)(?: is)?|must be|it is|it's|is)\s*:?\s*[*_]*"
    rf"{_LETTER})|(?:{_LETTER}[*_]*\s+(?:is|must be|would be)\s+(?:the\s+)?(?:correct|right|true|best|answer))"
    rf"|(?:\b(?:but|so|thus|therefore|hence),?\s+(?:rather\s+)?{_LETTER}(?=[*_.\s)]*(?:\n|$)))"
    r"|(?:\A\W*([A-Z])[*_)]*,?\s+(?:because|since)\b)"
)
_DENIES = re.compile(
    r"(?:\b(?:not|isn't|isn’t|never|rule out|eliminate|except|neither|nor)\s*(?:option|choice)?\s*[*_]*\(?$)", re.IGNORECASE
)


def grade_choice(text: str, gold: Any, *, choices: Sequence[str] | str | None = None, letters: str = "ABCDEFGHIJ") -> Verdict:
    """Whether the option an answer settles on is the gold one.

    The stated answer (see `stated`) is read first, else the last option that a sentence settles on ("B is correct", "I choose (B)"), else
    a letter that stands alone on the last line. "A or B" settles on none. "A" as an article is no option.

    Args:
        gold: the right letter ("B", "(b)", "B)21"), its text, or its index from 0 where `choices` are given.
        choices: the options' texts, with or without letters ("A)21"), as a list or as JSON; they let an answer give the option's text.
        letters: those that can be options; with `choices` as many as there are.
    Raises:
        DataError: if the gold is none of the options.
    """
    options = read_choices(choices)
    letters = letters[: len(options)] if options else letters
    right = _gold_letter(gold, options, letters)
    stated = stated_answer(text)
    if stated is None:
        return Verdict("no answer", "the text is empty, or its thinking never ends")
    found, problem = _chosen(stated, options, letters)
    if found is None:
        return Verdict("no answer", problem)
    return compared(found == right, found, right, stated.notes)


def read_choices(choices: Sequence[str] | str | None) -> list[str]:
    """The texts of options without their letters.

    Raises:
        DataError: if a text is not a list of options.
    """
    if choices is None:
        return []
    if isinstance(choices, str):
        try:
            choices = json.loads(choices)
        except json.JSONDecodeError:
            try:
                choices = ast.literal_eval(str(choices))
            except (ValueError, SyntaxError) as error:
                raise DataError(f"The choices {str(choices)[:60]!r} are not a list of texts. Give a list, or one as JSON.") from error
    if not isinstance(choices, Sequence) or isinstance(choices, str) or not all(isinstance(one, str) for one in choices):
        raise DataError(f"The choices {str(choices)[:60]!r} are not a list of texts. Give a list, or one as JSON.")
    found = [str(one).strip() for one in choices]
    marks = [re.match(r"\(?([A-Za-z])\s*[).:]\s*", one) for one in found]
    lettered = all(mark and mark.group(1).upper() == chr(65 + index) for index, mark in enumerate(marks))
    return [one[mark.end() :].strip() if lettered and mark else one for one, mark in zip(found, marks, strict=True)]


def _gold_letter(gold: Any, options: Sequence[str], letters: str) -> str:
    if isinstance(gold, int) and not isinstance(gold, bool) and options and 0 <= gold < len(options):
        return letters[gold]
    text = str(gold).strip()
    match = _ALONE.fullmatch(text) or re.match(r"\(?([A-Za-z])\s*[).:]", text)
    if match and match.group(1).upper() in letters:
        return match.group(1).upper()
    same = _options_with(text, options, letters)
    if len(same) == 1:
        return same[0]
    raise DataError(f"The gold answer {text[:60]!r} is none of the options {', '.join(letters)}.")


def _chosen(stated: Stated, options: Sequence[str], letters: str) -> tuple[str | None, str]:
    content = stated.text
    match = _ALONE.fullmatch(content)
    if match and match.group(1).upper() in letters:
        return match.group(1).upper(), ""
    by_text = _options_with(content, options, letters)
    if len(by_text) == 1:
        return by_text[0], ""
    return _in_prose(content, letters) if stated.mark == "none" else _behind_a_mark(content, options, letters)


def _behind_a_mark(content: str, options: Sequence[str], letters: str) -> tuple[str | None, str]:
    """The option that a marked answer names, or why none."""
    match = _LEADING.match(content)
    if match and match.group(1).upper() in letters and not (match.group(1) == "a" and not re.match(r"\W*\(?a[).:]", content)):
        letter, rest = match.group(1).upper(), content[match.end() :]
        named = [option for option in _options_with(rest.strip(" ).:-*"), options, letters) if option != letter]
        if named:
            return None, f"{content[:60]!r} names option {letter} with the text of option {named[0]}"
        others = {one for one in _letters(content, letters) if one != letter}
        if others and re.match(r"\W*(?:or|and|,|/|&)\W*\(?[A-Z]\b", rest):
            return None, f"{content[:60]!r} names several options"
        if others and re.match(r"\W*[/,&]\W*$", content[match.start(1) + 1 : match.end()]):
            return None, f"{content[:60]!r} names several options"
        return letter, ""
    found = _letters(content, letters)
    if len(set(found)) == 1:
        return found[0], ""
    if len(set(found)) > 1:
        return None, f"{content[:60]!r} names several options"
    return None, f"{content[:60]!r} names no option"


def _in_prose(content: str, letters: str) -> tuple[str | None, str]:
    """The option that a text without a marked answer settles on, or why none."""
    settled = [match for match in _SETTLES.finditer(content) if _letter_of(match) in letters]
    settled = [match for match in settled if not _DENIES.search(content[: match.start() + match.group().find(_letter_of(match))])]
    if settled:
        last = settled[-1]
        if re.match(r"[)\s*_]*(?:or|/)\s*\(?([A-Z])\b", content[last.end() :]):
            return None, f"{content[last.start() : last.end() + 6]!r} names several options"
        return _letter_of(last), ""
    line = content.splitlines()[-1]
    match = _ALONE.fullmatch(line) or re.match(r"\s*[*_(]*([A-Z])[*_]*\)", line) or re.match(r"\s*[*_]*([A-Z])[*_]*[.:]\s", line)
    if match and match.group(1).upper() in letters:
        return match.group(1).upper(), ""
    found = set(re.findall(r"\(([A-Z])\)", content)) & set(letters)
    if len(found) == 1:
        return found.pop(), ""
    return None, "no option is stated"


def _letter_of(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group).upper()


def _letters(text: str, letters: str) -> list[str]:
    """Options named in a text, in order; not the article "A" and not the pronoun "I"."""
    found = []
    for match in re.finditer(_LETTER, text):
        letter = _letter_of(match)
        prose = match.group(3) in ("A", "I") and re.match(r"\s+(?!(?:or|and|nor)\b)[a-z]", text[match.end() :])
        if letter in letters and not prose and not _DENIES.search(text[: match.start()]):
            found.append(letter)
    return found


def _options_with(text: str, options: Sequence[str], letters: str) -> list[str]:
    """The options whose text this is, as text or as a number."""
    clean = normalized(plain_text(text))
    same = [letters[index] for index, option in enumerate(options) if clean and normalized(plain_text(option)) == clean]
    if same or not options:
        return same
    number, _ = read_number(Stated(text, "boxed", 1))
    if number is None or len(number.text) < len(clean):
        return []
    read = [read_number(Stated(option, "boxed", 1))[0] for option in options]
    return [letters[index] for index, one in enumerate(read) if one is not None and compare(number, one).right]
