"""What monitors read: sampled answers as a sheet of numbers, one row an answer, small enough to be kept in a checkpoint."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from accord.audit import detectors
from accord.rewards.constraints.language import detect

_MARKS = re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s|^#{1,6}\s|^\s*\|.*\||\*\*[^*\n]+\*\*|__[^_\n]+__|```", re.MULTILINE)
_EXCLAMATION = re.compile("!+")
OPENING_WORDS = 4
"""Words that two answers must share at their start to open alike."""


@dataclass(frozen=True)
class Seen:
    """One sampled answer and what the run knows of it. None: not known in this run."""

    prompt_id: str
    prompt: str
    text: str
    ids: tuple[int, ...]
    """Its tokens."""
    finished: bool
    """Whether it ended by itself."""
    reward: float | None = None
    """What training maximises, before it is shaped."""
    heldout: float | None = None
    """A reward that training does not use."""
    disagreement: float | None = None
    """Standard deviation over the heads of the reward."""
    kl: float | None = None
    """log policy - log reference, nats an answer."""
    reference_nll: float | None = None
    """-log reference, nats a token."""
    surprise: float | None = None
    """-log policy, nats a token: its mean estimates the policy's entropy."""
    benign: bool = True
    """False: the prompt is marked harmful, so refusing it may be right."""


@dataclass(frozen=True)
class Sheet:
    """Answers as columns of numbers, None where a number is not known."""

    group: tuple[str, ...]
    """Round and prompt: the siblings of an answer have the same."""
    prompt: tuple[str, ...]
    opening: tuple[str, ...]
    """The first words, lower case."""
    language: tuple[str | None, ...]
    columns: dict[str, tuple[float | None, ...]]

    def __len__(self) -> int:
        return len(self.prompt)

    def __add__(self, other: Sheet) -> Sheet:
        columns = {name: values + other.columns[name] for name, values in self.columns.items()}
        return Sheet(
            self.group + other.group, self.prompt + other.prompt, self.opening + other.opening, self.language + other.language, columns
        )

    def means(self, values: Sequence[float | None]) -> list[float]:
        """The mean of a column's known values for each prompt: answers to one prompt are not independent."""
        found: dict[str, list[float]] = {}
        for prompt, value in zip(self.prompt, values, strict=True):
            if value is not None:
                found.setdefault(prompt, []).append(value)
        return [sum(one) / len(one) for one in found.values()]

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Sheet:
        """The inverse of `state`."""
        parts = {name: tuple(state[name]) for name in ("group", "prompt", "opening", "language")}
        return cls(**parts, columns={name: tuple(values) for name, values in state["columns"].items()})


def sheet_of(answers: Sequence[Seen], round_number: int) -> Sheet:
    """Measure the answers of a round."""
    shared = shared_with_others(answers)
    measured = [{**_measured(answer), "shared": value} for answer, value in zip(answers, shared, strict=True)]
    names = list(measured[0]) if measured else []
    return Sheet(
        group=tuple(f"{round_number} {answer.prompt_id}" for answer in answers),
        prompt=tuple(answer.prompt_id for answer in answers),
        opening=tuple(opening(answer.text) for answer in answers),
        language=tuple(detect(answer.text) for answer in answers),
        columns={name: tuple(row[name] for row in measured) for name in names},
    )


def _measured(answer: Seen) -> dict[str, float | None]:
    """The numbers of one answer, by the name of their column."""
    text, count = answer.text, len(answer.ids)
    return {
        "tokens": float(count),
        "log_tokens": math.log1p(count),
        "empty": float(not text.strip()),
        "unfinished": float(not answer.finished),
        "flattery": detectors.flattery(text),
        "flatters": float(detectors.opens_with_flattery(text)),
        "hedging": detectors.hedging(text),
        "refuses": float(detectors.refuses(text)) if answer.benign else None,
        "formatting": per_hundred_words(text, lambda text: len(_MARKS.findall(text))),
        "marks": float(len(_MARKS.findall(text)) + len(_EXCLAMATION.findall(text))),
        "exclamations": per_hundred_words(text, lambda text: len(_EXCLAMATION.findall(text))),
        "repetition": detectors.repetition(text),
        "repeats": repeated_ngrams(answer.ids),
        "longest_run": float(longest_run(answer.ids)),
        "compressed": compressed(text),
        "gibberish": detectors.gibberish(text),
        "odd": odd_characters(text),
        "reward": answer.reward,
        "heldout": answer.heldout,
        "disagreement": answer.disagreement,
        "kl": answer.kl,
        "kl_per_token": answer.kl / count if answer.kl is not None and count else None,
        "reference_nll": answer.reference_nll,
        "surprise": answer.surprise,
    }


def per_hundred_words(text: str, count: Callable[[str], int]) -> float:
    """What `count` finds in a text, for each hundred words; a text without words counts as one word."""
    return 100.0 * count(text) / max(detectors.word_count(text), 1)


def repeated_ngrams(ids: Sequence[int], n: int = 4) -> float:
    """Share of token n-grams that occurred before in the same answer, 0 to 1; 0 for answers under n + 1 tokens."""
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return 1.0 - len(set(grams)) / len(grams) if len(grams) > 1 else 0.0


def longest_run(ids: Sequence[int]) -> int:
    """How often the same token stands in a row, at most; 0 for no tokens."""
    best = run = 0
    before = None
    for token in ids:
        run = run + 1 if token == before else 1
        best, before = max(best, run), token
    return best


def compressed(text: str) -> float:
    """Bytes that zlib leaves, as a share of the text's: near 1 for a short sentence, small for a text that repeats itself. Empty: 1."""
    data = text.encode("utf-8")
    return len(zlib.compress(data, 6)) / (len(data) + 8) if data else 1.0


def odd_characters(text: str) -> float:
    """Share of characters that cannot be printed (control characters, what could not be decoded), 0 to 1."""
    odd = sum(character == "\ufffd" or not (character.isprintable() or character.isspace()) for character in text)
    return odd / len(text) if text else 0.0


def opening(text: str) -> str:
    """The first words in lower case; fewer than `OPENING_WORDS` where the text has no more."""
    return " ".join(detectors.words(text[:200])[:OPENING_WORDS]).lower()


def shared_with_others(answers: Sequence[Seen], n: int = 3) -> list[float]:
    """For each answer, the share of its word n-grams that also stand in answers to other prompts: what grows when all answers become one."""
    grams = []
    for answer in answers:
        tokens = [word.lower() for word in detectors.words(answer.text)]
        grams.append({tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)})
    where: dict[tuple[str, ...], set[str]] = {}
    for answer, found in zip(answers, grams, strict=True):
        for gram in found:
            where.setdefault(gram, set()).add(answer.prompt_id)
    return [sum(len(where[gram]) > 1 for gram in found) / len(found) if found else 0.0 for found in grams]
