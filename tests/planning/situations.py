"""Situations as people describe them, what `accord plan` is told of each, and what an expert would answer. Argued in docs/choosing.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Situation:
    words: str
    told: dict[str, Any]
    """Options of `accord plan`."""
    method: str
    commands: tuple[str, ...]
    """The stages of the recipe, in order."""
    says: tuple[str, ...]
    """Parts of reasons, labels or cautions that must be there."""
    fits: bool = True
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the last recipe must hold."""


LAPTOP: dict[str, Any] = {"hardware": "laptop", "hours": 2.0}
A100: dict[str, Any] = {"hardware": "a100", "hours": 12.0}

SITUATIONS = {
    "solo laptop": Situation(
        "I have 300 pairs that I judged myself, a laptop, an evening.",
        {"feedback": "pairs", "labels": 300, **LAPTOP},
        "dpo",
        ("dpo",),
        ("no reward model", "hold out a fifth"),
        options={"num_train_epochs": 2, "beta": 0.1},
    ),
    "team with rankings": Situation(
        "Eight of us ranked four answers to each of 5,000 prompts; we have an A100 and a 7B model.",
        {"feedback": "rankings", "labels": 5000, "people": 8, "online": True, "model": "Qwen/Qwen2.5-7B-Instruct", **A100, "hours": 24.0},
        "ppo",
        ("reward", "ppo"),
        ("K(K-1)/2", "checked on its own"),
        options={"reward_model": ["runs/plan-reward"]},
    ),
    "maths with answers": Situation(
        "2,000 maths problems with the right answer of each; a 4090; Qwen2.5-1.5B.",
        {
            "feedback": "checkable",
            "labels": 2000,
            "goal": "reasoning",
            "online": True,
            "model": "Qwen/Qwen2.5-1.5B-Instruct",
            "hardware": "rtx4090",
            "hours": 12.0,
        },
        "grpo",
        ("grpo",),
        ("the reward it does need", "some of 8 answers are right"),
        options={"reward": ["accuracy"]},
    ),
    "thumbs": Situation(
        "Our users gave 2,000 thumbs up and down, each on one answer.",
        {"feedback": "thumbs", "labels": 2000, **LAPTOP},
        "kto",
        ("kto",),
        ("no comparisons", "at least 50 of either kind"),
    ),
    "principles": Situation(
        "No labels, but a page of principles that answers should keep to, and 200 prompts that tempt the model.",
        {"feedback": "principles", "labels": 200, **LAPTOP},
        "cai",
        ("constitution",),
        ("critic of itself", "principles can label"),
        options={"rl": "dpo"},
    ),
    "7B and one A100": Situation(
        "20,000 pairs, a 7B model, one A100 for an afternoon, no sampling.",
        {"feedback": "pairs", "labels": 20000, "model": "Qwen/Qwen2.5-7B-Instruct", **A100, "hours": 6.0},
        "dpo",
        ("dpo",),
        ("cheapest",),
        options={"num_train_epochs": 1},
    ),
    "7B and 8 GB": Situation(
        "500 pairs, and it must be a 7B model on my 8 GB laptop.",
        {"feedback": "pairs", "labels": 500, "model": "Qwen/Qwen2.5-7B-Instruct", "hardware": "laptop-8gb"},
        "dpo",
        ("dpo",),
        (),
        fits=False,
    ),
    "base model, demonstrations": Situation(
        "A base model that only continues text, and 1,000 good answers.",
        {"feedback": "demonstrations", "labels": 1000, "base": True, **LAPTOP},
        "sft",
        ("sft",),
        ("imitate", "about 1,000 an assistant"),
    ),
    "base model, pairs": Situation(
        "A base model and 1,000 pairs, nothing else.",
        {"feedback": "pairs", "labels": 1000, "base": True, **LAPTOP},
        "dpo",
        ("align",),
        ("SFT before everything else",),
        options={"method": "dpo"},
    ),
    "a stronger model judges": Situation(
        "No labels and no time for them, but a large model behind an API; the data once, then train.",
        {"feedback": "judge", "labels": 2000, **LAPTOP, "hours": 8.0},
        "rlaif",
        ("judge", "dpo"),
        ("both orders", "comparisons of people"),
        options={"data": "judged.jsonl"},
    ),
    "a judge, again and again": Situation(
        "The same judge, and it may be asked after every round.",
        {"feedback": "judge", "labels": 500, "online": True, **LAPTOP, "hours": 8.0},
        "rounds",
        ("align",),
        ("what the model says now",),
        options={"feedback": "judge", "rounds": 4, "reward": ["judge=http://127.0.0.1:8000/v1#MODEL"]},
    ),
    "step labels": Situation(
        "800 solutions whose steps teachers marked.",
        {"feedback": "steps", "labels": 800, "goal": "reasoning", **LAPTOP},
        "prm",
        ("prm",),
        ("exploited", "best of N"),
    ),
    "prompts and three people": Situation(
        "Only prompts from our users, and three of us who know a good answer when we see one.",
        {"feedback": "prompts", "labels": 1000, "people": 3, **LAPTOP},
        "collect",
        ("annotate",),
        ("500 comparisons (about 4 hours for each of 3 people)",),
    ),
    "knowledge": Situation(
        "The model should know our products; we have 3,000 questions with answers.",
        {"feedback": "demonstrations", "labels": 3000, "goal": "knowledge", **LAPTOP},
        "none",
        (),
        ("not what is true", "retrieval"),
    ),
    "forty pairs": Situation(
        "I judged 40 pairs so far.",
        {"feedback": "pairs", "labels": 40, **LAPTOP},
        "collect",
        ("annotate",),
        ("too few", "22 points"),
    ),
    "forty pairs and nobody": Situation(
        "40 pairs from a colleague who has left; nobody can judge more.",
        {"feedback": "pairs", "labels": 40, "people": 0, **LAPTOP},
        "dpo",
        ("dpo",),
        ("change of form",),
    ),
    "grades": Situation(
        "3,000 answers graded from 1 to 5, one for each prompt.",
        {"feedback": "ratings", "labels": 3000, **LAPTOP},
        "kto",
        ("kto",),
        ("from a threshold on",),
    ),
    "maths in an hour": Situation(
        "Problems with answers, a laptop, an hour, a model of 360 million weights.",
        {
            "feedback": "checkable",
            "labels": 500,
            "goal": "reasoning",
            "online": True,
            "model": "HuggingFaceTB/SmolLM2-360M-Instruct",
            **LAPTOP,
            "hours": 1.0,
        },
        "rejection",
        ("sft",),
        ("more time or a faster machine",),
        options={"best_of": 8, "reward": ["accuracy"]},
    ),
    "nothing": Situation(
        "No labels, nobody to judge, no way to check.",
        {"feedback": "nothing", "labels": 0, "people": 0, **LAPTOP},
        "none",
        (),
        ("nothing says what better is", "system prompt"),
    ),
    "two people, week after week": Situation(
        "300 pairs, and two of us who will judge more every week.",
        {"feedback": "pairs", "labels": 300, "people": 2, "online": True, "model": "smollm2-135m", **LAPTOP, "hours": 4.0},
        "rounds",
        ("dpo", "align"),
        ("eight rounds of 250 beat 2,000", "the first stage learns your labels"),
        options={"feedback": "people"},
    ),
    "a house style": Situation(
        "120 letters in our house style.",
        {"feedback": "demonstrations", "labels": 120, "goal": "style", **LAPTOP},
        "sft",
        ("sft",),
        ("50 to 200 teach a form",),
        options={"num_train_epochs": 3},
    ),
    "many pairs, sampling allowed": Situation(
        "5,000 pairs, all there will be; a 1.5B model on an A100, a working day.",
        {"feedback": "pairs", "labels": 5000, "people": 0, "online": True, "model": "Qwen/Qwen2.5-1.5B-Instruct", **A100, "hours": 8.0},
        "ppo",
        ("reward", "ppo"),
        ("a little better than DPO", "exploited in the end"),
    ),
    "many pairs, no time": Situation(
        "The same 5,000 pairs, a 1.7B model, and one hour on a laptop with 64 GB.",
        {
            "feedback": "pairs",
            "labels": 5000,
            "people": 0,
            "online": True,
            "model": "HuggingFaceTB/SmolLM2-1.7B-Instruct",
            "hardware": "laptop",
            "memory_gb": 60.0,
            "hours": 1.0,
        },
        "dpo",
        ("dpo",),
        ("sampling is most of its time",),
    ),
    "pairs of solutions": Situation(
        "2,000 pairs of solutions, and it should reason better.",
        {"feedback": "pairs", "labels": 2000, "goal": "reasoning", **LAPTOP, "hours": 24.0},
        "dpo",
        ("dpo",),
        ("GRPO learns what is right",),
    ),
}
