"""Alignment tax: what training cost elsewhere. Perplexity on neutral text and a small question set with known answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from accord.data.packing import Branch, Unit, pack
from accord.data.render import Renderer
from accord.models.adapters import PolicyModel, Stack
from accord.objectives.segments import segment_sum
from accord.types import Completion, Example, Message

NEUTRAL_TEXT = (
    "The river rises in the hills above the village and runs south for about forty miles before it reaches the sea. In spring the water is high and brown, "
    "and the fields on either side are often flooded for a week or two. Farmers move their animals to the upper pastures in March and bring them back in May.",
    "A bicycle wheel is built from a hub, a rim and a set of spokes. Each spoke is under tension, and small changes in that tension pull the rim to one side or "
    "the other. A wheel is true when the rim runs straight between the brake pads for the whole of a turn.",
    "The library opened in 1931 with four thousand books and a staff of two. It moved to its present building after the war. Readers may borrow up to eight books "
    "at a time and keep them for three weeks, and the reading room is open until nine in the evening on weekdays.",
    "Bread rises because yeast turns sugar into carbon dioxide, which is held in the dough by gluten. Warm dough rises faster than cold dough, but a slow rise in a "
    "cool place gives more flavor. When the loaf goes into a hot oven the gas expands once more before the crust sets.",
)
ROUNDING = 1e-5
"""Nats a token that two answers may differ by in fp32 and still be a tie."""
QUESTIONS = (
    ("What is the capital of France?", "Paris", "London"),
    ("How many legs does a spider have?", "Eight", "Six"),
    ("Which planet do we live on?", "Earth", "Mars"),
    ("What is two plus three?", "Five", "Seven"),
    ("What color is the sky on a clear day?", "Blue", "Green"),
    ("Which animal barks?", "A dog", "A cat"),
    ("What do bees make?", "Honey", "Milk"),
    ("What is frozen water called?", "Ice", "Steam"),
    ("Which is larger, an elephant or a mouse?", "An elephant", "A mouse"),
    ("In which direction does the sun rise?", "In the east", "In the west"),
    ("What is the opposite of hot?", "Cold", "Warm"),
    ("How many days are in a week?", "Seven", "Ten"),
    ("What do cows drink?", "Water", "Milk"),
    ("Which month comes after June?", "July", "May"),
    ("What do we use to see?", "Our eyes", "Our ears"),
    ("What is the first letter of the alphabet?", "A", "B"),
)


@torch.no_grad()
def alignment_tax(policy: PolicyModel, stack: Stack, renderer: Renderer) -> dict[str, Any]:
    """Perplexity on neutral text, and how many of the questions have the right short answer more likely than the wrong one."""
    logprobs = policy.forward(pack(text_units(renderer, NEUTRAL_TEXT), policy.device), stack).logprobs
    assert logprobs is not None
    return {
        "perplexity": math.exp(-float(logprobs.mean())),
        "questions_right": questions_right(policy, stack, renderer),
        "questions": len(QUESTIONS),
    }


def text_units(renderer: Renderer, texts: Sequence[str]) -> list[Unit]:
    """Each text as a completion without an end, so that its log-probability is that of the text."""
    rows = [renderer.render(Example("text", (), (Completion((Message("assistant", text),), finished=False),))) for text in texts]
    return [Unit(tuple(row.prompt_ids), tuple(Branch(tuple(c.ids)) for c in row.completions)) for row in rows]


@torch.no_grad()
def questions_right(policy: PolicyModel, stack: Stack, renderer: Renderer, questions: Sequence[tuple[str, str, str]] = QUESTIONS) -> int:
    """How often the right answer has the higher mean log-probability a token. A tie is not right."""
    rows = [
        Example("preference", (Message("user", q),), tuple(Completion((Message("assistant", a + "."),)) for a in answers))
        for q, *answers in questions
    ]
    batch = pack(renderer.units(rows), policy.device)
    logprobs = policy.forward(batch, stack).logprobs
    assert logprobs is not None
    counts = torch.bincount(batch.completion, minlength=batch.num_completions)
    means = (segment_sum(logprobs, batch.completion, batch.num_completions) / counts).view(-1, 2)
    return int((means[:, 0] - means[:, 1] > ROUNDING).sum())
