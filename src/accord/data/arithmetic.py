"""A made task that needs visible steps: chains of small-integer arithmetic, with their worked steps and answers.

"Start with 7. Add 5. Multiply by 2. Subtract 3. What is the result?" is 7 + 5 = 12, 12 * 2 = 24, 24 - 3 = 21. The same seed gives the
same problems on every machine; whether a problem is for training or held out is a hash of its text, so the two never share one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from accord.errors import ConfigError
from accord.types import Completion, Example, Message, content_hash

Split = Literal["train", "heldout"]
Operation = Literal["+", "-", "*"]
_SIGNS: tuple[Operation, ...] = ("+", "-", "*")
_SAID: dict[str, str] = {"+": "Add {}.", "-": "Subtract {}.", "*": "Multiply by {}."}
HELD_OUT_SHARE = 0.25
"""Of all problems there are, by their hash."""
IDLE_DRAWS = 2000
"""Draws in a row without a new problem after which there are no more."""


@dataclass(frozen=True)
class Chain:
    """One problem: a number and what is done to it, in order."""

    start: int
    operations: tuple[tuple[Operation, int], ...]

    @property
    def question(self) -> str:
        """The problem in words."""
        said = " ".join(_SAID[operation].format(number) for operation, number in self.operations)
        return f"Start with {self.start}. {said} What is the result?"

    @property
    def values(self) -> list[int]:
        """The number at the start and after each operation."""
        found = [self.start]
        for operation, number in self.operations:
            found.append(applied(operation, found[-1], number))
        return found

    @property
    def steps(self) -> list[str]:
        """One line an operation: "12 * 2 = 24"."""
        values = self.values
        return [step(operation, before, number, after) for (operation, number), before, after in zip(self.operations, values, values[1:])]

    @property
    def split(self) -> Split:
        """Which of the two sets the problem belongs to, whatever the seed."""
        return "heldout" if int(content_hash(["chain", self.question], 8), 16) < HELD_OUT_SHARE * 16**8 else "train"


def chains(
    count: int,
    *,
    seed: int = 0,
    steps: tuple[int, int] = (2, 4),
    largest: int = 20,
    largest_factor: int = 5,
    limit: int = 200,
    negative: bool = False,
    split: Split | None = None,
) -> list[Chain]:
    """Different problems, the same for the same arguments.

    Args:
        count: how many.
        steps: least and most operations, at least 2: one step needs no working.
        largest: largest start and largest number to add or subtract, from 1 (start) and 1.
        largest_factor: largest number to multiply by, from 2.
        limit: no value on the way is larger than this, in absolute value.
        negative: True lets values fall below 0. False keeps them at 0 or more.
        split: "train" or "heldout" for one of the two sets, which share no problem; None for both.
    Raises:
        ConfigError: if an argument is out of range, or there are fewer different problems than `count`.
    """
    if not 2 <= steps[0] <= steps[1]:
        raise ConfigError(f"chains: steps={steps} must be two numbers, 2 or more, the smaller first.")
    if largest < 1 or largest_factor < 2 or limit < largest:
        raise ConfigError(
            f"chains: largest={largest} must be 1 or more, largest_factor={largest_factor} 2 or more, limit={limit} not below largest."
        )
    if split not in (None, "train", "heldout"):
        raise ConfigError(f'chains: split={split!r} must be "train", "heldout" or None.')
    found: dict[str, Chain] = {}
    attempt = newest = 0
    while len(found) < count and attempt - newest < IDLE_DRAWS:
        attempt += 1
        made = _made(_Draws("chain", seed, attempt), steps, largest, largest_factor, limit, negative)
        if split in (None, made.split) and made.question not in found:
            found[made.question], newest = made, attempt
    if len(found) < count:
        raise ConfigError(
            f"chains: only {len(found)} different problems were found and count={count} are asked for. Raise steps, largest or limit."
        )
    return list(found.values())


def arithmetic_prompts(problems: Sequence[Chain], *, instruction: str = "") -> list[Example]:
    """Problems as prompts, with the columns `answer` (text), `steps` (worked lines) and `split`.

    Args:
        instruction: said after the question, on a line of its own: how to answer.
    """
    return [
        Example("prompt", (Message("user", _asked(one, instruction)),), plain=True, columns=_columns(one), where=f"chain {number}")
        for number, one in enumerate(problems, start=1)
    ]


def arithmetic_solutions(problems: Sequence[Chain], *, instruction: str = "", worked: bool = True) -> list[Example]:
    """Problems with their right answers as demonstrations.

    Args:
        instruction: see `arithmetic_prompts`.
        worked: True writes a line a step and the answer behind "#### ". False writes the answer alone: a forced direct answer.
    """
    found: list[Example] = []
    for number, one in enumerate(problems, start=1):
        stated = answer(one.values[-1])
        text = "\n".join([*one.steps, stated]) if worked else stated
        completion = Completion((Message("assistant", text),), source={"kind": "rule"})
        prompt = (Message("user", _asked(one, instruction)),)
        found.append(Example("demonstration", prompt, (completion,), plain=True, columns=_columns(one), where=f"chain {number}"))
    return found


ERRORS = ("slip", "operation", "copy")
MORE_ERRORS = ("operand", "skip", "answer")
"""Ways to go wrong that a model has of its own; the last two need the line with the answer."""


def planted_errors(
    problems: Sequence[Chain],
    *,
    seed: int = 0,
    share: float = 0.5,
    errors: Sequence[str] = ERRORS,
    after: Literal["none", "wrong"] = "none",
    answer_line: bool = False,
    instruction: str = "",
) -> list[Example]:
    """Solutions with a label a step, some with one planted error, for process reward models (kind "steps").

    A slip writes a result that is off by 1 to 3 or by 10; operation does another operation than asked; copy starts from another number
    than the line before ended with; operand takes another number than asked; skip leaves an operation out; answer states another number
    than the last line ended with. What follows is worked out rightly from the wrong value, so the answer is wrong too; where an error of
    the kind that was drawn would not make it wrong, it is a slip. Columns: `answer` (right), `stated` (what the solution ends with),
    `first_error` (index from 0, None without one), `error`.

    Args:
        seed: which solutions get an error, and which.
        share: of solutions with an error, 0 to 1 (each is drawn for itself).
        errors: kinds to plant, of `ERRORS` and `MORE_ERRORS`.
        after: label of the steps after the error: "none" is not judged, "wrong" is -1.
        answer_line: True closes each solution with "#### " and its answer, a step of its own. skip and answer need it.
    Raises:
        ConfigError: if an argument is not one of these.
    """
    if not 0 <= share <= 1 or not errors or any(one not in ERRORS + MORE_ERRORS for one in errors) or after not in ("none", "wrong"):
        raise ConfigError(
            f"planted_errors: share={share} must be 0 to 1, errors={list(errors)} some of {[*ERRORS, *MORE_ERRORS]}, "
            f'after={after!r} "none" or "wrong".'
        )
    if not answer_line and {"skip", "answer"} & set(errors):
        raise ConfigError(f"planted_errors: errors={list(errors)} has skip or answer, which need answer_line=True.")
    found: list[Example] = []
    for number, one in enumerate(problems, start=1):
        draws = _Draws("error", seed, one.question)
        place = draws.below(len(one.operations)) if draws.below(10**6) < share * 10**6 else None
        kind = errors[draws.below(len(errors))] if place is not None else None
        lines, stated = (one.steps, one.values[-1]) if place is None or kind is None else _wrong(one, place, kind, draws)
        if stated == one.values[-1] and place is not None:
            kind = "slip"
            lines, stated = _wrong(one, place, kind, draws)
        if answer_line:
            lines = [*lines, answer(stated)]
        first = _first_difference(lines, [*one.steps, answer(one.values[-1])])
        later = None if after == "none" else -1
        labels = tuple(1 if first is None or index < first else -1 if index == first else later for index in range(len(lines)))
        columns = {"answer": str(one.values[-1]), "stated": str(stated), "first_error": first, "error": kind, "split": one.split}
        completion = Completion(tuple(Message("assistant", line) for line in lines), source={"kind": "rule"})
        prompt = (Message("user", _asked(one, instruction)),)
        found.append(Example("steps", prompt, (completion,), step_labels=labels, plain=True, columns=columns, where=f"chain {number}"))
    return found


def answer(value: int) -> str:
    """The line that states the answer."""
    return f"#### {value}"


def applied(operation: Operation, value: int, number: int) -> int:
    """The value after one operation."""
    return value + number if operation == "+" else value - number if operation == "-" else value * number


def step(operation: Operation, before: int, number: int, after: int) -> str:
    """One worked line."""
    return f"{before} {operation} {number} = {after}"


def _made(draws: _Draws, steps: tuple[int, int], largest: int, largest_factor: int, limit: int, negative: bool) -> Chain:
    value = start = 1 + draws.below(largest)
    operations: list[tuple[Operation, int]] = []
    for _ in range(steps[0] + draws.below(steps[1] - steps[0] + 1)):
        possible: list[tuple[Operation, int]] = [("+", n) for n in range(1, largest + 1) if value + n <= limit]
        lowest = -limit if negative else 0
        possible_minus: list[tuple[Operation, int]] = [("-", n) for n in range(1, largest + 1) if value - n >= lowest]
        possible_times: list[tuple[Operation, int]] = [("*", n) for n in range(2, largest_factor + 1) if value and abs(value * n) <= limit]
        kinds = [kind for kind in (possible, possible_minus, possible_times) if kind]
        chosen = kinds[draws.below(len(kinds))]
        operations.append(chosen[draws.below(len(chosen))])
        value = applied(operations[-1][0], value, operations[-1][1])
    return Chain(start, tuple(operations))


def _wrong(one: Chain, place: int, kind: str, draws: _Draws) -> tuple[list[str], int]:
    """The worked lines with an error at operation `place`, and what they end with."""
    lines, value = one.steps[:place], one.values[place]
    operation, number = one.operations[place]
    right = one.values[place + 1]
    if kind == "answer":
        others = [other for other in one.values if other != one.values[-1]] or [one.values[-1] + 1]
        return one.steps, others[draws.below(len(others))]
    if kind == "operation":
        possible: list[Operation] = [other for other in _SIGNS if other != operation and applied(other, value, number) != right]
        other = possible[draws.below(len(possible))]
        value = applied(other, value, number)
        lines.append(step(other, one.values[place], number, value))
    elif kind == "operand":
        numbers = sorted({one.start, value, *(given for _, given in one.operations)} - {number})
        taken = numbers[draws.below(len(numbers))] if numbers else number + 1
        lines.append(step(operation, value, taken, applied(operation, value, taken)))
        value = applied(operation, value, taken)
    elif kind == "copy":
        copied = value + (1, -1, 2, 10)[draws.below(4)]
        value = applied(operation, copied, number)
        lines.append(step(operation, copied, number, value))
    elif kind == "slip":
        off = (1, -1, 2, -2, 3, 10, -10)[draws.below(7)]
        lines.append(step(operation, value, number, right + off))
        value = right + off
    for operation, number in one.operations[place + 1 :]:
        lines.append(step(operation, value, number, applied(operation, value, number)))
        value = applied(operation, value, number)
    return lines, value


def _first_difference(lines: Sequence[str], right: Sequence[str]) -> int | None:
    """The first line that is not the right one; None if all are."""
    return next((index for index, (line, other) in enumerate(zip(lines, right, strict=False)) if line != other), None)


def _asked(one: Chain, instruction: str) -> str:
    return f"{one.question}\n{instruction}" if instruction else one.question


def _columns(one: Chain) -> dict[str, Any]:
    return {"answer": str(one.values[-1]), "steps": one.steps, "split": one.split}


class _Draws:
    """Whole numbers that depend on a key and on how many were drawn, nothing else."""

    def __init__(self, *key: object) -> None:
        self.key, self.drawn = "|".join(str(part) for part in key), 0

    def below(self, count: int) -> int:
        self.drawn += 1
        digest = hashlib.blake2b(f"{self.key}|{self.drawn}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") % count
