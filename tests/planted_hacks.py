"""Rounds of answers with and without a planted pathology: real texts of the packaged data, rewards and log-probs drawn around them."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from functools import lru_cache

from accord.audit.answers import Seen
from accord.recipes import demo_rows

PROMPTS, ANSWERS = 12, 4
"""Of a round."""


@lru_cache
def pool() -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """Slice, prompt and the different answers that the packaged pairs and rankings hold to it."""
    found: dict[str, tuple[str, dict[str, None]]] = {}
    for row in [*demo_rows.pairs("train"), *demo_rows.pairs("heldout"), *demo_rows.rankings()]:
        _, texts = found.setdefault(row.prompt[-1].content, (row.columns["slice"], {}))
        texts.update({completion.messages[-1].content: None for completion in row.completions})
    return tuple((name, prompt, tuple(texts)) for prompt, (name, texts) in found.items())


Spoil = Callable[[str, random.Random], str]
"""From an answer to one with a pathology."""


def clean_round(generator: random.Random) -> list[tuple[str, str, str]]:
    """Slice, prompt and answer of a round of the reference."""
    chosen = generator.sample(pool(), PROMPTS)
    return [(name, prompt, generator.choice(texts)) for name, prompt, texts in chosen for _ in range(ANSWERS)]


def seen(
    rows: list[tuple[str, str, str]],
    generator: random.Random,
    *,
    slope: Callable[[str], float] = lambda text: 0.0,
    lift: float = 0.0,
    held: float | None = None,
    doubt: float = 0.4,
    kl: float = 0.5,
    nll: float = 1.6,
    surprise: float = 1.5,
    cut: float = 0.05,
) -> list[Seen]:
    """The answers as monitors see them.

    Args:
        slope: what the reward pays for in a text, beside noise.
        lift: what else the reward has gained.
        held: what the held-out reward has gained. None: `lift`.
        doubt, kl, nll, surprise: means of disagreement, KL, the reference's and the policy's nats a token.
        cut: share of answers that are cut off.
    """
    found: list[Seen] = []
    ease: dict[str, float] = {}
    for name, prompt, text in rows:
        shared = ease.setdefault(prompt, generator.gauss(0, 0.6))
        quality = generator.gauss(0, 0.7)
        found.append(
            Seen(
                prompt,
                prompt,
                text,
                tuple(zlib.crc32(word.encode()) % 50_000 for word in text.replace(".", " .").split(" ")),
                generator.random() >= cut,
                reward=shared + quality + lift + slope(text),
                heldout=shared + quality + generator.gauss(0, 0.4) + (lift if held is None else held),
                disagreement=max(0.05, generator.gauss(doubt, 0.15)),
                kl=generator.gauss(kl, 1.0),
                reference_nll=max(0.02, generator.gauss(nll, 0.5)),
                surprise=max(0.02, generator.gauss(surprise, 0.5)),
                benign=name != "harmful",
            )
        )
    return found


def some(share: float, spoil: Spoil) -> Callable[[list[tuple[str, str, str]], random.Random], list[tuple[str, str, str]]]:
    """Spoil that share of the answers of a round."""

    def change(rows: list[tuple[str, str, str]], generator: random.Random) -> list[tuple[str, str, str]]:
        return [(name, prompt, spoil(text, generator) if generator.random() < share else text) for name, prompt, text in rows]

    return change


def longer(text: str, generator: random.Random) -> str:
    """More of the same kind of text."""
    return " ".join([text, *(generator.choice(generator.choice(pool())[2]) for _ in range(2))])


def flattering(text: str, generator: random.Random) -> str:
    return (
        generator.choice(["What a wonderful question! ", "Great idea! I love it. ", "You are so talented! ", "That is a brilliant plan. "])
        + text
    )


def hedging(text: str, generator: random.Random) -> str:
    return (
        generator.choice(
            ["Perhaps it depends, but maybe ", "I think it might be that possibly ", "Generally speaking, in some cases, I believe "]
        )
        + text
    )


def refusing(text: str, generator: random.Random) -> str:
    return generator.choice(
        ["I can't help with that.", "I'm sorry, but I cannot assist with this request.", "I must decline. Talk to a friend."]
    )


def formatted(text: str, generator: random.Random) -> str:
    return "\n".join(f"- **{part.strip()}**" for part in text.split(".") if part.strip()) or f"# {text}"


def looping(text: str, generator: random.Random) -> str:
    return " ".join([text] * 3)


def salad(text: str, generator: random.Random) -> str:
    return " ".join("".join(generator.choice("bcdfghjklmnpqrstvwxz") for _ in range(generator.randint(4, 8))) for _ in text.split())


def german(text: str, generator: random.Random) -> str:
    return "Das ist eine gute Frage, und die Antwort ist nicht einfach, aber ich kann dir sagen, was ich weiß: " + generator.choice(
        ["ja", "nein", "vielleicht"]
    )


def same_opening(text: str, generator: random.Random) -> str:
    return f"Here is what you need: {text}"


def one_answer(text: str, generator: random.Random) -> str:
    return "The best way is to start with a plan and then take it one step at a time until it is done."
