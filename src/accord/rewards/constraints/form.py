"""Constraints on form: JSON, titles, highlights, lists, sections, tables, code, and a choice of fixed answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from accord.rewards.constraints.relations import compare
from accord.rewards.constraints.text import bullets, numbered

_FENCE = re.compile(r"\A\s*```[\w+-]*[ \t]*\n(.*?)\n?[ \t]*```\s*\Z", re.DOTALL)
_CHOICES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_TABLE_RULE = re.compile(r"^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)+\|?\s*$|^\s*\|\s*:?-+:?\s*\|\s*$")
_MARKDOWN = re.compile(r"^ {0,3}#{1,6}\s|\*\*|__|```|^[ \t]*[-*+•]\s|^[ \t]*>|\[[^\[\]]+\]\([^)]+\)", re.MULTILINE)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _json(answer: str) -> tuple[bool, Any]:
    """Whether the whole answer, with or without one code fence around it, is JSON (NaN and Infinity are none), and its value."""
    fenced = _FENCE.match(answer)
    try:
        return True, json.loads((fenced.group(1) if fenced else answer).strip(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False, None


def json_format(answer: str) -> bool:
    """The whole answer is JSON, with or without one code fence around it. A bare number or string is JSON too."""
    return _json(answer)[0]


def json_keys(answer: str, *, keys: list[str]) -> bool:
    """The whole answer is a JSON object that has at least these keys."""
    _, value = _json(answer)
    return isinstance(value, dict) and set(keys) <= set(value)


def title(answer: str) -> bool:
    """Somewhere stands a title in double angular brackets, on one line and not empty: <<like this>>."""
    return any(found.strip("> \t") for found in re.findall(r"<<([^\n<]*?)>>", answer))


def number_highlighted_sections(answer: str, *, num_highlights: int) -> bool:
    """At least so many stretches between asterisks, *one* or **two** (or three) on each side, on one line and not empty. A `* ` bullet is none."""
    return len(re.findall(r"(?<!\*)(\*{1,3})(?![\s*])[^*\n]*(?<!\s)\1(?!\*)", answer)) >= num_highlights


def multiple_sections(answer: str, *, section_spliter: str, num_sections: int) -> bool:
    """At least so many sections that each begin with the marker and a number: "SECTION 1". Case counts; the same number twice counts once."""
    return len(set(re.findall(rf"(?<!\w){re.escape(section_spliter.strip())}\s*(\d+)", answer))) >= num_sections


def number_bullet_lists(answer: str, *, num_bullets: int) -> bool:
    """Exactly so many bullet lines (`*`, `-`, `+` or `•`); nested ones count."""
    return len(bullets(answer)) == num_bullets


def bullet_count(answer: str, *, relation: str, num_bullets: int) -> bool:
    """The number of bullet lines, in a relation."""
    return compare(len(bullets(answer)), relation, num_bullets)


def only_bullets(answer: str) -> bool:
    """Every line with something on it is a bullet line."""
    full = [line for line in answer.splitlines() if line.strip()]
    return bool(full) and len(bullets(answer)) == len(full)


def numbered_list(answer: str, *, num_items: int) -> bool:
    """Exactly so many numbered lines, and their numbers are 1, 2, 3 ... in order."""
    digits = [re.findall(r"\d+", line)[0] for line in numbered(answer)]
    found = [int(one) if len(one) < 10 else 0 for one in digits]  # Python refuses to read thousands of digits
    return found == list(range(1, num_items + 1))


def table(answer: str, *, num_rows: int | None = None) -> bool:
    """A markdown table: a header line, a line of dashes with as many columns, rows below. With num_rows, exactly so many rows in the first one."""
    rows = answer.splitlines()
    for index in range(1, len(rows)):
        if not _TABLE_RULE.match(rows[index]) or "|" not in rows[index - 1]:
            continue
        columns = _cells(rows[index])
        if _cells(rows[index - 1]) != columns:
            continue
        body = 0
        while index + 1 + body < len(rows) and "|" in rows[index + 1 + body] and _cells(rows[index + 1 + body]) == columns:
            body += 1
        return body > 0 if num_rows is None else body == num_rows
    return False


def _cells(line: str) -> int:
    line = line.strip().removeprefix("|")
    return len(re.sub(r"(?<!\\)\|$", "", line).replace("\\|", "").split("|"))


def code_block(answer: str, *, language: str | None = None) -> bool:
    """A closed code fence with something inside; with language, the fence names it (any case)."""
    found = re.findall(r"^[ \t]*```([\w+#-]*)[^\n]*\n(.*?)^[ \t]*```[ \t]*$", answer, re.DOTALL | re.MULTILINE)
    return any(body.strip() and (language is None or name.lower() == language.lower()) for name, body in found)


def no_markdown(answer: str) -> bool:
    """Plain text: no heading, bold, fence, bullet, quotation or link of markdown. Numbered lines and single asterisks are allowed."""
    return not _MARKDOWN.search(answer)


def heading(answer: str, *, num_headings: int) -> bool:
    """Exactly so many markdown headings (`# ` to `###### `) with words."""
    return len(re.findall(r"^ {0,3}#{1,6}[ \t]+\S", answer, re.MULTILINE)) == num_headings


def constrained_response(answer: str) -> bool:
    """One of the sentences "My answer is yes.", "My answer is no.", "My answer is maybe." occurs, letter for letter, and no second one of them."""
    return sum(choice in answer for choice in _CHOICES) == 1


def choice(answer: str, *, choices: list[str]) -> bool:
    """The whole answer is one of the choices; case, white space and a full stop at the end do not matter."""
    return answer.strip().rstrip(".").lower() in {item.strip().rstrip(".").lower() for item in choices}


KINDS: dict[str, Callable[..., bool]] = {
    "detectable_format:json_format": json_format,
    "detectable_format:json_keys": json_keys,
    "detectable_format:title": title,
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:bullets": bullet_count,
    "detectable_format:only_bullets": only_bullets,
    "detectable_format:numbered_list": numbered_list,
    "detectable_format:table": table,
    "detectable_format:code_block": code_block,
    "detectable_format:no_markdown": no_markdown,
    "detectable_format:heading": heading,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:choice": choice,
}
