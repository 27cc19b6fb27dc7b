r"""Grading by mathematics: expressions, sets, intervals and matrices that are equal however they are written, through math-verify.

What is one number is graded as one (`numeric.compare`), because math-verify drops units and takes 50 % for 50 and 0.5 alike. A unit
behind an expression is compared by the same rules as behind a number. An expression may make sympy work without end: in training
these graders run in a `GraderProcess`.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from accord.errors import DataError, MachineError
from accord.rewards.matching import normalized
from accord.rewards.numeric import compare, read_number
from accord.rewards.plain import plain_text
from accord.rewards.quantities import Quantity
from accord.rewards.stated import Stated, stated_answer, stated_answers, without_thinking
from accord.rewards.units import Unit, read_unit, same_words
from accord.rewards.verdicts import Verdict, compared

_SEGMENTS = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<![\\$])\$(?=\S)([^$\n]+?)(?<=\S)\$(?!\d)", re.DOTALL)
_UNIT_BEHIND = re.compile(r"\\(?:text|mathrm|textrm|mbox|operatorname)\s*\{([^{}]*)\}\s*(\^\s*\{?\s*\d\s*\}?)?\s*$")
_WORDS_ONLY = re.compile(r"[A-Za-z][A-Za-z' -]+")
_BASE = re.compile(r"([0-9A-Za-z]+)_\{?(\d+)\}?")


def grade_symbolic(text: str, gold: Any) -> Verdict:
    r"""Whether the expression that a text states is equal to the gold one.

    Without a mark (see `stated`) the last formula between dollars or \[ \] counts, else the last line. `x = 5` is 5. Swapping gold and
    answer gives the same outcome.

    Raises:
        DataError: if the gold is no expression and no word.
        MachineError: if math-verify is not installed.
    """
    return _grade(text, gold, boxed=False)


def grade_boxed(text: str, gold: Any) -> Verdict:
    r"""The same of the last \boxed{...} alone; a text without one has no answer.

    Raises:
        DataError: if the gold is no expression and no word.
        MachineError: if math-verify is not installed.
    """
    return _grade(text, gold, boxed=True)


def prepare() -> None:
    """Import math-verify now, so that the first answer's time is its own.

    Raises:
        MachineError: if it is not installed.
    """
    _math_verify()


def has_expression(text: str) -> bool:
    """Whether a text states something that `grade_symbolic` can compare."""
    stated = _stated(text, boxed=False)
    return stated is not None and (_number(stated.text) is not None or bool(_word(stated.text)) or bool(_parsed(stated.text)))


def _grade(text: str, gold: Any, *, boxed: bool) -> Verdict:
    right = _content(gold)
    stated = _stated(text, boxed=boxed)
    if not right.strip():
        raise DataError(f"The gold answer {gold!r} is empty.")
    if stated is None or not stated.text.strip():
        missing = "no \\boxed{...} is stated" if boxed else "the stated answer is empty"
        return Verdict("no answer", "the thinking never ends" if without_thinking(text) is None else missing)
    return _compare(stated, right)


def _compare(stated: Stated, right: str) -> Verdict:
    found_number, gold_number = _number(stated.text), _number(right)
    if found_number is not None and gold_number is not None:
        return compare(found_number, gold_number, notes=stated.notes)
    found_word, gold_word = _word(stated.text), _word(right)
    if found_word and not gold_word and stated.mark == "none":
        return Verdict("no answer", f"{stated.text[:60]!r} states no expression")
    if gold_word or found_word:
        return compared(found_word == gold_word, repr(stated.text[:60]), repr(right[:60]), stated.notes)
    if bases := _bases(stated.text, right):
        return compared(bases[0] == bases[1], stated.text, right, stated.notes)
    (found, found_unit), (expected, gold_unit) = _split_unit(stated.text), _split_unit(right)
    notes = stated.notes
    if found_unit and gold_unit and not _same_unit(found_unit, gold_unit):
        return Verdict("wrong", f"the units of {stated.text[:60]} and {right[:60]} differ")
    if bool(found_unit) != bool(gold_unit):
        unit = found_unit or gold_unit
        notes += (f"the unit {unit.name if unit else ''!r} is stated on one side only and not compared",)
    expected_parsed = _parsed(expected)
    if not expected_parsed:
        raise DataError(
            f"The gold answer {right[:60]!r} is no expression that math-verify reads. Grade such answers with normalized or exact."
        )
    found_parsed = _parsed(found)
    if not found_parsed:
        return Verdict("no answer", f"{stated.text[:60]!r} is no expression that math-verify reads")
    return compared(_equal(found_parsed, expected_parsed), stated.text[:80], right[:80], notes)


def _stated(text: str, *, boxed: bool) -> Stated | None:
    stated = stated_answer(text)
    if boxed:
        rest = without_thinking(text)
        boxes = [one for one in stated_answers(rest or "") if one.mark == "boxed"]
        return Stated(boxes[-1].text, "boxed", len(boxes)) if boxes else None
    if stated is None:
        return None
    segments = [next(part for part in match.groups() if part) for match in _SEGMENTS.finditer(stated.text)]
    if stated.mark != "none":
        whole = stated.mark == "words" and segments
        return Stated(segments[0] if whole else _undollared(stated.text), stated.mark, stated.count)
    lines = [line for line in stated.text.splitlines() if line.strip()]
    content = segments[-1] if segments else lines[-1]
    return Stated(content.strip(), "none", 0)


def _content(gold: Any) -> str:
    """The gold expression: what it states where it is marked, else all of it."""
    stated = stated_answer(str(gold))
    return "" if stated is None else _undollared(stated.text)


def _undollared(text: str) -> str:
    match = _SEGMENTS.fullmatch(text.strip().rstrip("."))
    return next(part for part in match.groups() if part).strip() if match else text.strip()


def _number(text: str) -> Quantity | None:
    """The text as one number with its unit, if it is nothing else."""
    number, _ = read_number(Stated(text, "boxed", 1))
    rest = plain_text(text)
    return (
        number
        if number is not None and len(re.sub(r"\s|\.$", "", rest)) <= len(re.sub(r"\s|\.$", "", number.text)) + _assigned(rest)
        else None
    )


def _assigned(plain: str) -> int:
    """Characters of "x =" in front of a number."""
    match = re.match(r"\s*[a-zA-Z]\s*=", plain)
    return len(re.sub(r"\s", "", match.group())) if match else 0


def _word(text: str) -> str | None:
    r"""A text answer in lower case: \text{even}, Tuesday; None for anything with a sign of mathematics in it."""
    if re.search(r"\\(?!text|mathrm|mbox|textbf)", text):
        return None
    plain = plain_text(text).strip().rstrip(".")
    return normalized(plain) if _WORDS_ONLY.fullmatch(plain) and len(plain) > 1 else None


def _bases(first: str, second: str) -> tuple[Any, Any] | None:
    """Numbers in another base than ten, with the base where it is written; None if neither has one."""
    found = [_BASE.fullmatch(text.replace(" ", "")) for text in (first, second)]
    if not any(found) or not all(match or re.fullmatch(r"[0-9A-Za-z]+", text.strip()) for match, text in zip(found, (first, second))):
        return None
    if all(found):
        values = [(match.group(1).lower().lstrip("0"), match.group(2)) for match in found if match]
        return values[0], values[1]
    digits = [match.group(1) if match else text.strip() for match, text in zip(found, (first, second))]
    return digits[0].lower(), digits[1].lower()


def _split_unit(text: str) -> tuple[str, Unit | None]:
    match = _UNIT_BEHIND.search(text)
    if not match or not text[: match.start()].strip():
        return text, None
    unit, _ = read_unit(plain_text(match.group(1) + (match.group(2) or "")).strip())
    return (text[: match.start()].rstrip("\\ ,;~"), unit) if unit else (text, None)


def _same_unit(first: Unit, second: Unit) -> bool:
    if first.powers or second.powers:
        return first.powers == second.powers and first.factor == second.factor
    return same_words(first, second)


def _parsed(text: str) -> list[Any]:
    parse = _math_verify().parse
    return parse(f"${text}$", parsing_timeout=None, fallback_mode="no_fallback", raise_on_error=True)


def _equal(found: list[Any], expected: list[Any]) -> bool:
    verify = _math_verify().verify
    options: dict[str, Any] = {"timeout_seconds": None, "raise_on_error": True, "allow_set_relation_comp": True}
    if verify(expected, found, **options) or verify(found, expected, **options):
        return True
    imaginary = [[_with_imaginary_unit(one) for one in side] for side in (found, expected)]
    return imaginary != [found, expected] and bool(verify(imaginary[1], imaginary[0], **options))


def _with_imaginary_unit(expression: Any) -> Any:
    """The expression with the letter i as the imaginary unit, which math-verify takes for a name."""
    import sympy

    names = [name for name in getattr(expression, "free_symbols", ()) if name.name == "i"]
    return expression.subs(names[0], sympy.I) if names else expression


def _math_verify() -> Any:
    try:
        import math_verify
    except ImportError as error:
        raise MachineError("Grading mathematics needs math-verify: pip install 'accord[reasoning]'") from error
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of missing timeouts, which a GraderProcess keeps
    return math_verify
