"""`accord chat` and `accord sample`: answers from a model or a run."""

from __future__ import annotations

import json
import sys

from accord.config.options import ChatOptions
from accord.errors import ConfigError
from accord.models.opened import Opened, open_model
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.types import Message, Rollout, to_json


def _answer(opened: Opened, options: ChatOptions, messages: list[Message], turn: int) -> list[Rollout]:
    sampler = LocalSampler(opened.policy, opened.renderer, opened.stack)
    prompt = Prompt(f"turn {turn}", tuple(_ids(opened, options, messages)), tuple(messages))
    config = SamplingConfig(
        options.max_new_tokens, options.num_samples, options.temperature, top_p=options.top_p, seed=options.seed, step=turn
    )
    return sampler.sample([prompt], config)


def _ids(opened: Opened, options: ChatOptions, messages: list[Message]) -> list[int]:
    """The conversation as tokens; its oldest turns are taken out of `messages`, and said, where the model has no positions for them.

    Raises:
        ConfigError: if the last turn alone leaves no room for an answer.
    """
    positions = getattr(opened.policy.text_config, "max_position_embeddings", None)
    first = int(messages[0].role == "system")
    while True:
        ids = opened.renderer.prompt_ids(messages)
        if positions is None or len(ids) + options.max_new_tokens <= positions:
            return ids
        if len(messages) <= first + 2:
            raise ConfigError(
                f"The prompt has {len(ids)} tokens and the answer may have {options.max_new_tokens}: the model has {positions} positions. Shorten one of them."
            )
        print(f"(The oldest turn is forgotten: the model has {positions} positions.)", file=sys.stderr)
        del messages[first : first + 2]


def chat(options: ChatOptions) -> int:
    """Talk until an empty line or the end of input; each turn sees the ones before it."""
    opened = open_model(options.model, accept_licence=options.accept_licence, force=options.force)
    print(opened.line, file=sys.stderr)
    messages = [Message("system", options.system)] if options.system else []
    lines = iter(options.prompt) if options.prompt else iter(_typed, "")
    for turn, line in enumerate(lines):
        messages.append(Message("user", line))
        text = _answer(opened, options, messages, turn)[0].text
        messages.append(Message("assistant", text))
        print(text, flush=True)
    return 0


def _typed() -> str:
    if sys.stdin.isatty():
        print("> ", end="", flush=True)
    return sys.stdin.readline().strip()


def sample(options: ChatOptions) -> int:
    """One JSON line an answer: text, token ids, log-probabilities, why it ended."""
    if not options.prompt:
        raise ConfigError("accord sample needs --prompt: accord sample MODEL --prompt 'What is a noun?'")
    opened = open_model(options.model, accept_licence=options.accept_licence, force=options.force)
    for turn, line in enumerate(options.prompt):
        messages = [*([Message("system", options.system)] if options.system else []), Message("user", line)]
        for rollout in _answer(opened, options, messages, turn):
            print(json.dumps(to_json(rollout), ensure_ascii=False))
    return 0
