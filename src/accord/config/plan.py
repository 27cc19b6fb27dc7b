"""What `accord plan` takes: of a run that is planned, and of a situation that wants a method."""

from __future__ import annotations

from dataclasses import dataclass

from accord.errors import ConfigError

FEEDBACK = {
    "demonstrations": "good answers, to be imitated",
    "pairs": "comparisons of two answers",
    "rankings": "three or more answers to a prompt, ranked",
    "ratings": "grades of single answers (1 to 5, 1 to 7)",
    "thumbs": "single answers marked good or bad",
    "steps": "each step of solutions marked right or wrong",
    "checkable": "problems whose answers a program can check",
    "principles": "no labels, but principles that answers should keep to",
    "judge": "no labels, but a stronger model that can judge",
    "prompts": "prompts alone, and people who could judge answers",
    "nothing": "nothing yet",
}
"""What people may have, and what it means."""
GOALS = {
    "style": "form: tone, length, language, format",
    "behaviour": "what it does and declines: helpful, harmless, honest",
    "reasoning": "right answers to problems",
    "knowledge": "facts it does not know",
}


@dataclass
class PlanOptions:
    """`accord plan METHOD`, beside the method's own options."""

    rows: int = 300
    """Rows of data (ppo, grpo: prompts). With --data they are counted."""
    prompt_tokens: int = 100
    """Mean tokens of a prompt. With --data they are counted."""
    answer_tokens: int = 150
    """Mean tokens of an answer. With --data they are counted; of sampled answers at most what the method allows."""
    hardware: str = "this"
    """Where it will run: this (measured now), laptop, laptop-8gb, t4, rtx4090, a10g, a100-40, a100, h100 (data sheets)."""
    memory_gb: float | None = None
    """Memory that the run may take, in 10^9 bytes. None is what is free here, or what the hardware has."""

    def __post_init__(self) -> None:
        for name in ("rows", "prompt_tokens", "answer_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"accord plan --{name} {getattr(self, name)} must be 1 or more.")
        check_memory(self.memory_gb)


@dataclass
class AdviseOptions:
    """`accord plan`: which method?"""

    feedback: str | None = None
    """What you have: demonstrations, pairs, rankings, ratings, thumbs, steps, checkable, principles, judge, prompts or nothing. None asks."""
    labels: int | None = None
    """How many of them (prompts, where there are no labels). None asks."""
    goal: str = "behaviour"
    """What should change: style, behaviour, reasoning or knowledge."""
    model: str | None = None
    """Model to train. None takes the largest known one that fits the memory and the hours."""
    base: bool = False
    """True: it is a base model, which only continues text. False: it follows instructions."""
    hardware: str = "this"
    """Where it will run: this (measured now), laptop, laptop-8gb, t4, rtx4090, a10g, a100-40, a100, h100 (data sheets)."""
    memory_gb: float | None = None
    """Memory that a run may take, in 10^9 bytes. None is what is free here, or what the hardware has."""
    hours: float = 2.0
    """Time for training."""
    online: bool = False
    """True: the model may sample during training, and be judged again. False: it learns from what there is."""
    people: int = 1
    """People who can judge answers; 0 is nobody."""
    recipe: str = "recipe.yaml"
    """The recipe file to write; recipe-1.yaml, recipe-2.yaml and so on where there are several stages. none writes none."""
    data: str = "DATA.jsonl"
    """Your file, as the recipe will name it."""
    overwrite: bool = False
    """True writes over recipes that are there. False refuses."""

    def __post_init__(self) -> None:
        for name, known in (("feedback", FEEDBACK), ("goal", GOALS)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ConfigError(f"accord plan --{name} {value!r}: choose {', '.join(known)}.")
        for name, lowest in (("labels", 0), ("people", 0)):
            if getattr(self, name) is not None and getattr(self, name) < lowest:
                raise ConfigError(f"accord plan --{name} {getattr(self, name)} must be {lowest} or more.")
        if not 0 < self.hours < 1e6:
            raise ConfigError(f"accord plan --hours {self.hours:g} must be above 0 (and below a million).")
        check_memory(self.memory_gb)


def check_memory(gigabytes: float | None) -> None:
    """Raises ConfigError if it is no size."""
    if gigabytes is not None and not 0 < gigabytes < 1e6:
        raise ConfigError(f"accord plan --memory_gb {gigabytes:g} must be above 0 (and below a million).")
