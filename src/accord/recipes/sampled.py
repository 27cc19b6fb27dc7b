"""Answers of an opened model to the prompts of some rows, kept in a file: what best-of-N and step labels begin with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accord.methods.prompts import prompts_of
from accord.models.fingerprint import model_fingerprint
from accord.models.opened import Opened
from accord.rollouts.collect import collect, prompt_limit
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.training.setup import say, short_name
from accord.types import Example, Rollout


def prompts_to_answer(rows: Sequence[Example], opened: Opened, max_new_tokens: int, what: str = "--data") -> list[Prompt]:
    """Each different prompt of the rows once, short enough for an answer of so many tokens; what had to be cut is said.

    Raises:
        ConfigError: if the answer alone takes all of the model's positions.
        DataError: naming the row, if one has no prompt.
    """
    before = opened.renderer.max_prompt_length
    opened.renderer.max_prompt_length = prompt_limit(opened.policy, max_new_tokens)
    try:
        return prompts_of(list(rows), opened.renderer, what)
    finally:
        opened.renderer.max_prompt_length = before


class Drawn:
    """Draws from an opened model into files, saying how far it is.

    Args:
        name: what the user called the model; stands in the source of what is drawn.
    """

    def __init__(self, opened: Opened, name: str) -> None:
        self.sampler = LocalSampler(opened.policy, opened.renderer, opened.stack)
        self.model = {"model": name, "sha256": model_fingerprint(opened.policy, opened.stack)}
        self.short_name = short_name(opened.policy)

    def __call__(self, prompts: Sequence[Prompt], config: SamplingConfig, path: Path, what: str = "prompts") -> list[list[Rollout]]:
        """As `rollouts.collect.collect`."""
        return collect(self.sampler, prompts, config, path, drawn_from=self.model, progress=_told(what, config.num_samples))

    def source(self, config: SamplingConfig, **more: Any) -> dict[str, Any]:
        """Who wrote what was drawn: `Completion.source`."""
        return {"kind": "sample", **self.model, "seed": config.seed, "temperature": config.temperature, **more}


def _told(what: str, samples: int) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        say(f"sampled {samples} answers to {done} of {total} {what}.")

    return tell
