"""What a layout of rows is: how it is recognised, read into examples, and written back."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from accord.data.fields import MESSAGE_FIELDS, Fields, Row
from accord.data.system_column import with_system
from accord.types import Example, Kind


@dataclass(frozen=True)
class Format:
    """One layout: a name, and a small detect / parse / write triple."""

    name: str
    kind: Kind
    """Kind of the examples that a row of this layout becomes."""
    needs: str
    """What the layout needs, as a sentence for error messages."""
    detect: Callable[[Mapping[str, object]], bool]
    """True if a row is in this layout. Looks at the columns first and at values only where columns are not enough."""
    parse: Callable[[Fields], list[Example]]
    """The examples of one row. Raises DataError with file, row and field."""
    write: Callable[[Sequence[Example]], Row]
    """The row of the examples that `parse` made of it: exactly one, unless `together` says otherwise."""
    together: Callable[[Example], Hashable] | None = None
    """Key shared by consecutive examples that came from one row (trees, solutions with alternatives); None: a row is one example."""
    join_on: str | None = None
    """Column whose equal values in consecutive rows make them one unit {"rows": [...]} (one rated answer a row); None: no joining."""

    def read(self, fields: Fields) -> list[Example]:
        """`parse`, with a column `system` as the first turn."""
        return [with_system(example) for example in self.parse(fields)]


def single(write: Callable[[Example], Row]) -> Callable[[Sequence[Example]], Row]:
    """A writer of one example as a `Format.write`."""

    def write_one(examples: Sequence[Example]) -> Row:
        (example,) = examples
        return write(example)

    return write_one


def with_columns(fields: Row, example: Example) -> Row:
    """The row of a layout's own fields together with the example's other columns; the layout's fields win."""
    return {**{name: value for name, value in example.columns.items() if name != MESSAGE_FIELDS}, **fields}


def has(*names: str) -> Callable[[Mapping[str, object]], bool]:
    """A detector: True for rows that have all these columns."""
    return lambda row: all(name in row for name in names)
