"""Typed access to the columns of one row, so that every layout says the same clear thing when a value is wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn, cast

from accord.errors import DataError
from accord.types import Message, Role

Row = dict[str, object]
"""One row of a table as it was read: column name to JSON value."""

MESSAGE_FIELDS = "message_fields"
"""Column that keeps what a chat message held besides role and content, as {"messages.0": {"name": ...}}."""

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_MESSAGES_AS_TEXT = re.compile(r"\s*\[\s*\{\s*['\"](?:role|content)['\"]\s*:")
_TRAINING_FIELDS = ("tool_calls", "function_call", "function_calls", "functions", "weight", "refusal")


class Fields:
    """A row with its place in a file; the accessors check types and remember which columns were taken.

    Args:
        row: the row as it was read.
        where: file and row for messages, `prefs.jsonl line 12`.
        needs: what this layout needs, in words: `Preference rows need prompt, chosen, rejected.`
    """

    def __init__(self, row: Mapping[str, object], where: str, needs: str = "") -> None:
        self.row = row
        self.where = where
        self.needs = needs
        self._taken: set[str] = set()
        self._message_fields: dict[str, object] = {}

    def fail(self, problem: str) -> NoReturn:
        """Raise a DataError that starts with file and row; a problem that begins with a verb follows it without a colon."""
        joint = " " if problem.split()[0] in ("has", "is", "needs", "ranks") else ": "
        raise DataError(one_line(f"{self.where}{joint}{problem}"))

    def has(self, name: str) -> bool:
        """True if the row states a value for the column; False if the column is missing or null."""
        return self.row.get(name) is not None

    def value(self, name: str) -> object:
        """The value of a column that must be there."""
        if name not in self.row:
            self.fail(f'has no "{name}". {self.needs}'.rstrip())
        self._taken.add(name)
        return self.row[name]

    def text(self, name: str) -> str:
        """A column that must hold text."""
        value = self.value(name)
        if not isinstance(value, str):
            self._wrong(name, "text", value)
        return value

    def optional_text(self, name: str) -> str:
        """Text, or "" when the column is missing, null or empty (such a column then stays among the other columns)."""
        value = self.row.get(name)
        if value is None or value == "":
            return ""
        return self.text(name)

    def items(self, name: str) -> list[object]:
        """A column that must hold a list."""
        value = self.value(name)
        if not isinstance(value, (list, tuple)):
            self._wrong(name, "a list", value)
        return list(cast("Sequence[object]", value))

    def texts(self, name: str) -> list[str]:
        """A column that must hold a list of texts."""
        values = self.items(name)
        for index, value in enumerate(values):
            if not isinstance(value, str):
                self._wrong(f"{name}[{index}]", "text", value)
        return [str(value) for value in values]

    def entries(self, name: str) -> Fields:
        """A column that must hold a list, as fields named by their index."""
        return Fields({str(index): value for index, value in enumerate(self.items(name))}, f'{self.where}: in "{name}"', self.needs)

    def record(self, name: str) -> Fields:
        """A column that must hold an object, as fields of its own."""
        value = self.value(name)
        if not isinstance(value, Mapping):
            self._wrong(name, "an object", value)
        return Fields(cast("Mapping[str, object]", value), f'{self.where}: in "{name}"', self.needs)

    def records(self, name: str) -> list[Fields]:
        """A column that must hold a list of objects, each as fields of its own."""
        found: list[Fields] = []
        for index, value in enumerate(self.items(name)):
            if not isinstance(value, Mapping):
                self._wrong(f"{name}[{index}]", "an object", value)
            found.append(Fields(cast("Mapping[str, object]", value), f'{self.where}: in "{name}[{index}]"', self.needs))
        return found

    def number(self, name: str) -> float:
        """A finite number; text that spells one is accepted, because CSV cells are text."""
        value = self.value(name)
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                self._wrong(name, "a number", value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self._wrong(name, "a number", value)
        try:
            finite = math.isfinite(value)
        except OverflowError:  # a whole number beyond any float
            finite, value = False, math.inf
        if not finite:
            self.fail(f'field "{name}" must be a finite number and is {value}.')
        return value

    def optional_number(self, name: str) -> float | None:
        """A finite number, or None when the column is missing, null or empty."""
        value = self.row.get(name)
        return None if value is None or value == "" else self.number(name)

    def integer(self, name: str) -> int:
        """A whole number; text that spells one is accepted, because CSV cells are text."""
        value = self.number(name)
        if value != int(value):
            self.fail(f'field "{name}" must be a whole number and is {value}.')
        return int(value)

    def flag(self, name: str) -> bool:
        """True or false; 1, 0 and the words are accepted, because CSV cells are text."""
        value = self.value(name)
        known = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
        answer = known.get(str(value).lower()) if isinstance(value, (bool, int, float, str)) else None
        if answer is None:
            self._wrong(name, "true or false", value)
        return answer

    def optional_flag(self, name: str, *, default: bool) -> bool:
        """A flag, or `default` when missing; a stated default stays among the other columns, so that it is written back."""
        value = self.row.get(name)
        if value is None or value == "":
            return default
        answer = self.flag(name)
        if answer is default:
            self._taken.discard(name)
        return answer

    def source(self, name: str) -> dict[str, object]:
        """Who wrote a completion: an object; {} when the column is missing, or holds something else and so stays a column."""
        value = self.row.get(name)
        return dict(self.record(name).row) if isinstance(value, Mapping) and value else {}

    def is_text(self, name: str) -> bool:
        """True if the column holds text, False if it holds anything else or is missing."""
        return isinstance(self.row.get(name), str)

    def messages(self, name: str) -> tuple[Message, ...]:
        """A column that must hold chat messages: [{"role": ..., "content": ...}, ...]."""
        return self.as_messages(self.value(name), name)

    def turns(self, name: str, role: Role) -> tuple[Message, ...]:
        """Chat messages, or text that becomes one message of `role`."""
        value = self.value(name)
        if isinstance(value, str):
            if _MESSAGES_AS_TEXT.match(value):
                self.fail(
                    f'field "{name}" holds chat messages written out as text. Write the table as JSONL or Parquet, where they stay lists.'
                )
            return (Message(role, value),)
        if not isinstance(value, (list, tuple)):
            self._wrong(name, "text or a list of chat messages", value)
        return self.as_messages(cast("Sequence[object]", value), name)

    def as_messages(self, value: object, name: str) -> tuple[Message, ...]:
        """`value`, found under `name`, as chat messages; what they hold besides role and content is kept for `rest`."""
        if not isinstance(value, (list, tuple)):
            self._wrong(name, "a list of chat messages", value)
        entries = cast("Sequence[object]", value)
        if not entries:
            self.fail(f'field "{name}" is an empty list; it needs at least one chat message.')
        return tuple(self._message(entry, f"{name}.{index}") for index, entry in enumerate(entries))

    @property
    def taken(self) -> frozenset[str]:
        """The columns that were read so far."""
        return frozenset(self._taken)

    def keep(self, name: str) -> None:
        """Keep a column that was read among the other columns too, because writing back needs it."""
        self._taken.discard(name)

    def rest(self, *also: str) -> dict[str, object]:
        """Every column that was not taken (nor named in `also`), to be kept in `Example.columns`."""
        columns = {name: value for name, value in self.row.items() if name not in self._taken and name not in also}
        if self._message_fields:
            columns[MESSAGE_FIELDS] = dict(self._message_fields)
        return columns

    def _message(self, entry: object, place: str) -> Message:
        if not isinstance(entry, Mapping):
            self._wrong(place, 'a chat message {"role": ..., "content": ...}', entry)
        message = cast("Mapping[str, object]", entry)
        for key in _TRAINING_FIELDS:
            learned = key != "weight" or message.get("role") == "assistant"  # what others said is not learned in any case
            if learned and message.get(key) not in (None, [], {}, "", 1):
                self.fail(f'chat message "{place}" has "{key}", which would change what is learned and is not supported. Remove it.')
        missing = [key for key in ("role", "content") if key not in message]
        if missing:
            found = ", ".join(sorted(map(str, message))) or "nothing"
            self.fail(f'chat message "{place}" has no "{missing[0]}" (it has {found}). A chat message is {{"role": ..., "content": ...}}.')
        extra = {key: value for key, value in message.items() if key not in ("role", "content") and value is not None}
        role = message["role"]
        if not isinstance(role, str) or role not in _ROLES:
            self.fail(f'chat message "{place}" has role {role!r}; roles are system, user, assistant and tool.')
        if role != _ROLES[role]:
            extra["role"] = role
        content = message["content"]
        if isinstance(content, (list, tuple)):
            extra["content"] = content
            content = self._joined_parts(cast("Sequence[object]", content), place)
        if not isinstance(content, str):
            self._wrong(f"{place}.content", "text", content)
        if extra:
            self._message_fields[place] = extra
        return Message(_ROLES[role], content)

    def _joined_parts(self, parts: Iterable[object], place: str) -> str:
        texts: list[str] = []
        for part in parts:
            record: Mapping[str, object] = cast("Mapping[str, object]", part) if isinstance(part, Mapping) else Row()
            piece = record.get("text")
            if record.get("type") != "text" or not isinstance(piece, str):
                self.fail(f'chat message "{place}" has a part that is not text ({describe(record.get("type"))}); only text is supported.')
            texts.append(piece)
        return "".join(texts)

    def _wrong(self, name: str, wanted: str, value: object) -> NoReturn:
        self.fail(f'field "{name}" must be {wanted} and is {describe(value)}.')


def one_line(text: str) -> str:
    """The text with line breaks and other characters that do not print shown as escapes."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def describe(value: object) -> str:
    """A value in words, short enough for one line: `a number (3)`, `null`, `a list of 2`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the JSON boolean {str(value).lower()}"
    if isinstance(value, (int, float)):
        return f"a number ({value})"
    if isinstance(value, str):
        return f'the text "{value if len(value) <= 30 else value[:27] + "..."}"'
    if isinstance(value, (list, tuple)):
        return f"a list of {len(cast('Sequence[object]', value))}"
    if isinstance(value, Mapping):
        return "an object"
    return f"a {type(value).__name__}"


def message_rows(messages: Sequence[Message], name: str, columns: Mapping[str, object]) -> list[Row]:
    """Chat messages as dicts, with what `Fields.rest` kept of the message at the same place under the same name."""
    kept = columns.get(MESSAGE_FIELDS)
    extra = cast("dict[str, Row]", kept if isinstance(kept, Mapping) else {})
    return [{"role": m.role, "content": m.content, **extra.get(f"{name}.{index}", {})} for index, m in enumerate(messages)]


def common_turns(first: Sequence[Message], second: Sequence[Message]) -> int:
    """How many whole turns two conversations share before the answers begin, the next turn being an assistant's in both.

    The common prefix is cut back to the last place where an assistant turn follows, so that an answer never begins in the
    middle of a turn or with a question; two equal conversations share all but their last answer. 0 means that they share nothing.
    """
    shared = 0
    while shared < min(len(first), len(second)) and first[shared] == second[shared]:
        shared += 1
    shared = min(shared, len(first) - 1, len(second) - 1)
    while shared > 0 and not (first[shared].role == "assistant" == second[shared].role):
        shared -= 1
    return shared
