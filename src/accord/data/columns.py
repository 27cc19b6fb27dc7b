"""Which column of a table plays which part: mappings given as `--columns`, guesses, and the error that prints the line to paste."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from accord.data.fields import Row, one_line
from accord.errors import ConfigError, DataError

SYNONYMS: dict[str, tuple[str, ...]] = {
    "system": ("system_prompt", "system_message"),
    "prompt": ("question", "query", "instruction", "input", "user", "user_input", "task", "problem", "request", "context"),
    "chosen": ("best", "better", "preferred", "good", "win", "winning", "accepted", "positive", "response_chosen", "chosen_response"),
    "rejected": (
        "worst",
        "worse",
        "dispreferred",
        "bad",
        "lose",
        "losing",
        "refused",
        "negative",
        "response_rejected",
        "rejected_response",
    ),
    "completion": ("answer", "response", "output", "reply", "target", "assistant", "solution", "generation"),
    "completions": ("answers", "responses", "outputs", "replies", "candidates", "steps"),
    "label": ("thumbs", "thumbs_up", "desirable", "good", "is_good", "liked"),
    "labels": ("step_labels", "ratings"),
    "ranks": ("ranking", "rank", "order"),
    "text": ("content", "body", "document", "story"),
    "messages": ("conversation", "dialogue", "dialog", "chat", "turns"),
    "winner": ("preference", "preferred", "verdict", "vote", "choice", "better", "label"),
    "answer_a": (),
    "answer_b": (),
    "margin": ("strength",),
    "strength": ("margin",),
    "probability": ("confidence",),
}
"""The parts a column can play, with other names that tables use for them."""

_SHORT = {"a": "answer_a", "b": "answer_b"}
_PARTS_OF_KIND = {
    "preference": (("prompt", "chosen", "rejected"), ("prompt", "answer_a", "answer_b", "winner")),
    "ranking": (("prompt", "completions", "ranks"), ("prompt", "chosen", "rejected"), ("prompt", "answer_a", "answer_b", "winner")),
    "labelled": (("prompt", "completion", "label"), ("prompt", "chosen", "rejected")),
    "steps": (("prompt", "completions", "labels"),),
    "demonstration": (("prompt", "completion"), ("messages",), ("prompt", "chosen", "rejected")),
    "prompt": (("prompt",),),
    "text": (("text",),),
}
_ANY_KIND = (*_PARTS_OF_KIND["preference"], ("prompt", "completion"), ("messages",), ("text",))
_SIDES = (("a", "b"), ("1", "2"), ("left", "right"), ("first", "second"), ("A", "B"), ("0", "1"))


def parse_columns(pairs: Iterable[str]) -> dict[str, str]:
    """`["prompt=question", "chosen=best"]` as {"prompt": "question", "chosen": "best"}.

    Raises:
        ConfigError: if a pair is not PART=COLUMN, the part is unknown, or a part or column is named twice.
    """
    columns: dict[str, str] = {}
    for pair in pairs:
        part, equals, column = (piece.strip() for piece in pair.partition("="))
        part = _SHORT.get(part, part)
        if not equals or not part or not column:
            raise ConfigError(f'--columns takes PART=COLUMN, for example --columns prompt=question; "{pair}" is not that.')
        if part not in SYNONYMS:
            close = difflib.get_close_matches(part, SYNONYMS, 1)
            hint = f' Did you mean "{close[0]}"?' if close else ""
            raise ConfigError(f'--columns: there is no part "{part}".{hint} The parts are {", ".join(SYNONYMS)}.')
        if part in columns or column in columns.values():
            raise ConfigError(
                f'--columns names the {"part" if part in columns else "column"} "{part if part in columns else column}" twice.'
            )
        columns[part] = column
    return columns


def map_row(row: Row, columns: Mapping[str, str], where: str) -> Row:
    """The row with each mapped column under the name of its part; an unmapped column of that name is kept as `original_NAME`.

    Raises:
        DataError: if a mapped column is missing; the message lists the columns and prints the mapping to paste.
    """
    for part, column in columns.items():
        if column not in row:
            close = difflib.get_close_matches(column, list(row), 1)
            guess = {**columns, part: close[0]} if close else guess_columns(row, None)
            paste = f" Try: {columns_line(guess)}" if guess else ""
            raise DataError(f'{where} has no column "{column}" (asked for as {part}). The columns are: {_listed(row)}.{paste}')
    mapped: Row = {part: row[column] for part, column in columns.items()}
    for name, value in row.items():
        if name not in columns.values():
            mapped[f"original_{name}" if name in mapped else name] = value
    return mapped


def from_one(row: Row, columns: Mapping[str, str], where: str) -> Row:
    """A mapped row whose winner is the number of one of two columns that are counted from 0, said as A or B: 1 would be the first elsewhere.

    Raises:
        DataError: if the winner is counted from 1 and the columns are not.
    """
    counted = columns.get("answer_a", "").endswith("0") and columns.get("answer_b", "").endswith("1")
    said = str(row.get("winner")).removesuffix(".0")
    if counted and said == "2":
        raise DataError(
            f'{where}: "{columns["winner"]}" is 2, and its answers are counted from 0 ({columns["answer_a"]}, {columns["answer_b"]}). Write A or B.'
        )
    return {**row, "winner": "AB"[int(said)]} if counted and said in ("0", "1") else row


def winner_columns(row: Mapping[str, object]) -> dict[str, str] | None:
    """The mapping of a table with a `winner` column and two answers, if the columns show plainly which they are."""
    named = next((name for name in row if name.lower() == "winner"), None)
    if named is None or "chosen" in row or "conversation_a" in row:
        return None
    guess = _guess_all(row, ("prompt", "answer_a", "answer_b"), taken={named})
    return {**guess, "winner": named} if guess else None


def complete(row: Mapping[str, object], columns: Mapping[str, str]) -> dict[str, str]:
    """A mapping with a winner but without the two answers, completed by a guess from the other columns."""
    if "winner" not in columns or {"answer_a", "answer_b"} <= set(columns):
        return dict(columns)
    missing = tuple(part for part in ("prompt", "answer_a", "answer_b") if part not in columns)
    guess = _guess_all({name: row[name] for name in row if name not in columns.values()}, missing, taken=set())
    return {**(guess or {}), **columns}


def guess_columns(row: Mapping[str, object], kind: str | None) -> dict[str, str] | None:
    """The nearest mapping for rows of a kind (None: of any kind), or None if the columns suggest nothing."""
    for parts in _PARTS_OF_KIND.get(kind or "", _ANY_KIND):
        guess = _guess_all(row, parts, taken=set())
        if guess:
            return guess
    return None


def unknown_columns(row: Mapping[str, object], kind: str | None, where: str) -> DataError:
    """The error for a table whose columns fit no layout (of the kind wanted), with the nearest guess as a line to paste."""
    wanted = f"a {kind} row" if kind else "any known layout"
    if {"model_a", "model_b"} <= set(row) and not _answer_columns(row):
        return DataError(
            f"{where} has votes on models but no texts to learn from. The columns are: {_listed(row)}. Join them with the answers."
        )
    guess = guess_columns(row, kind)
    if guess:
        return DataError(
            f"{where} does not have the columns of {wanted}. The columns are: {_listed(row)}. Nearest guess: {columns_line(guess)}"
        )
    parts = _PARTS_OF_KIND.get(kind or "", _ANY_KIND)[0]
    known = {part: column for part in parts if (column := _guess(row, part, set())) is not None}
    line = columns_line({part: known.get(part, "COLUMN") for part in parts})
    return DataError(f"{where} does not have the columns of {wanted}. The columns are: {_listed(row)}. Say which is which: {line}")


def columns_line(columns: Mapping[str, str]) -> str:
    """The mapping as it is typed: `--columns prompt=question chosen=best`."""
    changed = {part: column for part, column in columns.items() if part != column} or columns
    pairs = [f"{part}={column}" for part, column in changed.items()]
    return "--columns " + " ".join(f'"{pair}"' if re.search(r"[\s\"'$&|<>*?()]", pair) else pair for pair in pairs)


def _guess_all(row: Mapping[str, object], parts: tuple[str, ...], taken: set[str]) -> dict[str, str] | None:
    guess: dict[str, str] = {}
    taken = set(taken)
    if "answer_a" in parts:
        sides = _answer_columns({name: row[name] for name in row if name not in taken})
        if sides is None:
            return None
        taken |= set(sides)
        guess = {"answer_a": sides[0], "answer_b": sides[1]}
    for part in parts:
        if part not in guess:
            column = _guess(row, part, taken)
            if column is None:
                return None
            guess[part] = column
            taken.add(column)
    return {part: guess[part] for part in parts}


def _guess(row: Mapping[str, object], part: str, taken: set[str]) -> str | None:
    free = {name.lower().replace(" ", "_").replace("-", "_"): name for name in row if name not in taken}
    for name in (part, *SYNONYMS[part]):
        if name in free:
            return free[name]
    for name in (part, *SYNONYMS[part]):
        close = difflib.get_close_matches(name, free, 1, cutoff=0.8)
        if close:
            return free[close[0]]
    ending = [column for name, column in free.items() if name.endswith(f"_{part}") or name.startswith(f"{part}_")]
    return ending[0] if len(ending) == 1 else None


def _answer_columns(row: Mapping[str, object]) -> tuple[str, str] | None:
    for first, second in _SIDES:
        for name in row:
            if not isinstance(row[name], str) or name.lower().startswith("model"):
                continue
            for before, after in ((name.removesuffix(first), ""), ("", name.removeprefix(first))):
                other = f"{before}{second}{after}"
                if f"{before}{first}{after}" == name and other != name and isinstance(row.get(other), str):
                    return name, other
    return None


def _listed(row: Mapping[str, object]) -> str:
    names = [one_line(f'"{name}"') for name in row]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
