"""A conversation as the model reads it: its oldest turns are left out where the model has no positions for them."""

from __future__ import annotations

from collections.abc import Sequence

from accord.errors import ConfigError
from accord.models.opened import Opened
from accord.types import Message


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
