"""From rows to the prompts that an online method answers: each once, and short enough for an answer to follow."""

from __future__ import annotations

from accord.config.ppo import PPOConfig
from accord.data.render import Renderer
from accord.errors import ConfigError, DataError
from accord.models.adapters import PolicyModel
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


def prompt_room(config: PPOConfig, policy: PolicyModel) -> int | None:
    """Tokens that a prompt may have, so that prompt and answer fit `max_length` and the model's positions; None where nothing limits it.

    Raises:
        ConfigError: if the answer alone takes all positions.
    """
    positions = getattr(policy.text_config, "max_position_embeddings", None)
    if positions is not None and positions <= config.max_new_tokens:
        raise ConfigError(
            f"PPOConfig: max_new_tokens={config.max_new_tokens} leaves no room for a prompt: the model has {positions} positions."
        )
    limits = [length - config.max_new_tokens for length in (config.max_length, positions) if length is not None]
    return min([*limits, *([config.max_prompt_length] if config.max_prompt_length is not None else [])], default=None)
