"""Whether a row of an export is what its type says, before anything is made of it: a file that somebody hands in may say anything."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from accord.data.value_checks import is_integer, is_number
from accord.errors import DataError

MOST = 2**31
"""Whole numbers below it fit into every database."""
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def check_shape(row: Mapping[str, Any], kind: type, where: str) -> None:
    """Every field that the row has is of the type that the dataclass says.

    Args:
        kind: the dataclass.
        where: file and row, for the message.
    Raises:
        DataError: naming the first field that is something else.
    """
    wrong = _in_record(row, kind, "")
    if wrong is not None:
        field, wanted = wrong
        raise DataError(f'{where} is no {kind.__name__}: field "{field}" must be {wanted}. Export it again.')


def _in_record(row: Mapping[str, Any], kind: type, inside: str) -> tuple[str, str] | None:
    """The first field that is something else, and what it must be."""
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name in row:
            wrong = _wrong(row[field.name], hints[field.name], f"{inside}{field.name}")
            if wrong is not None:
                return wrong
    return None


def _wrong(value: object, hint: Any, name: str) -> tuple[str, str] | None:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        found = [_wrong(value, one, name) for one in inner if one is not type(None)]
        return None if value is None or None in found else found[0]
    if origin is Literal:
        return None if isinstance(value, str) and value in inner else (name, f"one of {', '.join(inner)}")
    if origin is tuple:
        if not isinstance(value, list):
            return name, "a list"
        places = enumerate(cast("list[object]", value))
        return next(filter(None, (_wrong(one, inner[0], f"{name}[{place}]") for place, one in places)), None)
    if origin is dict:
        return None if isinstance(value, Mapping) else (name, "an object")
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            return name, "an object"
        return _in_record(cast("Mapping[str, Any]", value), cast("type", hint), f"{name}.")
    return None if _plain(value, hint) else (name, _WORDS[hint])


def _plain(value: object, hint: Any) -> bool:
    if hint is int:
        return is_integer(value) and abs(cast("int", value)) < MOST
    if hint is float:
        return is_number(value) and math.isfinite(cast("float", value))
    return isinstance(value, hint)
