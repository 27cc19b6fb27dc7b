"""Constraints on the answer as a whole: repeat the request first, give two answers, be in a language."""

from __future__ import annotations

from collections.abc import Callable

from accord.rewards.constraints.language import plausible
from accord.rewards.constraints.text import divided, words


def repeat_prompt(answer: str, *, prompt_to_repeat: str) -> bool:
    """The answer begins with the request word for word; case and the width of white space do not matter. What follows is free."""
    return " ".join(answer.lower().split()).startswith(" ".join(prompt_to_repeat.lower().split()))


def repeat_then_answer(answer: str, *, prompt_to_repeat: str) -> bool:
    """As repeat_prompt, and at least one word follows."""
    start, text = " ".join(prompt_to_repeat.lower().split()), " ".join(answer.lower().split())
    return text.startswith(start) and bool(words(text[len(start) :]))


def two_responses(answer: str) -> bool:
    """Two different answers with the divider `******` (six asterisks) between them; neither is empty."""
    found = divided(answer, "******")
    return found is not None and len(found) == 2 and found[0] != found[1]


def response_language(answer: str, *, language: str) -> bool:
    """The answer is in this language (ISO 639-1 code), as `language.detect` finds.

    An answer too short to tell passes when its letters are those of the language's script; one without letters ("42") never does, which
    the published evaluation lets pass and a reward must not.
    """
    return plausible(answer, language.strip().lower().split("-")[0])


KINDS: dict[str, Callable[..., bool]] = {
    "combination:repeat_prompt": repeat_prompt,
    "combination:repeat_then_answer": repeat_then_answer,
    "combination:two_responses": two_responses,
    "language:response_language": response_language,
}
