"""A model to chat with on a page: one answer to each question, nothing learned, nothing kept."""

from __future__ import annotations

from collections.abc import Sequence

from accord.config.options import ChatOptions
from accord.models.opened import Opened, open_model
from accord.recipes.conversation import checked, fitted
from accord.recipes.partner import Partner, Reply, Watch
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.types import Message


class PlainChat(Partner):
    """One model that answers.

    Args:
        opened: the model.
        chat: how answers are drawn.
        title: its name for people.
    """

    kind = "chat"

    def __init__(self, opened: Opened, chat: ChatOptions, title: str) -> None:
        self.opened, self.chat, self.title = opened, chat, title
        self._sampler = LocalSampler(opened.policy, opened.renderer, opened.stack)
        self._answered = 0

    def propose(self, messages: Sequence[Message], annotator: str, watch: Watch | None = None) -> Reply:
        """Answer the last turn.

        Raises:
            DataError: if the turns are none. ConfigError: if the last one is too long for the model.
        """
        chat, given = self.chat, checked(messages)
        system = [Message("system", chat.system)] if chat.system else []
        kept, ids = fitted(self.opened, [*system, *given], chat.max_new_tokens)
        self._answered += 1
        top_p = 0.95 if chat.top_p is None else chat.top_p
        config = SamplingConfig(chat.max_new_tokens, temperature=chat.temperature, top_p=top_p, seed=chat.seed, step=self._answered)

        def told(_: str, index: int, written: Sequence[int]) -> None:
            if watch is not None:
                watch(index, self.opened.renderer.decode(written))

        (rollout,) = self._sampler.sample([Prompt("chat", tuple(ids), tuple(kept))], config, watch=told)
        return Reply(rollout.text, len(system) + len(given) - len(kept))


def open_chat(chat: ChatOptions, title: str) -> PlainChat:
    """Open the model. Raises as `open_model`."""
    return PlainChat(open_model(chat.model, accept_licence=chat.accept_licence, force=chat.force), chat, title)
