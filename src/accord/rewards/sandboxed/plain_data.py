"""Plain Python values as JSON and back: how arguments and results pass between tests and an answer without either running the other's code."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, defaultdict
from typing import Any, cast


class NotPlainError(TypeError):
    """A value that is no plain data, so it cannot pass."""


def pack(value: Any) -> Any:
    """A value as JSON-able data that keeps apart what JSON does not: tuple and list, int and float, NaN, sets, bytes, keys of any type.

    Only the exact built-in types pass (and Counter, OrderedDict and defaultdict, as the dict they equal): an object with an `__eq__` of its
    own that equals everything does not.

    Raises:
        NotPlainError: if the value is or holds anything else, or holds itself.
    """
    try:
        return _pack(value)
    except RecursionError:
        raise NotPlainError("a value that is nested too deeply or holds itself") from None


def _pack(value: Any) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -(2**63) < value < 2**63 else {"i": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"f": repr(value)}
    if kind is list:
        return [_pack(item) for item in value]
    if kind is tuple:
        return {"t": [_pack(item) for item in value]}
    if kind is set or kind is frozenset:
        return {"s" if kind is set else "z": [_pack(item) for item in value]}
    if kind in (dict, Counter, OrderedDict, defaultdict):
        return {"d": [[_pack(key), _pack(item)] for key, item in cast("dict[Any, Any]", value).items()]}
    if kind is bytes or kind is bytearray:
        return {"b" if kind is bytes else "a": bytes(value).hex()}
    if kind is complex:
        return {"c": [_pack(value.real), _pack(value.imag)]}
    if kind is range:
        return {"r": [value.start, value.stop, value.step]}
    raise NotPlainError(f"a value of type {kind.__name__}")


def unpack(data: Any) -> Any:
    """The inverse of `pack`.

    Raises:
        NotPlainError: if the data were not made by `pack`.
    """
    try:
        return _unpack(data)
    except (RecursionError, ValueError, TypeError, KeyError) as error:
        raise NotPlainError(f"data that are no packed value ({type(error).__name__})") from None


def _unpack(data: Any) -> Any:
    if not isinstance(data, (list, dict)):
        return data
    if isinstance(data, list):
        return [_unpack(item) for item in data]
    [(kind, inside)] = data.items()
    if kind == "i":
        return int(inside, 16)
    if kind == "f":
        return float(inside)
    if kind == "d":
        return {_unpack(key): _unpack(item) for key, item in inside}
    if kind in ("b", "a"):
        return bytes.fromhex(inside) if kind == "b" else bytearray.fromhex(inside)
    if kind == "c":
        return complex(*(_unpack(part) for part in inside))
    return {"t": tuple, "s": set, "z": frozenset, "r": lambda parts: range(*parts)}[kind](_unpack(item) for item in inside)
