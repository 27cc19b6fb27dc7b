"""Grading by numbers: GSM8K's answers and every other that is one number, exactly and with its sign and unit.

The same rules read the gold and the answer, so swapping them never changes the outcome. A unit that only one side states is not
compared, and the verdict says so; two units are compared (5 km is 5000 m, not 5 miles). A percentage is equal to its fraction, and
to the bare number (25 % is 0.25, and 25 where no unit is stated).
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

from accord.errors import DataError
from accord.rewards.plain import plain_text
from accord.rewards.quantities import Quantity, read_quantities, read_words
from accord.rewards.stated import Stated, stated_answer, without_thinking
from accord.rewards.units import same_words
from accord.rewards.verdicts import Verdict, compared

_OPERATORS = re.compile(r"[\s()\[\]*+\-/^x]*")
_HEDGE = re.compile(r"\W*(?:or|and|to|versus|vs|and/or|or maybe|or perhaps|maybe|/|-|±|\||,|;)\W*", re.IGNORECASE)
_OR = re.compile(r"\W*(?:or|and/or|or maybe|or perhaps|or else)\W*", re.IGNORECASE)
_RELATION = re.compile(r"(?:[<>≤≥≠]|!=)\s*=?\s*(?:[$€£¥₹]\s*)?[+-]?\s*$")


def grade_numeric(text: str, gold: Any, *, unmarked: bool = True, require_unit: bool = False) -> Verdict:
    """Whether the number that a text states is the gold one.

    The stated number is the one at the last mark (see `stated`): after the last "=" of a chain (48 + 24 = 72), the first number (or sum
    worked out) of a sentence ("the answer is 72 clips in 2 months"), the last one in a box, a tag or behind ####. "5 or 6" states no number, nor does
    an expression that was not worked out.

    Args:
        text: the whole answer of a model, or the number alone.
        gold: a number, a text with one, or a whole GSM8K solution.
        unmarked: True grades a text without any mark by its last number. False finds no answer in it.
        require_unit: True: a unit that only one of the two states makes the answer wrong. False: such a unit is not compared.
    Raises:
        DataError: if the gold states no number.
    """
    right, problem, _ = find_number(gold if isinstance(gold, str) else repr_number(gold))
    if right is None:
        raise DataError(f"The gold answer {str(gold)[:60]!r} is no number ({problem}). Grade such answers with symbolic or normalized.")
    found, problem, notes = find_number(text, unmarked=unmarked)
    if found is None:
        return Verdict("no answer", problem)
    return compare(found, right, notes=notes, require_unit=require_unit)


def repr_number(gold: Any) -> str:
    """A gold that is a number rather than text: 51.0 is "51", so that the decimals of a float mean nothing."""
    if isinstance(gold, float) and gold.is_integer():
        return str(int(gold))
    return format(gold, "f").rstrip("0") if isinstance(gold, float) and "e" in repr(gold) else str(gold)


def find_number(text: str, *, unmarked: bool = True) -> tuple[Quantity | None, str, tuple[str, ...]]:
    """The number a text states, or why there is none; and what a verdict must say about the choice."""
    stated = stated_answer(text)
    if stated is None:
        return None, _nothing(text), ()
    if stated.mark != "none":
        found, problem = read_number(stated)
        return found, problem, stated.notes
    whole, problem = read_number(Stated(stated.text, "boxed", 0))
    if whole is not None and _covers(whole, stated.text):
        return whole, "", ()
    if not unmarked:
        return None, "no answer is marked", ()
    plain = plain_text(stated.text)
    quantities = read_quantities(plain, lists=True)
    if not quantities:
        return None, problem, ()
    found, problem = _choose(quantities, plain, last=True, delimited=False)
    return found, problem, ("nothing is marked as the answer; the last number counts",)


def read_number(stated: Stated) -> tuple[Quantity | None, str]:
    """The number in a stated answer, or why there is none."""
    plain = plain_text(stated.text)
    quantities = read_quantities(plain)
    if not quantities:
        words = read_words(plain)
        return words, "" if words else f"no number in {stated.text[:60]!r}"
    return _choose(quantities, plain, last=stated.mark != "words", delimited=True)


def compare(found: Quantity, gold: Quantity, *, notes: tuple[str, ...] = (), require_unit: bool = False) -> Verdict:
    """Two numbers with their units, symmetric but for the order of words in the reason."""
    if found.kind != gold.kind:
        return Verdict("wrong", f"{found} is a {found.kind} and {gold} is a {gold.kind}")
    if found.kind == "time of day":
        if found.half is None or gold.half is None:
            notes += () if found.half == gold.half else ("am or pm is stated on one side only and not compared",)
            return compared(found.value == gold.value, found, gold, notes)
        return compared((found.value, found.half) == (gold.value, gold.half), found, gold, notes)
    first, second = found.unit, gold.unit
    if found.dozens != gold.dozens:
        dozens, other = (found, gold) if found.dozens else (gold, found)
        if other.unit is None and dozens.value == other.value * 12:
            return compared(True, found, gold, (*notes, "both count dozens"))
    if first is None and second is None:
        return compared(_equal(found, gold), found, gold, notes)
    if first is None or second is None:
        if require_unit:
            return Verdict("wrong", f"{found} against {gold}: only one of them states a unit")
        unit = first or second
        assert unit is not None
        bare, with_unit = (found, gold) if first is None else (gold, found)
        share = replace(
            with_unit, value=with_unit.value * unit.factor, decimals=None if with_unit.decimals is None else with_unit.decimals + 2
        )
        percent = dict(unit.powers) == {"percent": 1} and _equal(bare, share)
        notes += (f"the unit {unit.name!r} is stated on one side only and not compared",)
        return compared(percent or _equal(found, gold), found, gold, notes)
    if first.powers and second.powers:
        if first.powers != second.powers:
            return Verdict("wrong", f"the units of {found} and {gold} differ")
        if first.factor == second.factor:
            return compared(_equal(found, gold), found, gold, notes)
        return compared(found.value * first.factor == gold.value * second.factor, found, gold, notes)
    if not first.powers and not second.powers:
        if not same_words(first, second):
            return Verdict("wrong", f"the units of {found} and {gold} differ")
        return compared(_equal(found, gold), found, gold, notes)
    words, measure = (first, second) if first.words else (second, first)
    if words.words == {"pound"} and measure.name.rstrip("s") in ("£", "GBP", "lb"):
        return compared(_equal(found, gold), found, gold, notes)
    return Verdict("wrong", f"the units of {found} and {gold} differ")


def _equal(first: Quantity, second: Quantity) -> bool:
    """Exactly equal; or one is a decimal of two places or more and the other's value rounded to them, which no decimal can write."""
    if first.value == second.value:
        return True
    for decimal, other in ((first, second), (second, first)):
        endless = not _terminates(other.value)
        if endless and decimal.decimals is not None and decimal.decimals >= 2:
            return abs(decimal.value - other.value) * 2 <= Fraction(1, 10**decimal.decimals)
    return False


def _terminates(value: Fraction) -> bool:
    bottom = value.denominator
    for prime in (2, 5):
        while bottom % prime == 0:
            bottom //= prime
    return bottom == 1


def _choose(quantities: list[Quantity], plain: str, *, last: bool, delimited: bool) -> tuple[Quantity | None, str]:
    """The stated one of several numbers.

    Args:
        last: True takes the last chain of numbers. False takes the first.
        delimited: True: a list of numbers and nothing else states none of them. False: only "or" between numbers does.
    """
    runs = _runs(quantities, plain)
    if delimited and len(quantities) > 1 and len({(q.value, q.unit and q.unit.powers) for q in quantities}) > 1:
        gaps = [plain[a.end : b.start] for a, b in zip(quantities, quantities[1:])]
        edges = plain[: quantities[0].start] + plain[quantities[-1].end :]
        if not re.search(r"\w", edges) and all(_HEDGE.fullmatch(gap) for gap in gaps) and any("-" not in gap for gap in gaps):
            return None, f"{plain.strip()[:60]!r} states several numbers"
    index = len(runs) - 1 if last else _end_of_chains(runs, plain)
    run = runs[index]
    for near in (index - 1, index):
        if 0 <= near < len(runs) - 1:
            a, b = runs[near][-1], runs[near + 1][0]
            if _OR.fullmatch(plain[a.end : b.start]) and a.value != b.value:
                return None, f"{plain[a.start : b.end]!r} states several numbers"
    chosen = run[-1]
    start = run[0].start
    if chosen.kind == "unreadable":
        return None, f"{plain[chosen.start : min(chosen.end + 12, chosen.start + 60)].strip()!r} is no plain number"
    tail = _tail(run, plain)
    if len(tail) > 1:
        return None, f"{plain[tail[0].start : tail[-1].end]!r} is an expression, not a number"
    if _RELATION.search(plain[: chosen.start]) or (len(run) == 1 and _RELATION.search(plain[:start])):
        return None, f"{plain[max(chosen.start - 3, 0) : chosen.end].strip()!r} is a relation, not a number"
    behind = plain[chosen.end :]
    if re.match(r"\s*[*/^=]\s*[\w\\(]|\+(?!\s*\d)", behind) and not re.match(r"\s*\*\s*(?:\n|$)", behind):
        return None, f"{plain[chosen.start : chosen.end + 10].strip()!r} is part of an expression"
    return chosen, ""


def _runs(quantities: list[Quantity], plain: str) -> list[list[Quantity]]:
    """Numbers joined by operators and equals signs."""
    runs = [[quantities[0]]]
    for before, quantity in zip(quantities, quantities[1:]):
        gap = plain[before.end : quantity.start]
        joins = gap.strip() and all(_OPERATORS.fullmatch(part) for part in re.split(r"[=≈]|->|→", gap))
        part_of = ("/" in before.text or "%" in before.text) and gap.strip() == "of"
        if joins or part_of or ("=" in gap and "\n" not in gap and len(gap) < 40):
            runs[-1].append(quantity)
        else:
            runs.append([quantity])
    return runs


def _end_of_chains(runs: list[list[Quantity]], plain: str) -> int:
    """The first run; where it is a sum worked out, the last one of those that follow it directly ("100 - 40 = 60, 60 / 2 = 30")."""
    worked = [len(run) > 1 and "=" in plain[run[0].end : run[-1].start] for run in runs]
    index = 0
    while index + 1 < len(runs) and worked[index] and worked[index + 1]:
        if not re.fullmatch(r"\s*[,;]?\s*(?:(?:and|so|then)\s*)*", plain[runs[index][-1].end : runs[index + 1][0].start]):
            break
        index += 1
    return index


def _tail(run: list[Quantity], plain: str) -> list[Quantity]:
    """The part of a run after its last equals sign."""
    tail = [run[-1]]
    for before, quantity in zip(reversed(run[:-1]), reversed(run[1:])):
        if re.search(r"[=≈→]|->", plain[before.end : quantity.start]):
            break
        tail.insert(0, before)
    return tail


def _covers(found: Quantity, text: str) -> bool:
    """Whether the text is this number and nothing else."""
    return len(re.sub(r"[\s$*.\\]", "", plain_text(text))) <= len(re.sub(r"[\s$*.\\]", "", found.text))


def _nothing(text: str) -> str:
    return "the thinking never ends" if without_thinking(text) is None else "the text is empty"
