"""Constraints on parts that must occur: placeholders, a postscript, digits, an e-mail address."""

from __future__ import annotations

import re
from collections.abc import Callable

from accord.rewards.constraints.relations import compare


def number_placeholders(answer: str, *, num_placeholders: int) -> bool:
    """At least so many placeholders in square brackets, such as [name]: not empty, on one line. A markdown link's text is none."""
    return len(re.findall(r"\[[^\[\]\n]*[^\s\[\]][^\[\]\n]*\](?!\()", answer)) >= num_placeholders


def postscript(answer: str, *, postscript_marker: str) -> bool:
    """A postscript with words after its marker (P.S. or P.P.S) begins a line, or follows the end of a sentence.

    Case, spaces and the last full stop of the marker do not matter. "P.P.S." is no "P.S.".
    """
    letters = re.findall(r"\w", postscript_marker)
    marker = r"\s*\.\s*".join(re.escape(letter) for letter in letters)
    return bool(re.search(rf"(?:^|[.!?\"”)\]]\s)[ \t>*_]*{marker}(?!\w)[\s.:,*_–—-]*\w", answer, re.IGNORECASE | re.MULTILINE))


def digits(answer: str, *, relation: str, num_numbers: int) -> bool:
    """How many numbers written in digits occur; "1,000" and "3.5" are one each."""
    return compare(len(re.findall(r"\d+(?:[.,]\d+)*", answer)), relation, num_numbers)


def email(answer: str) -> bool:
    """An e-mail address occurs."""
    return bool(re.search(r"(?<![\w.+-])[\w.+-]+@[A-Za-z\d-]+(?:\.[A-Za-z\d-]+)*\.[A-Za-z]{2,}(?![\w@])", answer))


KINDS: dict[str, Callable[..., bool]] = {
    "detectable_content:number_placeholders": number_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_content:digits": digits,
    "detectable_content:email": email,
}
