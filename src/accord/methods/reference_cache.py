"""Reference log-probs of earlier runs, kept in the user's cache: one JSON file for each model, adapter stack and tokenizer, one entry a row.

The values are those that were computed, digit by digit. Deleting the folder costs the time to compute them again, nothing else.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress

from accord.data.packing import Unit
from accord.data.render import Renderer
from accord.errors import MachineError
from accord.models.cache import cache_folder
from accord.types import content_hash
from accord.writing import write_text

SCHEMA = 1
MOST_ROWS = 200_000
"""Rows kept in a file (about 20 MB); the oldest go first."""
MOST_FILES = 16
"""Files kept; the one that was not read for longest goes first."""

Values = tuple[float, ...]


def row_hash(unit: Unit) -> str:
    """What a row's log-probs depend on beside the model: its token ids and which of them are counted."""
    return content_hash([unit.prompt_ids, [[branch.ids, branch.counted] for branch in unit.branches]], 32)


def tokenizer_hash(renderer: Renderer) -> str:
    """Changes with the vocabulary, the chat template and the end tokens."""
    tokenizer = renderer.tokenizer
    return content_hash([sorted(tokenizer.get_vocab().items()), getattr(tokenizer, "chat_template", None), renderer.end_ids], 32)


class ReferenceCache:
    """The kept rows of one reference policy.

    Args:
        model: `models.fingerprint.model_fingerprint` of the reference.
        tokenizer: `tokenizer_hash` of what made the rows.
    """

    def __init__(self, model: str, tokenizer: str) -> None:
        key = content_hash([SCHEMA, model, tokenizer], 32)
        self.path = cache_folder() / "reference" / f"{key}.json"

    def read(self, wanted: list[str]) -> dict[str, Values]:
        """The values of those of the wanted rows that are kept, by `row_hash`."""
        rows = self._rows()
        return {row: tuple(rows[row]) for row in wanted if row in rows}

    def add(self, found: dict[str, Values]) -> dict[str, Values]:
        """Keep newly computed rows. Returns them as they are kept: where another process was quicker, its values stand.

        Raises:
            MachineError: if the cache cannot be written.
        """
        from filelock import FileLock

        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):
                rows = self._rows()
                rows |= {row: values for row, values in found.items() if row not in rows}
                kept = dict(list(rows.items())[-MOST_ROWS:])
                write_text(self.path, json.dumps({"schema": SCHEMA, "rows": kept}))
                for old in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-MOST_FILES]:
                    old.unlink()
        except OSError as error:
            raise MachineError(f"{folder} cannot be written ({error.strerror or error}).") from error
        return {row: tuple(rows[row]) for row in found}

    def _rows(self) -> dict[str, list[float] | Values]:
        """A file that is missing or damaged has none."""
        try:
            rows = json.loads(self.path.read_text(encoding="utf-8"))["rows"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        with suppress(OSError):  # another user's cache may be read only
            os.utime(self.path)
        return rows if isinstance(rows, dict) else {}
