"""Checks that values of every kind of annotation share. Each raises a DataError that names the place and what may stand there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

from accord.errors import DataError

MAX_TEXT = 100_000
"""Longest text that an annotator may write, in characters."""
STRENGTHS = (1, 2, 3, 4)
RATINGS = range(1, 8)


def check_keys(value: Mapping[str, Any], place: str, kind: str, needed: set[str], optional: Collection[str] = ()) -> None:
    """The value has every needed key and no unknown one."""
    missing, unknown = sorted(needed - value.keys()), sorted(map(str, value.keys() - needed - set(optional)))
    if missing:
        raise DataError(f'{place}: the value of a {kind} needs "{missing[0]}".')
    if unknown:
        raise DataError(f'{place}: the value of a {kind} has no "{unknown[0]:.40}".')


def check_choice(choice: object, place: str) -> None:
    """Which of two answers, a tie, or both bad."""
    if not (is_integer(choice) and choice in (0, 1)) and choice not in ("tie", "both_bad"):
        raise DataError(f'{place}: "choice" is {choice!r}; it is 0 or 1 (which answer), "tie" or "both_bad".')


def check_strength(value: object, choice: object, place: str) -> None:
    """How much better the chosen answer is; None: not stated."""
    if value is None:
        return
    if not is_integer(value) or value not in STRENGTHS:
        raise DataError(f"{place}: strength is {value!r}; it is 1 (hardly better), 2, 3 or 4 (far better).")
    if not is_integer(choice):
        raise DataError(f"{place}: strength {value} needs a choice of 0 or 1; the choice is {choice!r}.")


def check_rating(value: Mapping[str, Any], place: str) -> None:
    """`rating` and, where they are there, `flags`."""
    if not is_integer(value["rating"]) or value["rating"] not in RATINGS:
        raise DataError(f'{place}: "rating" is {value["rating"]!r}; it is a whole number from 1 (worst) to 7 (best).')
    flags = value.get("flags", [])
    names = cast("list[object]", flags) if isinstance(flags, list) else None
    if names is None or not all(isinstance(name, str) and 0 < len(name) <= 40 for name in names) or len(set(names)) < len(names):
        raise DataError(f'{place}: "flags" is {flags!r:.80}; it is a list of different short names, such as ["wrong", "harmful"].')
    for name in names:
        check_text(name, f'{place}: "flags"')


def check_index(value: object, count: int, what: str, of: str, more: str = "") -> None:
    """A place from 0 to `count` - 1."""
    if not is_integer(value) or not 0 <= cast("int", value) < count:
        raise DataError(f"{what} is {value!r}; it is the number of {of}, 0 to {count - 1}{f', {more}' if more else ''}.")


def check_text(value: object, what: str) -> None:
    """A text that says something, is not too long, and can be stored."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{what} is {value!r:.40}; it needs a text.")
    if len(value) > MAX_TEXT:
        raise DataError(f"{what} has {len(value)} characters; at most {MAX_TEXT} are taken.")
    check_encodable(value, what)


def check_encodable(value: str, what: str) -> None:
    """A text without halves of characters, which no file and no database can hold."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])[1:-1]
        raise DataError(f"{what} has half of a character ({half}, at {error.start + 1}).") from error


def is_integer(value: object) -> bool:
    """True for a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """True for a number; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
