"""A column `system` beside any prompt: its text is the conversation's first turn, as in Alpaca's and ShareGPT's rows."""

from __future__ import annotations

from dataclasses import replace

from accord.types import Example, Message

NAME = "system"


def with_system(example: Example) -> Example:
    """The example with its column `system` as a system turn before the prompt. One that begins with a system turn stays; and one with a single word
    in that column, which is the name of some system."""
    text = example.columns.get(NAME)
    begins = bool(example.prompt) and example.prompt[0].role == "system"
    if example.kind == "text" or not isinstance(text, str) or len(text.split()) < 2 or begins:
        return example
    return replace(example, prompt=(Message("system", text), *example.prompt), plain=False)


def without_system(example: Example) -> Example:
    """The inverse: without the system turn that its column `system` says."""
    first = example.prompt[0] if example.prompt else None
    if first is None or first.role != "system" or first.content != example.columns.get(NAME):
        return example
    return replace(example, prompt=example.prompt[1:])
