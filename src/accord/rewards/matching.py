"""Grading by text: the stated answer equals the gold one, exactly or after normalising what does not change its meaning."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from accord.errors import DataError
from accord.rewards.stated import stated_answer
from accord.rewards.verdicts import Verdict, compared

_ARTICLES = re.compile(r"^(?:the|an?)\s+(?=\S)")
_QUOTES = {ord(sign): plain for sign, plain in zip("‘’“”‐‑−", "''\"\"---", strict=True)}


def grade_exact(text: str, gold: Any) -> Verdict:
    """Whether the stated answer is the gold text, character for character (spaces at the ends apart).

    Raises:
        DataError: if the gold is empty.
    """
    return _grade(text, gold, lambda value: value)


def grade_normalized(text: str, gold: Any) -> Verdict:
    """Whether the stated answer is the gold text after `normalized`.

    Raises:
        DataError: if the gold is empty.
    """
    return _grade(text, gold, normalized)


def normalized(text: str) -> str:
    """Lower case, one space between words, no quotes, emphasis, article at the start or full stop at the end. Signs and units stay."""
    text = unicodedata.normalize("NFC", text).translate(_QUOTES).casefold()
    text = re.sub(r"\\(?:text|mathrm|textbf|mbox)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\*\*|__|`|^\$|\$$", "", " ".join(text.split()))
    previous = None
    while previous != text:
        previous = text
        text = text.strip().strip("\"'").rstrip(".!,;:").strip()
        text = _ARTICLES.sub("", text)
    return text


def _grade(text: str, gold: Any, form: Any) -> Verdict:
    right = form(str(gold).strip())
    if gold is None or not right:
        raise DataError(f"The gold answer {gold!r} has no text to compare with.")
    stated = stated_answer(text)
    if stated is None or not form(stated.text):
        return Verdict("no answer", "the text is empty, its thinking never ends, or its stated answer is empty")
    notes = stated.notes if stated.mark != "none" else ("nothing is marked as the answer; the whole text was compared",)
    found = form(stated.text)
    return compared(found == right, repr(found[:60]), repr(right[:60]), notes)
