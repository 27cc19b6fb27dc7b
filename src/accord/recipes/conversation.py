"""A conversation as the model reads it, without its oldest turns where the model has no positions for them; and two different answers to its last turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from accord.errors import ConfigError, DataError
from accord.models.opened import Opened
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.types import Message, Rollout

if TYPE_CHECKING:
    from accord.recipes.partner import Watch  # which stands on the store, and a chat in the terminal needs none

TRIES = 3
"""Pairs drawn before two answers that are the same are given up on."""


def fitted(opened: Opened, messages: Sequence[Message], max_new_tokens: int) -> tuple[list[Message], list[int]]:
    """The newest turns that leave room for an answer, and their tokens; a system message at the front stays.

    Args:
        messages: perhaps a system message, then turns of the user and the assistant, the last one the user's.
        max_new_tokens: longest answer.
    Raises:
        ConfigError: if the last turn alone leaves no room.
    """
    kept = list(messages)
    positions = getattr(opened.policy.text_config, "max_position_embeddings", None)
    first = int(kept[0].role == "system")
    while True:
        ids = opened.renderer.prompt_ids(kept)
        if positions is None or len(ids) + max_new_tokens <= positions:
            return kept, ids
        if len(kept) <= first + 2:
            raise ConfigError(
                f"The prompt has {len(ids)} tokens and the answer may have {max_new_tokens}: the model has {positions} positions. Shorten one of them."
            )
        del kept[first : first + 2]


def checked(messages: Sequence[Message]) -> list[Message]:
    """The turns, after checking that they are the user's and the assistant's by turns, from and to the user's.

    Raises:
        DataError: if they are not, the last says nothing, or one has half of a character.
    """
    roles = [message.role for message in messages]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2) + ["user"] or not messages[-1].content.strip():
        raise DataError(
            "A question is turns of the user and the assistant by turns; the first and the last are the user's, and say something."
        )
    try:
        "".join(message.content for message in messages).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"The question has half of a character, at {error.start + 1}.") from error
    return list(messages)


def two_answers(
    sampler: LocalSampler,
    prompt: Sequence[Message],
    ids: Sequence[int],
    config: SamplingConfig,
    order: Sequence[int],
    watch: Watch | None = None,
) -> list[Rollout]:
    """Two different answers to a prompt.

    Args:
        ids: the prompt as tokens.
        config: with `num_samples` 2, and a `step` of its own for each question.
        order: which of the two stands at each place of the page.
        watch: sees them grow. None: nobody does.
    Raises:
        DataError: if the model says the same again and again.
    """

    def told(_: str, index: int, written: Sequence[int]) -> None:
        if watch is not None:
            watch(order.index(index), sampler.renderer.decode(written))

    for attempt in range(TRIES):
        pair = sampler.sample([Prompt(f"{attempt}", tuple(ids), tuple(prompt))], config, watch=told)
        if pair[0].text != pair[1].text:
            return pair
    raise DataError(f"The model gave the same answer {2 * TRIES} times: there is nothing to compare. Ask something else.")
