"""Quotes and whether they stand in the evidence, word for word: what a judge who cannot read the evidence may rely on."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

_QUOTE_TAG = re.compile(r"<\s*(?P<end>/?)\s*(?:[vu]_)?quote\b[^<>]*>", re.IGNORECASE)
_MARKS = re.compile(r'"([^"]+)"|“([^“”]+)”|„([^„“”]+)[“”]|«([^«»]+)»')
_ALIKE = str.maketrans({**dict.fromkeys("‘’‚‛′`´", "'"), **dict.fromkeys("“”„‟″«»", '"'), **dict.fromkeys("‐‑‒–—―−", "-")})
_EDGE = " \t\n\"'.,;:!?()[]"


@dataclass(frozen=True)
class Segment:
    """A piece of what a debater said: words of its own, or a quote."""

    text: str
    quote: bool = False
    verified: bool = False
    """Of a quote: it stands in the evidence."""

    @property
    def shown(self) -> str:
        """As judges and rivals read it. Nothing else that they read has angle brackets."""
        mark = "v_quote" if self.verified else "u_quote"
        return f"<{mark}>{self.text}</{mark}>" if self.quote else self.text


def segments_of(argument: str, evidence: str) -> tuple[Segment, ...]:
    """An argument in pieces, every quote verified: what stands between <quote> tags, or between double quotation marks.

    Line ends and runs of blanks become one blank, and angle brackets typographic ones, so that nobody can write a mark, or a line that
    seems to be another speaker's.
    """
    found: list[Segment] = []
    place, inside = 0, False
    for tag in _QUOTE_TAG.finditer(argument):
        found += _pieces(argument[place : tag.start()], evidence, quote=inside)
        inside, place = not tag["end"], tag.end()
    found += _pieces(argument[place:], evidence, quote=inside)
    return tuple(found)


def cut_to(segments: tuple[Segment, ...], words: int) -> tuple[tuple[Segment, ...], bool]:
    """The first so many words, and whether anything was left out. A quote that does not fit whole is left out with all that follows it."""
    found: list[Segment] = []
    room = words
    for segment in segments:
        said = segment.text.split()
        if len(said) > room:
            kept = "" if segment.quote else " ".join(said[:room])
            return (*found, *([Segment(kept)] if kept else [])), True
        found.append(segment)
        room -= len(said)
    return tuple(found), False


def stands_in(quote: str, evidence: str) -> bool:
    """Whether a quote is in the evidence word for word, from the beginning of a word to the end of one.

    Case, kinds of blanks, quotation marks and dashes, compatibility forms of characters, and marks at the quote's ends make no
    difference; any other character does. A quote without a letter or digit is none.
    """
    words = normalised(quote).strip(_EDGE)
    if not any(character.isalnum() for character in words):
        return False
    text = normalised(evidence)
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


@lru_cache(maxsize=1024)
def normalised(text: str) -> str:
    """Text as quotes are compared: one blank between words, lower case, plain marks, no invisible characters."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.translate(_ALIKE)).casefold()).translate(_ALIKE)
    return " ".join("".join(character for character in plain if unicodedata.category(character) != "Cf").split())


def sentences(text: str) -> list[str]:
    """A text's sentences, by their marks and by line ends."""
    return [one.strip() for one in re.split(r"(?<=[.!?])\s+|\n+", text) if one.strip()]


def plain_line(text: str) -> str:
    """Text on one line, without angle brackets."""
    return " ".join(text.split()).replace("<", "‹").replace(">", "›")


def _pieces(text: str, evidence: str, *, quote: bool) -> list[Segment]:
    """quote: True takes all of the text for one quote. False looks for quotation marks in it."""
    if quote:
        said = plain_line(text).strip(' "“”„«»')
        return [Segment(said, True, stands_in(text, evidence))] if said else []
    found: list[Segment] = []
    place = 0
    for marks in _MARKS.finditer(text):
        found += _own(text[place : marks.start()])
        inside = next(group for group in marks.groups() if group is not None)
        said = plain_line(inside)
        found += [Segment(said, True, stands_in(inside, evidence))] if said else []
        place = marks.end()
    return found + _own(text[place:])


def _own(text: str) -> list[Segment]:
    said = plain_line(text)
    return [Segment(said)] if said else []
