"""What a constraint is: a checker with its arguments, and how a row in IFEval's layout becomes a list of them."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from accord.errors import DataError
from accord.rewards.constraints import combination, content, ends, form, keywords, lengths, letters
from accord.rewards.constraints.relations import RELATIONS


@dataclass(frozen=True)
class Checker:
    """One kind of constraint: its id, the function that decides it, and the arguments that function takes."""

    id: str
    function: Callable[..., bool]
    required: tuple[str, ...]
    types: Mapping[str, str]
    """Argument name to its annotation: str, int, list[str], or one of these with `| None`."""

    @property
    def about(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.function) or "").splitlines()[0]


def _checker(id: str, function: Callable[..., bool]) -> Checker:
    """A function `f(answer, *, ...) -> bool` under an id of IFEval's form `theme:name`: its keyword-only arguments are the kwargs."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    required = tuple(p.name for p in parameters if p.default is inspect.Parameter.empty)
    return Checker(id, function, required, {p.name: str(p.annotation) for p in parameters})


THEMES = (combination, content, ends, form, keywords, lengths, letters)
CHECKERS: dict[str, Checker] = {id: _checker(id, function) for theme in THEMES for id, function in theme.KINDS.items()}
"""Every checker by its id, in the order of the files; each file ends with the table of its own."""


@dataclass(frozen=True)
class Constraint:
    """One constraint of one prompt: which checker, with which arguments."""

    id: str
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])

    def holds(self, answer: str) -> bool:
        """Strict verdict: whether the answer as it is satisfies the constraint. An empty answer satisfies none."""
        return bool(answer.strip()) and CHECKERS[self.id].function(answer, **self.arguments)


def constraints_of(row: Mapping[str, Any], where: str = "A row") -> list[Constraint]:
    """The constraints of a row in IFEval's layout.

    Args:
        row: has `instruction_id_list`, a list of ids, and `kwargs`, a list of as many dictionaries; both also as JSON text. A kwarg that
            is null counts as not given, so rows that carry every key for every instruction read the same.
        where: what error messages call the row.
    Raises:
        DataError: if a column, an id or an argument is missing, unknown or of the wrong type. Names row, field and nearest name.
    """
    ids, arguments = (_list(row, name, where) for name in ("instruction_id_list", "kwargs"))
    if not ids:
        raise DataError(f"{where}: instruction_id_list is empty. Give at least one instruction id, or leave the row out.")
    if len(ids) != len(arguments):
        raise DataError(
            f"{where} has {len(ids)} instruction ids and {len(arguments)} kwargs. Give one dictionary for each id, {{}} for none."
        )
    return [_constraint(id, given, where) for id, given in zip(ids, arguments, strict=True)]


def _list(row: Mapping[str, Any], name: str, where: str) -> list[Any]:
    value = row.get(name)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, (list, tuple)):
        raise DataError(f'{where} has no list "{name}". Constraint rows need prompt, instruction_id_list, kwargs. See docs/data.md')
    return list(cast("list[Any]", value))


def _constraint(id: Any, given: Any, where: str) -> Constraint:
    if not isinstance(id, str) or id not in CHECKERS:
        raise DataError(f'{where}: unknown instruction id "{id}".{_nearest(str(id), list(CHECKERS))}')
    known = CHECKERS[id]
    if not isinstance(given, Mapping):
        raise DataError(f"{where}: the kwargs of {id} are {given!r} and must be a dictionary.")
    arguments = {str(name): value for name, value in given.items() if value is not None}
    for name in known.required:
        if name not in arguments:
            raise DataError(f'{where}: {id} has no "{name}" in its kwargs. It needs {", ".join(known.required)}.')
    for name, value in arguments.items():
        if name not in known.types:
            raise DataError(f'{where}: {id} takes no "{name}".{_nearest(name, list(known.types)) or " It takes no kwargs."}')
        arguments[name] = _typed(id, name, value, known.types[name], where)
    return Constraint(id, arguments)


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f' The nearest is "{close[0]}".' if close else ""


def _typed(id: str, name: str, value: Any, kind: str, where: str) -> Any:
    kind = kind.removesuffix(" | None")
    if kind == "int" and isinstance(value, float) and value.is_integer():
        value = int(value)  # tables with empty cells turn whole numbers into floats
    fits = {
        "int": isinstance(value, int) and not isinstance(value, bool) and value >= 0,
        "str": isinstance(value, str) and bool(value),
        "list[str]": isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(item, str) and item for item in value),
    }[kind]
    if not fits:
        wanted = {"int": "a whole number of 0 or more", "str": "text", "list[str]": "a list of texts"}[kind]
        raise DataError(f'{where}: "{name}" of {id} is {value!r} and must be {wanted}.')
    if name.endswith("relation") and value not in RELATIONS:
        raise DataError(f'{where}: "{name}" of {id} is {value!r}.{_nearest(str(value), list(RELATIONS))} Known are {", ".join(RELATIONS)}.')
    return value
