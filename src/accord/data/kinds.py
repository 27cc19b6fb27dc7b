"""Turn an example of one kind into examples of another, where that loses no meaning that the new kind needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import cast, get_args

from accord.errors import ConfigError, DataError
from accord.types import Completion, Example, Kind

_INSTEAD = {
    "demonstration": "demonstrations, preferences, rankings, or labelled answers",
    "preference": "preferences or rankings (prompt, chosen, rejected)",
    "ranking": "rankings or preferences",
    "labelled": "labelled answers (prompt, completion, label) or preferences",
    "steps": "solutions with step labels (prompt, completions, labels)",
    "prompt": "rows with a prompt",
    "text": "rows with text",
}

_BECOMES = {
    "demonstration": ("prompt",),
    "preference": ("prompt", "demonstration", "ranking", "labelled"),
    "ranking": ("prompt", "demonstration", "preference"),
    "labelled": ("prompt", "demonstration"),
    "steps": ("prompt",),
}


def as_kind(example: Example, kind: str) -> Iterator[Example]:
    """The example as examples of `kind`.

    A demonstration is made of the preferred answer (of the best-ranked answers: the first one); preferences of every pair of a
    ranking, best first, ties with probability 0.5; labelled answers of the two sides of a preference (a tie has none); a prompt of
    anything that has one.

    Raises:
        ConfigError: if there is no such kind.
        DataError: if the example cannot be turned into that kind. Names file and row.
    """
    if kind not in get_args(Kind):
        raise ConfigError(f'There is no kind of example "{kind}". The kinds are: {", ".join(get_args(Kind))}.')
    if example.kind == kind:
        yield example
        return
    found = list(_converted(example, cast("Kind", kind)))
    if not found:
        if kind == "labelled" and _tied(example):
            raise DataError(
                f"{example.where or 'A row'} is a tie: neither answer is desirable. Remove it, or train on ties with accord dpo or reward."
            )
        raise DataError(f"{example.where} is a {example.kind} and a {kind} is needed. Use a file of {_INSTEAD[kind]}.")
    yield from found


def each_answer(example: Example) -> Iterator[Example]:
    """A demonstration of several turns as one for each answer, with what was said before it as the prompt. Anything else stays."""
    if example.kind != "demonstration":
        yield example
        return
    (whole,) = example.completions
    for index, message in enumerate(whole.messages):
        if message.role == "assistant":
            answer = replace(whole, messages=(message,), finished=whole.finished or index < len(whole.messages) - 1)
            yield replace(_changed(example, "demonstration", (answer,)), prompt=(*example.prompt, *whole.messages[:index]))


def can_become(found: str, kind: str) -> bool:
    """True if examples of kind `found` can be turned into `kind` by `as_kind` (single ones may still not, such as a tie into labels)."""
    return found == kind or kind in _BECOMES.get(found, ())


def _converted(example: Example, kind: Kind) -> Iterator[Example]:
    if kind == "prompt" and example.prompt:
        yield _changed(example, kind, ())
    elif kind == "demonstration" and example.kind in ("preference", "ranking"):
        yield _changed(example, kind, (example.completions[_best(example)],))
    elif kind == "demonstration" and example.kind == "labelled" and example.label:
        yield _changed(example, kind, example.completions)
    elif kind == "ranking" and example.kind == "preference":
        yield replace(_changed(example, kind, example.completions), ranks=(1, 1) if _tied(example) else (1, 2))
    elif kind == "preference" and example.kind == "ranking":
        ranks = example.ranks or ()
        order = sorted(range(len(ranks)), key=lambda index: ranks[index])
        for better, worse in combinations(order, 2):
            tied = ranks[better] == ranks[worse]
            pair = _changed(example, kind, (example.completions[better], example.completions[worse]))
            yield replace(pair, probability=0.5 if tied else None)
    elif kind == "labelled" and example.kind == "preference" and not _tied(example):
        for label, completion in zip((True, False), example.completions, strict=True):
            yield replace(_changed(example, kind, (completion,)), label=label)


def _best(example: Example) -> int:
    return 0 if example.ranks is None else example.ranks.index(min(example.ranks))


def _tied(example: Example) -> bool:
    return example.probability == 0.5


def _changed(example: Example, kind: Kind, completions: tuple[Completion, ...]) -> Example:
    return Example(kind, example.prompt, completions, plain=example.plain, columns=example.columns, where=example.where)
