"""Units of measure as numbers are written with them: which are the same, which convert into each other, which differ.

A known unit is a factor and powers of base units (3 km/h is 3 * 1000/3600 m s^-1), so that equal quantities are equal however they are
written. Any other noun is kept as its words. Currencies do not convert into each other, nor do temperature scales.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Unit:
    """What a number counts."""

    name: str
    """As it was written."""
    powers: tuple[tuple[str, int], ...] = ()
    """Base units and their powers, sorted; empty for a unit that is not known."""
    factor: Fraction = Fraction(1)
    """How many of the base units it is."""
    words: frozenset[str] = frozenset()
    """The nouns of a unit that is not known, without plural endings."""


def _unit(base: str, factor: str | int, names: str) -> dict[str, tuple[str, int, Fraction]]:
    power = int(base[-1]) if base[-1].isdigit() else 1
    return {name: (base.rstrip("0123456789"), power, Fraction(factor)) for name in names.split("|")}


_KNOWN: dict[str, tuple[str, int, Fraction]] = {
    **_unit("metre", 1, "m|meter|metre"),
    **_unit("metre", 1000, "km|kilometer|kilometre"),
    **_unit("metre", "1/10", "dm|decimeter|decimetre"),
    **_unit("metre", "1/100", "cm|centimeter|centimetre"),
    **_unit("metre", "1/1000", "mm|millimeter|millimetre"),
    **_unit("metre", "0.0254", "in|inch|inches"),
    **_unit("metre", "0.3048", "ft|foot|feet"),
    **_unit("metre", "0.9144", "yd|yard"),
    **_unit("metre", "1609.344", "mi|mile"),
    **_unit("metre2", 10000, "ha|hectare"),
    **_unit("metre2", "4046.8564224", "acre"),
    **_unit("metre3", "1/1000", "l|L|liter|litre"),
    **_unit("metre3", "1/1000000", "ml|mL|milliliter|millilitre|cc"),
    **_unit("metre3", "0.003785411784", "gal|gallon"),
    **_unit("metre3", "0.000946352946", "qt|quart"),
    **_unit("metre3", "0.000473176473", "pt|pint"),
    **_unit("gram", 1, "g|gram|gramme"),
    **_unit("gram", 1000, "kg|kilo|kilogram"),
    **_unit("gram", "1/1000", "mg|milligram"),
    **_unit("gram", 1000000, "tonne"),
    **_unit("gram", "453.59237", "lb|lbs|pound-mass"),
    **_unit("gram", "28.349523125", "oz|ounce"),
    **_unit("second", 1, "s|sec|second"),
    **_unit("second", "1/1000", "ms|millisecond"),
    **_unit("second", 60, "min|minute"),
    **_unit("second", 3600, "h|hr|hour"),
    **_unit("second", 86400, "day"),
    **_unit("second", 604800, "week|wk"),
    **_unit("month", 1, "month"),
    **_unit("month", 12, "year|yr"),
    **_unit("degree", 1, "degree|deg|°"),
    **_unit("celsius", 1, "°C|degC|celsius"),
    **_unit("fahrenheit", 1, "°F|degF|fahrenheit"),
    **_unit("dollar", 1, "$|US$|USD|dollar|buck"),
    **_unit("dollar", "1/100", "¢|cent"),
    **_unit("canadian dollar", 1, "C$|CAD"),
    **_unit("australian dollar", 1, "A$|AUD"),
    **_unit("euro", 1, "€|EUR|euro"),
    **_unit("pound", 1, "£|GBP"),
    **_unit("pound", "1/100", "pence"),
    **_unit("yen", 1, "¥|JPY|yen"),
    **_unit("rupee", 1, "₹|INR|Rs|rupee"),
    **_unit("percent", "1/100", "%|percent|percentage"),
    **_unit("newton", 1, "N|newton"),
    **_unit("joule", 1, "J|joule"),
    **_unit("watt", 1, "W|watt"),
    **_unit("watt", 1000, "kW|kilowatt"),
    **_unit("hertz", 1, "Hz|hertz"),
    **_unit("bit", 1000, "kb|kilobit"),
    **_unit("bit", 1000000, "Mb|Mbit|megabit"),
    **_unit("bit", 1000000000, "Gb|Gbit|gigabit"),
    **_unit("byte", 1, "byte"),
    **_unit("byte", 1000, "kB|KB|kilobyte"),
    **_unit("byte", 1000000, "MB|megabyte"),
    **_unit("byte", 1000000000, "GB|gigabyte"),
}
_RATES = {"mph": "mi per h", "kph": "km per h", "kmh": "km per h", "kmph": "km per h", "mps": "m per s"}
_ENDS = set(
    """a an the in on at of for from to by with and or but so because since as if when while which that who is are was were be been has
    have had will would can could each every all after before during then than not now his her their its my our your he she it they we i you
    therefore thus hence however if this these those there into between among out over under about via per""".split()
)
"""Words that are no part of a unit and end it."""
_FILLERS = {
    "left",
    "remaining",
    "total",
    "altogether",
    "more",
    "fewer",
    "less",
    "long",
    "old",
    "tall",
    "high",
    "wide",
    "deep",
    "overall",
    "away",
}
_NOUN = re.compile(r"(?:\s+|-)?([A-Za-z][A-Za-z'-]*)")
_FUNCTIONS = re.compile(r"(?:sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|theta|alpha|beta)(?![a-z])")
_POWER = re.compile(r"\s*(?:\^\s*\(?(-?\d)\)?|(squared|cubed)\b)")
_BEFORE = re.compile(r"(square|sq\.?|cubic|cu\.?)\s+", re.IGNORECASE)
_PER = re.compile(r"\s*/\s*|\s+per\s+|\s+an?\s+(?=(?:hour|day|week|month|year|minute|second|mile|kilometer|piece)s?\b)", re.IGNORECASE)


def known(name: str) -> tuple[str, int, Fraction] | None:
    """Base unit, power and factor of a unit's name, in the singular or plural; None if it is not known."""
    for form in (name, name.lower()):
        for spelling in (form, form[:-2] if form.endswith("es") and len(form) > 4 else form, form[:-1] if form.endswith("s") else form):
            if len(spelling) == 1 and spelling != name:
                continue  # "ms" is not several m, nor "S" a second
            if spelling in _KNOWN:
                return _KNOWN[spelling]
    return None


def read_unit(text: str, *, attached: bool = False) -> tuple[Unit | None, int]:
    """The unit at the start of `text`, and where it ends; None and 0 if what stands there is none.

    Args:
        attached: True: the text follows the number without a space, where known units stand, and nouns of three letters or more. False: any noun.
    """
    unit, end = _known_unit(text)
    if unit is not None:
        return unit, end
    if attached and (not re.match(r"[A-Za-z]{3,}", text) or _FUNCTIONS.match(text)):
        return None, 0
    words: list[str] = []
    position = 0
    while len(words) < 4:
        match = _NOUN.match(text, position)
        if not match or (position > 0 and match.start(1) == match.start()) or match.group(1).lower() in _ENDS:
            break
        words.append(match.group(1))
        position = match.end()
    nouns = {_singular(word.lower()) for word in words} - _FILLERS
    if per := re.compile(r"\s?/\s?([A-Za-z]{2,})").match(text, position):
        nouns.add(f"per {_singular(per.group(1).lower())}")
        words.append(f"per {per.group(1)}")
        position = per.end()
    return (Unit(" ".join(words), words=frozenset(nouns)), position) if nouns else (None, position)


def currency_before(text: str) -> tuple[Unit | None, int]:
    """The currency at the end of `text` (before a number), and where it begins."""
    match = re.search(r"(?:(?<![A-Za-z])(?:US\$|C\$|A\$|USD|EUR|GBP|CAD|AUD|JPY|INR|Rs\.?)|[$€£¥₹])\s*$", text)
    if not match:
        return None, len(text)
    name = match.group().strip().rstrip(".")
    base, power, factor = _KNOWN[name]
    return Unit(name, ((base, power),), factor), match.start()


def _known_unit(text: str) -> tuple[Unit | None, int]:
    first = _factor(text, 0)
    if first is None:
        return None, 0
    (powers, factor), end = first
    per = _PER.match(text, end)
    if per and (second := _factor(text, per.end())) is not None:
        (below, below_factor), end = second
        powers = {**powers}
        for base, power in below.items():
            powers[base] = powers.get(base, 0) - power
        factor /= below_factor
    elif per and (noun := re.compile(r"[A-Za-z]+").match(text, per.end())) and noun.group().lower() not in _ENDS:
        powers = {**powers, _singular(noun.group().lower()): -1}
        end = noun.end()
    return Unit(text[:end].strip(), tuple(sorted((base, power) for base, power in powers.items() if power)), factor), end


def _factor(text: str, start: int) -> tuple[tuple[dict[str, int], Fraction], int] | None:
    position = start + len(re.compile(r"\s*-?").match(text, start).group())  # type: ignore[union-attr]
    before = _BEFORE.match(text, position)
    if before:
        position = before.end()
    match = re.compile(r"degrees?\s+(celsius|fahrenheit|C\b|F\b)", re.IGNORECASE).match(text, position)
    if match:
        return ({"celsius" if match.group(1)[0] in "cC" else "fahrenheit": 1}, Fraction(1)), match.end()
    match = re.compile(r"°\s*[CF]\b|(?:US|C|A)?\$|[%€£¥₹¢°]").match(text, position) or re.compile(r"[A-Za-z]+").match(text, position)
    if not match:
        return None
    name = match.group().replace(" ", "")
    if name.lower() in _RATES:
        found = _known_unit(_RATES[name.lower()])[0]
        return None if found is None else ((dict(found.powers), found.factor), match.end())
    if name == "in" and re.match(r"\s+(?!(?:and|or|by|wide|long|tall|high|deep|apart)\b)[A-Za-z]", text[match.end() :]):
        return None  # the preposition
    entry = known(name)
    if entry is None and name.lower() == "per" and (cent := re.compile(r"\s+cent\b").match(text, match.end())):
        return ({"percent": 1}, Fraction(1, 100)), cent.end()
    if entry is None:
        return None
    base, power, factor = entry
    if name.lower().startswith("percent") and (points := re.compile(r"\s+points?\b").match(text, match.end())):
        return ({"percent": 1}, factor), points.end()
    end = match.end()
    after = _POWER.match(text, end)
    if before or after:
        exponent = (2 if before.group(1)[0].lower() == "s" else 3) if before else 0
        if after:
            exponent = int(after.group(1)) if after.group(1) else 2 if after.group(2) == "squared" else 3
            end = after.end()
        power, factor = power * exponent, factor**exponent
    return ({base: power}, factor), end


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "zes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 2 else word


def same_words(first: Unit, second: Unit) -> bool:
    """Whether two unknown units name the same thing: one's nouns are among the other's ("clips", "paper clips")."""
    return first.words <= second.words or second.words <= first.words
