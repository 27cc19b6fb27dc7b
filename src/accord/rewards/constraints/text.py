"""What a word, a sentence, a paragraph and a list item are for every constraint: one reading, so that all counts agree. Pure functions on text."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+(?:['’\-‑][^\W_]+)*")
_SIGNS = r"(?:[^\W_]|[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0dff\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u200c\u200d])"
_MARKS = re.compile(rf"{_SIGNS}+(?:['’\-‑]{_SIGNS}+)*")
_END = re.compile(r"(?:[.!?…]+[\"'”’)\]*_]*(?=\s|$)|[。！？।]+[”」』）]*)")
_SHORT = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|prof|sr|jr|st|vs|etc|e\.g|i\.e|approx|dept|est|fig|inc|ltd|co|corp|gen|rep|sen|rev|hon|capt|col|sgt|vol|cf|al|p\.s|p\.p\.s|a\.m|p\.m|u\.s|u\.k|ph\.d)|(?:^|[\s(.])[A-Z])\.$",
    re.IGNORECASE,
)
_LIST_LINE = re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s+\S")
_BULLET = re.compile(r"^\s*(?:[-+•]|\*(?!\*))\s*\S")
_RULE = re.compile(r"^\s*(?:-\s*){3,}$|^\s*(?:\*\s*){3,}$")
_NUMBERED = re.compile(r"^\s*\d+[.)]\s+\S")


def words(text: str) -> list[str]:
    """Words in order, letters and digits of any script; inner apostrophes and hyphens stay: "don't" and "well-known" are one word each.

    Where a script puts no spaces between words (Chinese, Japanese, Thai), an unbroken run of letters is one.
    """
    return (_WORD if text.isascii() else _MARKS).findall(text)


def sentences(text: str) -> list[str]:
    """Sentences in order: they end at . ! ? … (or । 。！？), at an empty line, and at the lines of a list.

    A common abbreviation, an initial and the number of a list item ("Dr.", "J.", "1.") end none; a decimal point is followed by no space.
    Text without any word is no sentence.
    """
    found: list[str] = []
    for block in _blocks(text):
        start = 0
        for end in _END.finditer(block):
            part = block[start : end.end()]
            if end.group().startswith(".") and not end.group().startswith("..") and _is_short(block, start, end.start() + 1):
                continue
            found.append(part.strip())
            start = end.end()
        found.append(block[start:].strip())
    return [part for part in found if words(part)]


def _is_short(block: str, start: int, stop: int) -> bool:
    part = block[max(start, stop - 24) : stop]  # longer than any abbreviation, so that long texts take linear time
    if stop - start < 12 and re.fullmatch(r"\s*\d+\.", part):
        return True
    match = _SHORT.search(part)
    if not match or re.search(r"(?:^|\s)I\.$", part):
        return False
    following = block[stop : stop + 24].lstrip()
    ends_too = re.search(r"\b(?:etc|inc|ltd|co|a\.m|p\.m|u\.s|u\.k)\.$", part, re.IGNORECASE)
    return bool(following) and not (ends_too and following[:1].isupper())


def _blocks(text: str) -> list[str]:
    """Stretches that a sentence cannot cross: paragraphs, and single lines of lists and headings."""
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        alone = bool(_LIST_LINE.match(line)) or line.lstrip().startswith("#")
        if not line.strip() or alone:
            blocks.append([])
        if line.strip():
            blocks[-1].append(line)
        if line.lstrip().startswith("#"):
            blocks.append([])
    return ["\n".join(block) for block in blocks if block]


def paragraphs(text: str) -> list[str]:
    """Paragraphs between empty lines, in order, none of them empty."""
    return [part.strip() for part in re.split(r"\n[ \t]*\n", text.strip()) if part.strip()]


def divided(text: str, divider: str) -> list[str] | None:
    """The parts between lines (or words) that are exactly `divider`, a run of asterisks; None: a part between two dividers is empty.

    A divider before the first or after the last part makes no part.
    """
    parts = [part.strip() for part in re.split(rf"(?<!\*){re.escape(divider)}(?!\*)", text)]
    if len(parts) > 1 and not parts[0]:
        parts = parts[1:]
    if len(parts) > 1 and not parts[-1]:
        parts = parts[:-1]
    return None if any(not part for part in parts) else parts


def lines(text: str) -> list[str]:
    """Lines with something on them."""
    return [line for line in text.splitlines() if line.strip()]


def bullets(text: str) -> list[str]:
    """Lines that begin with `*`, `-`, `+` or `•` and go on; bold lines (`**`) and rules (`---`, `***`) are none."""
    return [line for line in text.splitlines() if _BULLET.match(line) and not _RULE.match(line)]


def numbered(text: str) -> list[str]:
    """Lines that begin with a number and `.` or `)`."""
    return [line for line in text.splitlines() if _NUMBERED.match(line)]


def without_marks(word: str) -> str:
    """A word in lower case without punctuation or markdown around it."""
    places = [place for place, sign in enumerate(word) if sign.isalnum()]
    return word[places[0] : places[-1] + 1].lower() if places else ""
