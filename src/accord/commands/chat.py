"""`accord chat` and `accord sample`: answers from a model or a run, in the terminal; `accord chat --learn`: in the browser, learning."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from accord.config.options import ChatOptions, LearnOptions
from accord.data.printable import printable
from accord.errors import ConfigError
from accord.models.opened import Opened, open_model
from accord.recipes.conversation import fitted
from accord.rollouts.local import LocalSampler, Watch
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.types import Message, Rollout, to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from fastapi import FastAPI


def _answer(opened: Opened, options: ChatOptions, messages: list[Message], turn: int, watch: Watch | None = None) -> list[Rollout]:
    sampler = LocalSampler(opened.policy, opened.renderer, opened.stack)
    prompt = Prompt(f"turn {turn}", tuple(_ids(opened, options, messages)), tuple(messages))
    config = SamplingConfig(
        options.max_new_tokens,
        options.num_samples,
        options.temperature,
        top_p=0.95 if options.top_p is None else options.top_p,
        seed=options.seed,
        step=turn,
    )
    return sampler.sample([prompt], config, watch=watch)


def _ids(opened: Opened, options: ChatOptions, messages: list[Message]) -> list[int]:
    """The conversation as tokens; its oldest turns are taken out of `messages`, and said, where the model has no positions for them."""
    kept, ids = fitted(opened, messages, options.max_new_tokens)
    for _ in range(len(kept), len(messages), 2):
        positions = opened.policy.text_config.max_position_embeddings
        print(f"(The oldest turn is forgotten: the model has {positions} positions.)", file=sys.stderr)
    messages[:] = kept
    return ids


def chat(options: ChatOptions, learning: LearnOptions) -> int:
    """Talk until an empty line or the end of input; each turn sees the ones before it. With --learn a page is served instead."""
    return learn(options, learning) if learning.learn else _talk(options)


def learn(options: ChatOptions, learning: LearnOptions) -> int:
    """Serve the chat that learns, with the runs beside it, until Ctrl-C, then save."""
    from accord.recipes.learn import open_learner
    from accord.recipes.learn_thread import Background
    from accord.web import chat as page
    from accord.web import watch
    from accord.web.serve import Listening, serve

    certificate, key = (Path(path) if path else None for path in (learning.tls_cert, learning.tls_key))
    listening = Listening(learning.host, learning.port, certificate, key, learning.behind)
    learner = open_learner(options, learning)
    print(learner.opened.line, file=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what stops a service is Ctrl-C here

    def mount(app: FastAPI) -> None:
        page.mount(app, background)
        watch.mount(app, learner.folder.parent)
        app.state.templates.globals["reader_links"] += (watch.LINK,)

    try:
        with Background(learner) as background:
            serve(learner.project, listening, open_browser=learning.open_browser, page=page.PAGE, mount=mount)
    finally:
        print(learner.close(), file=sys.stderr)
    return 0


def _talk(options: ChatOptions) -> int:
    opened = open_model(options.model, accept_licence=options.accept_licence, force=options.force)
    if opened.stack:  # the base has been said
        print(opened.line, file=sys.stderr)
    messages = [Message("system", options.system)] if options.system else []
    if sys.stdin.isatty() and not options.prompt:
        print("An empty line ends the conversation.", file=sys.stderr)
    lines = iter(options.prompt) if options.prompt else iter(_typed, "")
    for turn, line in enumerate(lines):
        messages.append(Message("user", line))
        spoken = _Spoken(opened.renderer.decode, opened.renderer.end_ids)
        text = _answer(opened, options, messages, turn, spoken)[0].text
        spoken.end(text)
        messages.append(Message("assistant", text))
    return 0


class _Spoken:
    """An answer on standard output while it grows; what would command the terminal is shown as escapes."""

    def __init__(self, decode: Callable[[Sequence[int]], str], end_ids: Collection[int]) -> None:
        self.decode, self.end_ids = decode, end_ids
        self.said = ""

    def __call__(self, _: str, index: int, written: Sequence[int]) -> None:
        """Say what an answer has gained: not its end token, and no character of which only a part is there."""
        if index == 0 and written[-1] not in self.end_ids:
            self._say(self.decode(written).rstrip("\ufffd"))

    def _say(self, text: str) -> None:
        if text.startswith(self.said):  # a tokenizer may spell the last word anew: then it waits
            print(printable(text[len(self.said) :]), end="", flush=True)
            self.said = text

    def end(self, text: str) -> None:
        """Say the rest; the whole text once more where what was said is not its beginning."""
        if not text.startswith(self.said):
            print()
            self.said = ""
        self._say(text)
        print(flush=True)


def _typed() -> str:
    if sys.stdin.isatty():
        print("> ", end="", flush=True)
    line = sys.stdin.readline()
    if sys.stdin.isatty() and not line:
        print()
    return line.strip()


def sample(options: ChatOptions) -> int:
    """One JSON line an answer: text, token ids, log-probabilities, why it ended."""
    if not options.prompt:
        raise ConfigError("accord sample needs --prompt: accord sample MODEL --prompt 'What is a noun?'")
    opened = open_model(options.model, accept_licence=options.accept_licence, force=options.force)
    for turn, line in enumerate(options.prompt):
        messages = [*([Message("system", options.system)] if options.system else []), Message("user", line)]
        for rollout in _answer(opened, options, messages, turn):
            line = json.dumps(to_json(rollout), ensure_ascii=False)
            print("".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in line))
    return 0
