"""Numbers as people write them: signs, commas, decimals, fractions, powers of ten, percent, money, times, units and number words.

Values are exact fractions. What is no number in this notation ("1,23", "3/4/2024", "4x", "5 +- 1") is found and marked unreadable.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from accord.rewards.units import Unit, currency_before, read_unit

Kind = Literal["number", "time of day", "ratio", "unreadable"]


@dataclass(frozen=True)
class Quantity:
    """One number in a text."""

    value: Fraction
    """As written: 25 for 25 %, hours for a time of day, first / second for a ratio."""
    unit: Unit | None
    text: str
    start: int
    end: int
    kind: Kind = "number"
    decimals: int | None = None
    """Digits after the decimal point; None for what is no decimal."""
    half: Literal["am", "pm"] | None = None
    """Which half of the day, where that is known."""
    dozens: bool = False
    """True: it was written in dozens, which are twelve each in `value`. False: it was not."""

    def __str__(self) -> str:
        return self.text


_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?![\d,]\d)|\d{1,3}(?:[ ]\d{3})+(?![\d/])|\d+)(?:\.\d+)?|\.\d+"
_SCAN = re.compile(
    rf"""
    (?P<time>\d{{1,2}}:\d{{2}}(?::\d{{2}})?(?:\s*[ap]\.?\s?m\b\.?)?)(?![\d:])
  | (?P<hour>\d{{1,2}}\s*(?:[ap]\.m\.?|[ap]m\b))
  | (?P<ratio>\d+(?:\.\d+)?\s*:\s*\d+(?:\.\d+)?)(?![\d:])
  | (?P<mixed>(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\s+|\s+and\s+)\d+/\d+)(?!\s*[\d/])
  | (?P<fraction>(?:{_NUMBER})\s?/\s?(?:{_NUMBER}))(?!\s*/|\d)
  | (?P<science>(?:(?:{_NUMBER})(?:\s*[*x]\s*)10|(?<![\d.])10)\s*\^\s*\(?\s*[+-]?\d+\s*\)?|(?:{_NUMBER})[eE][+-]?\d+)(?![\w^])
  | (?P<number>{_NUMBER})
    """,
    re.VERBOSE,
)
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "bn": 10**9, "trillion": 10**12, "dozen": 12}
_SCALE = re.compile(
    r"\s*(hundred|thousand|million|billion|trillion|bn|dozen)s?\b(?:\s+(thousand|million|billion|trillion)\b)?", re.IGNORECASE
)
_ATTACHED_SCALE = {"k": 1000, "K": 1000, "M": 10**6, "B": 10**9}
_PART_OF_WORD = re.compile(r"[\w.^_\\]$(?<!\bRs)(?<!\bRs\.)(?<!USD)(?<!EUR)(?<!GBP)")
_EXPONENT = re.compile(r"(?:\^\s*\(?\s*[+-]?|±)\s*$")
_DOUBLED_SIGN = re.compile(r"(?:^|[^\w\s+-]|[=:]\s)\s*[+-]{2,}\s*$")
_MALFORMED = re.compile(r"[,/.]\d|/\s?\d|[_^]|\s*±|\s*!(?=\s*[=*/])")
_EXPRESSION = re.compile(r"[A-Za-z\\]|\s?\*\s?[a-zA-Z]\b|\s?\([a-z]\s*[-+*/^)]|\s*sqrt")
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")
_SIGN_WORDS = re.compile(r"(?:^|[^\w)%])(negative|minus)\s+$", re.IGNORECASE)
_STATES = re.compile(r"(?:\b(?:is|are|was|be|equals|gives|get|gets|to|of)|[=:≈(,;])\s*$", re.IGNORECASE)
MOST_DIGITS = 1000
"""Longest number that is read, in characters; Python itself refuses to read one of more than 4,300 digits."""
_BEFORE = 64
"""Characters before a number that say something of it: a sign, a currency, the mark of a list. All of them would be read again for each number."""


def read_quantities(text: str, *, lists: bool = False) -> list[Quantity]:
    """Every number of a plain text (see `plain.plain_text`), in order.

    Args:
        lists: True skips the marks of lists ("1. ", "- ") at the start of lines. False reads them as numbers and signs.
    """
    found: list[Quantity] = []
    position = 0
    while match := _SCAN.search(text, position):
        quantity = _read(text, match, lists)
        position = max(match.end(), quantity.end if quantity else 0)
        if quantity is None:
            continue
        before = found[-1] if found else None
        if before and (joined := _compound(before, quantity, text)):
            found[-1] = joined
        else:
            found.append(quantity)
    return found


def _read(text: str, match: re.Match[str], lists: bool) -> Quantity | None:
    """The number at a match; None where it is part of something else (a word, an exponent, the mark of a list)."""
    start, end = match.span()
    floor = max(0, start - _BEFORE)
    before, after, kind = text[floor:start], text[end:], match.lastgroup or ""
    if _PART_OF_WORD.search(before) or _EXPONENT.search(before):
        return None
    if lists and kind == "number" and re.search(r"(?:^|\n)\s*$", before) and re.match(r"[.)]\s+\S", after):
        return None
    value, decimals = _value(kind, match.group())
    if value is None or re.search(r"(?:\d[,/]|\d\.)$", before) or _MALFORMED.match(after) or _DOUBLED_SIGN.search(before):
        return _unreadable(text, start, end)
    if kind in ("time", "hour"):
        return _time(match, value) or _unreadable(text, start, end)
    currency, sign, begin = _in_front(before, lists)
    start = floor + begin
    scale, tail = _scale(after, money=currency is not None)
    if not tail and _ORDINAL.match(after):
        tail = 2
    unit, length = read_unit(after[tail:], attached=not tail and bool(re.match(r"[A-Za-z]", after)))
    if unit is None and not tail and kind != "mixed" and _EXPRESSION.match(after):
        return _unreadable(text, start, end)
    if currency is not None:
        joined = _money(currency, unit, after[tail:], length)
        if joined is None:
            return _unreadable(text, start, end)
        unit, length = joined
    stop = end + tail + (length if unit else 0)
    dozens = scale % 12 == 0
    written: Kind = "ratio" if kind == "ratio" else "number"
    value *= sign * scale
    return Quantity(value, unit, text[start:stop].strip(), start, stop, written, decimals if scale == 1 else None, dozens=dozens)


def _unreadable(text: str, start: int, end: int) -> Quantity:
    """A number in a notation that is not read, so that no other number is taken in its place."""
    return Quantity(Fraction(0), None, text[start:end].strip(), start, end, "unreadable")


def _in_front(before: str, lists: bool) -> tuple[Unit | None, int, int]:
    """Currency and sign before a number, in either order, and where they begin."""
    currency, front = currency_before(before)
    if currency is not None:
        sign, begin = _sign(before[:front], lists)
        return (currency, 1, front) if sign is None else (currency, sign, begin)
    sign, begin = _sign(before, lists)
    inner = re.search(r"[$€£¥₹]\s*([-+])\s*$", before)
    if inner:
        currency, front = currency_before(before[: inner.start(1)])
        return currency, -1 if inner.group(1) == "-" else 1, front
    return (None, 1, len(before)) if sign is None else (None, sign, begin)


def _money(currency: Unit, unit: Unit | None, rest: str, length: int) -> tuple[Unit, int] | None:
    """The unit of an amount: the currency, with what is behind the number where that says per what. None if it is another measure."""
    if unit is None or not unit.powers:
        if per := re.match(r"\s*(?:/|per\b|an?\b)\s*([A-Za-z]+)", rest):
            rate, _ = read_unit(f"dollar {per.group().strip()}", attached=True)
            if rate is not None and len(rate.powers) == 2:
                powers = dict(currency.powers) | {base: power for base, power in rate.powers if base != "dollar"}
                return Unit(currency.name + per.group(), tuple(sorted(powers.items())), currency.factor * rate.factor), per.end()
        return currency, length
    same = dict(unit.powers).get(currency.powers[0][0]) == 1
    return (unit, length) if same else None


def _value(kind: str, text: str) -> tuple[Fraction | None, int | None]:
    """The value and its digits after the point; no value where a number is longer than `MOST_DIGITS` or divides by 0."""
    clean = text.replace(",", "")
    if len(clean) > MOST_DIGITS:
        return None, None
    if kind == "mixed":
        whole, top, bottom = (int(part) for part in re.findall(r"\d+", clean))
        return (whole + Fraction(top, bottom) if bottom else None), None
    if kind in ("fraction", "ratio"):
        first, second = (Fraction(part.replace(" ", "")) for part in re.split(r"[/:]", clean))
        return (first / second if second else None), None
    if kind == "science":
        if parts := re.fullmatch(r"(.*?)[eE]([+-]?\d+)", clean):
            base, power = parts.groups()
        else:
            base, power = re.fullmatch(r"(?:(.*?)\s*[*x]\s*)?10\s*\^\s*\(?\s*([+-]?\d+)\s*\)?", clean, re.DOTALL).groups()  # type: ignore[union-attr]
        return (Fraction((base or "1").replace(" ", "")) * Fraction(10) ** int(power) if abs(int(power)) <= 1000 else None), None
    if kind in ("time", "hour"):
        numbers = [int(part) for part in re.findall(r"\d+", clean)] + [0, 0]
        return Fraction(numbers[0]) + Fraction(numbers[1], 60) + Fraction(numbers[2], 3600), None
    clean = clean.replace(" ", "")
    return Fraction(clean), len(clean.partition(".")[2]) if "." in clean else None


def _time(match: re.Match[str], hours: Fraction) -> Quantity | None:
    numbers = [int(part) for part in re.findall(r"\d+", match.group())]
    if any(part > 59 for part in numbers[1:]):
        return None
    written = re.search(r"([ap])\.?\s?m", match.group(), re.IGNORECASE)
    half: Literal["am", "pm"] | None = None
    if written:
        half = "am" if written.group(1).lower() == "a" else "pm"
        hours = hours % 12
    elif numbers[0] >= 13 or numbers[0] == 0:
        half = "am" if numbers[0] == 0 else "pm"
        hours = hours % 12 if numbers[0] < 24 else hours
    else:
        hours = hours % 12
    return Quantity(hours, None, match.group().strip(), match.start(), match.end(), "time of day", half=half)


def _sign(before: str, lists: bool) -> tuple[int | None, int]:
    """The sign at the end of what stands before a number, and where it begins. None: there is none, or it is an operator."""
    if words := _SIGN_WORDS.search(before):
        operator = words.group(1).lower() == "minus" and re.search(r"[\d)%]\s*$", before[: words.start(1)])
        return (None, len(before)) if operator else (-1, words.start(1))
    match = re.search(r"([+-])(\s*)$", before)
    if not match:
        return None, len(before)
    head = before[: match.start()]
    if re.search(r"[\d)%}!°]\s*$", head) or re.search(r"[A-Za-z]$", head):
        return None, len(before)
    if match.group(2) and re.search(r"[A-Za-z]\s*$", head) and not _STATES.search(head):
        return None, len(before)
    if lists and match.group(2) and re.search(r"(?:^|\n)\s*$", head):
        return None, len(before)
    return (-1 if match.group(1) == "-" else 1), match.start()


def _scale(after: str, *, money: bool) -> tuple[int, int]:
    if match := _SCALE.match(after):
        return _SCALES[match.group(1).lower()] * (_SCALES[match.group(2).lower()] if match.group(2) else 1), match.end()
    match = re.match(r"([kKMB])(?![\w²])", after)
    if match and (money or match.group(1) in "kK"):
        return _ATTACHED_SCALE[match.group(1)], 1
    return 1, 0


def _compound(first: Quantity, second: Quantity, text: str) -> Quantity | None:
    """ "2 hours and 30 minutes", "5 ft 3 in": adjacent quantities of one dimension, the larger unit first, are one."""
    if (
        "unreadable" in (first.kind, second.kind)
        or first.unit is None
        or second.unit is None
        or not first.unit.powers
        or first.unit.powers != second.unit.powers
    ):
        return None
    if first.unit.factor <= second.unit.factor or not re.fullmatch(r"\s*(?:,?\s*and\s+|,\s*)?", text[first.end : second.start]):
        return None
    if second.value < 0 or "percent" in dict(first.unit.powers):
        return None
    part = second.value * second.unit.factor / first.unit.factor
    value = first.value - part if first.value < 0 else first.value + part
    return replace(first, value=value, text=text[first.start : second.end].strip(), end=second.end, decimals=None)


_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_WORDS = {word: number for number, word in enumerate(_ONES)} | {word: 10 * number for number, word in enumerate(_TENS, start=2)}


def read_words(text: str) -> Quantity | None:
    """The only number written in words ("minus twenty-one", "three hundred and five apples"); None if there is none or are several."""
    tokens = [(match.group().lower(), match.start(), match.end()) for match in re.finditer(r"[A-Za-z]+", text)]
    runs: list[list[tuple[str, int, int]]] = [[]]
    for index, token in enumerate(tokens):
        following = tokens[index + 1][0] if index + 1 < len(tokens) else ""
        counted = bool(runs[-1]) or (index > 0 and tokens[index - 1][0] in ("a", "an"))
        inside = token[0] in _WORDS or (token[0] in _SCALES and token[0] != "bn" and counted)
        if inside or (token[0] == "and" and runs[-1] and runs[-1][-1][0] in _SCALES and following in _WORDS):
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    runs = [run for run in runs if run]
    if len(runs) != 1:
        return None
    value = _words_value([word for word, _, _ in runs[0] if word != "and"])
    if value is None:
        return None
    start, end = runs[0][0][1], runs[0][-1][2]
    sign = re.search(r"\b(minus|negative)\s+$", text[:start], re.IGNORECASE)
    unit, length = read_unit(text[end:])
    start = sign.start() if sign else start
    return Quantity(Fraction(-value if sign else value), unit, text[start : end + length].strip(), start, end + length)


def _words_value(words: Sequence[str]) -> int | None:
    total, current, last = 0, 0, ""
    for word in words:
        if word in _WORDS:
            number = _WORDS[word]
            if last in _WORDS and not (_WORDS[last] >= 20 and 0 < number < 10):
                return None  # "five six" is no number
            current += number
        elif word in ("hundred", "dozen"):
            current = max(current, 1) * _SCALES[word]
        else:
            total, current = total + max(current, 1) * _SCALES[word], 0
        last = word
    return total + current
