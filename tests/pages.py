"""What the pages say to type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHELL = ("", "bash", "sh")


def commands(page: Path) -> list[list[str]]:
    """Every `accord ...` of a page, code blocks first, then code spans, each as words."""
    text = page.read_text(encoding="utf-8")
    blocks = [words for language, body in FENCE.findall(text) if language in SHELL for words in _typed(body)]
    return [*blocks, *_spoken(FENCE.sub("", text))]


def in_order(page: Path) -> Iterator[list[str] | str]:
    """Every `accord ...` of a page as words and every Python block as text, in the order in which they are read."""
    text, place = page.read_text(encoding="utf-8"), 0
    for found in FENCE.finditer(text):
        yield from _spoken(text[place : found.start()])
        if found[1] in SHELL:
            yield from _typed(found[2])
        elif found[1] == "python":
            yield found[2]
        place = found.end()
    yield from _spoken(text[place:])


def _typed(block: str) -> list[list[str]]:
    lines = [line.split(" #")[0].strip() for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("accord ")]


def _spoken(prose: str) -> list[list[str]]:
    return [shlex.split(span) for span in re.findall(r"`([^`\n]+)`", prose) if span.startswith("accord ")]
