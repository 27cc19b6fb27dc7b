"""A model as an audit sees it: it answers prompts, weighs written answers and reads text; its answers are kept in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from accord.audit.subjects import Choice, Weighed, Written
from accord.audit.weighing import Weigher
from accord.config.audit import AuditOptions
from accord.evaluation.tax import text_units
from accord.models.opened import Opened
from accord.recipes.sampled import Drawn, prompts_to_answer
from accord.rollouts.sampler import SamplingConfig
from accord.types import Example, Message, content_hash


class ModelSubject:
    """An opened model under audit.

    Args:
        name: what the user called it.
        folder: where its answers are kept, so that a second audit with the same settings draws nothing.
    """

    def __init__(self, opened: Opened, name: str, folder: Path, options: AuditOptions) -> None:
        self.opened, self.name = opened, name
        self.weigher = Weigher(opened.policy, opened.stack, opened.renderer, options.token_budget)
        self.sampling = SamplingConfig(options.max_new_tokens, 1, options.temperature, seed=options.seed)
        self.drawn = Drawn(opened, name)
        settings = [self.drawn.model["sha256"], options.max_new_tokens, options.temperature, options.seed]
        self.path = folder / f"answers-{content_hash(settings, 8)}.jsonl"

    def write(self, prompts: Sequence[tuple[Message, ...]]) -> list[Written]:
        """An answer to each prompt; equal prompts have equal answers."""
        rows = [Example("prompt", prompt, where=f"prompt {number}") for number, prompt in enumerate(prompts, start=1)]
        asked = prompts_to_answer(rows, self.opened, self.sampling.max_new_tokens, "the audit's prompts")
        groups = self.drawn(asked, self.sampling, self.path, "prompts")
        known = {prompt.id: group[0] for prompt, group in zip(asked, groups, strict=True)}
        found = [known[row.prompt_id] for row in rows]
        return [Written(rollout.text, rollout.completion_ids, rollout.finish_reason == "stop") for rollout in found]

    def weigh(self, choices: Sequence[Choice]) -> list[Weighed]:
        """log-probability of each option, its end included, in total and a token."""
        return self.weigher.weigh(choices)

    def read(self, texts: Sequence[str]) -> list[float]:
        """Nats a token of each text."""
        totals, counts = self.weigher.sums(text_units(self.opened.renderer, texts))
        return [-total / count for total, count in zip(totals, counts, strict=True)]
