"""From rows to the prompts that an online method answers: each once, and short enough for an answer to follow."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from accord.config.online import OnlineConfig
from accord.data.render import Renderer
from accord.errors import ConfigError, DataError
from accord.models.adapters import PolicyModel
from accord.rollouts.random import shuffled, uniform
from accord.rollouts.sampler import Prompt
from accord.training.setup import Rows, examples, report_rendering
from accord.types import Example

KINDS = ("prompt", "demonstration", "preference", "ranking", "labelled")
"""Rows that have a prompt; answers in them are not read."""


def prompts_of(rows: Rows, renderer: Renderer, what: str, columns: dict[str, str] | None = None, seed: int = 0) -> list[Prompt]:
    """Each different prompt once, in order, with its columns; what had to be cut is said.

    Raises:
        DataError: naming the row, if there are none, one is of another kind, or a prompt has no tokens.
    """
    found: dict[str, Prompt] = {}
    for row in examples(rows, kinds=KINDS, what=what, columns=columns, seed=seed):
        if row.prompt_id not in found:
            found[row.prompt_id] = as_prompt(row, renderer)
    report_rendering(renderer, what)
    return list(found.values())


def as_prompt(row: Example, renderer: Renderer) -> Prompt:
    """What a sampler answers: the prompt of a row as tokens, and the columns that rewards may read.

    Raises:
        DataError: naming the row, if it cannot be rendered or has no tokens.
    """
    try:
        ids = renderer.prompt_ids(row.prompt, row.columns)
    except DataError as error:
        raise DataError(f"{row.where or 'row'}: {error}") from error
    if not ids:
        raise DataError(f"{row.where or 'row'}: its prompt has no tokens: there is nothing to answer. Remove the row or fix its text.")
    return Prompt(row.prompt_id, tuple(ids), row.prompt, dict(row.columns))


def prompt_room(config: OnlineConfig, policy: PolicyModel) -> int | None:
    """Tokens that a prompt may have, so that prompt and answer fit `max_length` and the model's positions; None where nothing limits it.

    Raises:
        ConfigError: if the answer alone takes all positions.
    """
    positions = getattr(policy.text_config, "max_position_embeddings", None)
    if positions is not None and positions <= config.answer_tokens:
        raise ConfigError(
            f"{type(config).__name__}: {config.answer_field}={config.answer_tokens} leaves no room for a prompt: the model has {positions} positions."
        )
    limits = [length - config.answer_tokens for length in (config.max_length, positions) if length is not None]
    return min([*limits, *([config.max_prompt_length] if config.max_prompt_length is not None else [])], default=None)


UNSEEN = 0.5
"""The pass rate that a prompt nobody has answered yet counts as: it is as likely to be asked as any."""
LEAST = 0.01
"""Weight of a prompt always or never answered well: it is asked now and then, for the policy moves."""


class PromptQueue:
    """Which prompts a round asks: seeded epochs over all of them or, adaptive, those of middling difficulty more often.

    What is asked depends on seed, round and what was measured alone, so a resumed run asks the same.

    Args:
        prompts: all of them, each once.
        seed: orders them.
        adaptive: True draws without replacement in proportion to p (1 - p), p the last mean reward of a prompt, in 0 to 1. False takes
            each once an epoch.
    """

    def __init__(self, prompts: Sequence[Prompt], seed: int, *, adaptive: bool = False) -> None:
        self.prompts, self.seed, self.adaptive = list(prompts), seed, adaptive
        self.position = 0
        """Prompts asked so far."""
        self.rates: dict[str, float] = {}
        """The last mean reward of each prompt that was answered."""

    @property
    def epochs(self) -> float:
        """Prompts asked so far, in passes over all of them."""
        return self.position / len(self.prompts)

    def take(self, count: int, round_number: int, *, but: Collection[str] = ()) -> list[Prompt]:
        """The next `count` prompts, all different: fewer where there are fewer.

        Args:
            round_number: part of the key of adaptive draws.
            but: ids that this round has asked already.
        """
        available = [prompt for prompt in self.prompts if prompt.id not in but]
        wanted = min(count, len(available))
        if not self.adaptive:
            return self._next(wanted, but)
        self.position += wanted
        return self._drawn(available, wanted, round_number)

    def observe(self, prompt_id: str, mean_reward: float) -> None:
        """Note how well a prompt was answered."""
        self.rates[prompt_id] = mean_reward

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        return {"position": self.position, "rates": dict(self.rates) if self.adaptive else {}}

    def load(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.position, self.rates = int(state["position"]), dict(state.get("rates", {}))

    def _next(self, count: int, but: Collection[str]) -> list[Prompt]:
        """From `position` on, and moves it past them. A round over the edge of an epoch leaves out of the new one what it has asked already."""
        chosen: dict[str, Prompt] = {}
        while len(chosen) < count:
            epoch, index = divmod(self.position, len(self.prompts))
            prompt = self.prompts[shuffled(len(self.prompts), "prompts", self.seed, epoch)[index]]
            if prompt.id not in but:
                chosen.setdefault(prompt.id, prompt)
            self.position += 1
        return list(chosen.values())

    def _drawn(self, available: Sequence[Prompt], count: int, round_number: int) -> list[Prompt]:
        """Weighted draws without replacement: the largest u^(1/w) (Efraimidis and Spirakis 2006)."""

        def key(prompt: Prompt) -> float:
            rate = min(1.0, max(0.0, self.rates.get(prompt.id, UNSEEN)))
            return uniform(self.seed, round_number, prompt.id, -1, -1) ** (1.0 / max(LEAST, rate * (1.0 - rate)))

        return sorted(available, key=key, reverse=True)[:count]
