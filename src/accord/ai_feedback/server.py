"""A judge's model behind any OpenAI-compatible server: many questions at a time, patient with a server that is slow, busy, or gone for a while."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from accord.ai_feedback.asking import OUT_OF_BUDGET, Answer, Keep, Question
from accord.ai_feedback.patience import LONGEST_WAIT, Pace, retry_after
from accord.ai_feedback.store import Spent
from accord.errors import ConfigError, MachineError
from accord.types import content_hash

FIRST_WORDS = 8
"""Tokens asked for where an option is the first thing said: room for a bracket before it, and for text to parse where no probabilities come."""
UNREADABLE = "the server's answer could not be read"


@dataclass(frozen=True)
class ServerSettings:
    """How a server is used. None of it changes an answer but `top_logprobs`."""

    concurrency: int = 8
    """Questions on their way at a time."""
    attempts: int = 6
    """Tries of a question before the run stops (no connection) or its answer counts as unreadable."""
    timeout: float = 60.0
    """Seconds to wait for one answer."""
    requests_per_minute: float | None = None
    """None: as many as come about."""
    top_logprobs: int = 20
    """Likeliest tokens asked for in each place. 0 asks for none: verdicts are parsed from text."""
    max_tokens: int | None = None
    """Tokens, in and out, that all answers of the store may have together. None: no limit."""
    max_cost: float | None = None
    """Money for the same, by the prices."""
    price_in: float = 0.0
    """Money for a million tokens of questions."""
    price_out: float = 0.0
    """Money for a million tokens of answers."""
    api_key_env: str = "ACCORD_API_KEY"
    """Environment variable with the key. Its value is sent to the server and nowhere else."""

    def __post_init__(self) -> None:
        for name, lowest in (("concurrency", 1), ("attempts", 1), ("top_logprobs", 0)):
            if getattr(self, name) < lowest:
                raise ConfigError(f"--{name} {getattr(self, name)} must be {lowest} or more.")
        for name in ("timeout", "requests_per_minute", "max_tokens", "max_cost"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"--{name} {value} must be above 0.")
        if self.max_cost is not None and not (self.price_in or self.price_out):
            raise ConfigError("--max_cost needs prices: --price_in and --price_out, for a million tokens.")

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.price_in + completion_tokens * self.price_out) / 1e6


class Transient(Exception):
    """A failure that may pass: the question is asked again."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds
        """How long the server asked to wait."""


class ServedModel:
    """Answers questions through a server; a `LanguageModel`.

    Args:
        url: of the server's API, http://127.0.0.1:8000/v1.
        model: its name there. None: the only one that the server has.
    Raises:
        ConfigError: if the address is none or holds a password, or the server has several models and none is named.
        MachineError: if openai is not installed, or the server cannot be reached.
    """

    def __init__(self, url: str, model: str | None = None, settings: ServerSettings = ServerSettings()) -> None:
        self.url, self.settings = _checked(url), settings
        self._key = os.environ.get(settings.api_key_env, "")
        self._client = _client(self.url, self._key or "none", settings.timeout)
        self._pace = Pace(settings.requests_per_minute)
        self._logprobs = settings.top_logprobs > 0
        self._limit_name = "max_tokens"
        self.model = model or self._only_model()
        self.name = self.model

    def key(self, question: Question) -> str:
        """Hash of the server, its model, what is asked and whether probabilities are asked for."""
        return content_hash([self.url, self.model, dataclasses.asdict(question), self.settings.top_logprobs], 32)

    def answer(self, questions: Sequence[Question], keep: Keep, spent: Spent) -> list[Answer]:
        """An answer to each, `concurrency` at a time.

        Raises:
            MachineError: if the server stays away. Answers that were on their way are waited for and kept first.
            ConfigError: if it refuses the key, the model or the request.
        """
        found: dict[int, Answer] = {}
        budget = _Budget(self.settings, spent)
        on_their_way: dict[Future[Answer], int] = {}
        failure: BaseException | None = None

        def settle(done: Sequence[Future[Answer]]) -> None:
            nonlocal failure
            for future in done:
                index = on_their_way.pop(future)
                error = future.exception()
                answer = future.result() if error is None else None
                budget.settle(questions[index], answer)
                if answer is None:
                    failure = failure or error
                    continue
                found[index] = answer
                if answer.error is None:
                    keep(index, answer)

        self._pace.start()
        with ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix="judge") as pool:
            try:
                for index, question in enumerate(questions):
                    while on_their_way and (len(on_their_way) >= self.settings.concurrency or not budget.has_room(question)):
                        settle(list(wait(on_their_way, return_when=FIRST_COMPLETED).done))
                    if failure is not None:
                        break
                    if not budget.has_room(question):
                        found[index] = Answer(error=OUT_OF_BUDGET)
                        continue
                    budget.reserve(question)
                    on_their_way[pool.submit(self._ask, question)] = index
            except BaseException:
                self._pace.stop()
                raise
            finally:  # after Ctrl-C too: what is on its way is paid for
                if failure is not None:
                    self._pace.stop()
                settle(list(wait(on_their_way).done))
        if failure is not None:
            raise failure
        return [found[index] for index in range(len(questions))]

    # -- one question ---------------------------------------------------------------------------------------------------------------

    def _ask(self, question: Question) -> Answer:
        """One answer. A server that asks to wait is waited for; other failures that may pass are tried again `attempts` times."""
        failures, waited = 0, 0.0
        while True:
            self._pace.wait()
            try:
                return self._parsed(self._request(question), question)
            except Transient as error:
                reason = str(error)
                if error.seconds is not None:
                    waited += error.seconds
                    if waited > LONGEST_WAIT:
                        raise MachineError(
                            f"{self.url} asks to wait {waited / 60:.0f} minutes in all. Run the same command again later; answers are kept."
                        ) from error
                    self._pace.pause(error.seconds, everybody=True)
                    continue
                failures += 1
                if failures < self.settings.attempts:
                    self._pace.pause(min(60.0, 0.5 * 2 ** (failures - 1)), everybody=False)
                elif reason.startswith(UNREADABLE):
                    return Answer(error=reason)
                else:
                    raise MachineError(
                        f"{self.url} did not answer in {failures} tries ({reason}). Answers so far are kept: run the same command again when it does."
                    ) from error

    def _request(self, question: Question) -> str:
        """The body of the server's answer."""
        import openai

        try:
            response = self._client.chat.completions.with_raw_response.create(**self._arguments(question))
            return cast("str", response.http_response.text)
        except openai.APIStatusError as error:
            return self._refused(error, question)
        except openai.APITimeoutError as error:
            raise Transient(f"no answer within {self.settings.timeout:g} s") from error
        except openai.APIConnectionError as error:
            raise Transient("no connection") from error

    def _arguments(self, question: Question) -> dict[str, Any]:
        asked: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.content} for message in question.messages],
            "temperature": question.temperature,
            self._limit_name: question.max_new_tokens or FIRST_WORDS,
        }
        if question.temperature:
            asked["seed"] = question.seed
        if question.options and self._logprobs:
            asked |= {"logprobs": True, "top_logprobs": self.settings.top_logprobs}
        return asked

    def _refused(self, error: Any, question: Question) -> str:
        """What to do about a status that is no success: wait, ask in another way, or stop."""
        status, said = error.status_code, self._hidden(str(error))
        if status in (408, 409, 425, 429) or status >= 500:
            raise Transient(f"status {status}", retry_after(error.response.headers)) from error
        if status == 400 and self._limit_name == "max_tokens" and "max_completion_tokens" in said:
            self._limit_name = "max_completion_tokens"
            return self._request(question)
        if status in (400, 422) and self._logprobs and "logprob" in said:
            raise ConfigError(
                f"{self.url} refuses top_logprobs={self.settings.top_logprobs}: {said[:200]}. Ask for fewer, or for none: --top_logprobs 0."
            ) from error
        if status in (401, 403):
            has = "is set" if self._key else "is not set"
            raise ConfigError(
                f"{self.url} refuses the key (status {status}). It is read from {self.settings.api_key_env}, which {has}; --api_key_env names another variable."
            ) from error
        if status == 400:
            return json.dumps({"refused": said[:300]})
        raise ConfigError(f"{self.url} refuses to answer as {self.model!r} (status {status}): {said[:200]}") from error

    def _parsed(self, body: str, question: Question) -> Answer:
        """The answer in a body.

        Raises:
            Transient: if the body makes no sense.
        """
        try:
            loaded = json.loads(body)
            if "refused" in loaded:
                return Answer(error=f"the server refuses the question: {loaded['refused']}")
            choice = loaded["choices"][0]
            text = choice["message"]["content"] or ""
            top = _top((choice.get("logprobs") or {}).get("content")) if self._logprobs and question.options else None
            usage = loaded.get("usage") or {}
            prompt, completion = int(usage.get("prompt_tokens", _bound(question))), int(usage.get("completion_tokens", len(text.encode())))
            finish = "length" if choice.get("finish_reason") == "length" else "stop"
            model = str(loaded.get("model") or self.model)
            if not isinstance(text, str):
                raise TypeError("content")
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise Transient(f"{UNREADABLE} ({self._hidden(body[:60])!r})") from error
        return Answer(text, None, top, finish, model, prompt, completion, self.settings.cost(prompt, completion))

    def _only_model(self) -> str:
        names = self._models()
        if len(names) != 1:
            raise ConfigError(f"{self.url} has {len(names)} models ({', '.join(names[:8])}). Name one: {self.url}#MODEL")
        return names[0]

    def _models(self) -> list[str]:
        import openai

        reason = ""
        for attempt in range(1, self.settings.attempts + 1):
            try:
                return [str(model.id) for model in self._client.models.list().data]
            except openai.OpenAIError as error:
                reason = self._hidden(str(error))[:100]
            if attempt < self.settings.attempts:
                time.sleep(min(60.0, 0.5 * 2**attempt))
        raise MachineError(f"{self.url} cannot be asked for its models ({reason}). Start it, or name a model: {self.url}#MODEL")

    def _hidden(self, text: str) -> str:
        """A server's words without the key, should it repeat it."""
        return text.replace(self._key, "***") if self._key else text


class _Budget:
    """Tokens and money: what is spent, and what questions on their way may come to. Nothing is asked that could go beyond.

    A question of n bytes has at most n tokens, so what is reserved is never too little.
    """

    def __init__(self, settings: ServerSettings, spent: Spent) -> None:
        self.settings, self.tokens, self.cost = settings, spent.tokens, spent.cost
        self._reserved: dict[int, tuple[int, float]] = {}

    def has_room(self, question: Question) -> bool:
        tokens, cost = self._most(question)
        tokens += self.tokens + sum(reserved for reserved, _ in self._reserved.values())
        cost += self.cost + sum(reserved for _, reserved in self._reserved.values())
        return (self.settings.max_tokens is None or tokens <= self.settings.max_tokens) and (
            self.settings.max_cost is None or cost <= self.settings.max_cost
        )

    def reserve(self, question: Question) -> None:
        self._reserved[id(question)] = self._most(question)

    def settle(self, question: Question, answer: Answer | None) -> None:
        """A question came back: what it really took counts from now on."""
        del self._reserved[id(question)]
        if answer is not None:
            self.tokens += answer.prompt_tokens + answer.completion_tokens
            self.cost += answer.cost

    def _most(self, question: Question) -> tuple[int, float]:
        prompt, completion = _bound(question), question.max_new_tokens or FIRST_WORDS
        return prompt + completion, self.settings.cost(prompt, completion)


def _bound(question: Question) -> int:
    """More tokens than a question has: one a byte, and what a chat template puts around a message."""
    return sum(len(message.content.encode("utf-8")) + 16 for message in question.messages) + 16


def _top(content: Any) -> tuple[tuple[str, dict[str, float]], ...] | None:
    """Each token with the likeliest ones in its place; None where the server gives none."""
    if not content:
        return None
    found: list[tuple[str, dict[str, float]]] = []
    for place in content:
        near = {_plain(one["token"]): float(one["logprob"]) for one in place.get("top_logprobs") or ()}
        if not near:
            return None
        near.setdefault(_plain(place["token"]), float(place["logprob"]))
        found.append((_plain(place["token"]), near))
    return tuple(found)


def _plain(token: str) -> str:
    """A token's text; some servers leave the marks of their tokenizer in it."""
    return token.replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n")


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is no address of a server: http://127.0.0.1:8000/v1")
    if parts.username or parts.password:
        raise ConfigError("The server's address holds a user or password. Put the key into an environment variable: --api_key_env NAME")
    return url.rstrip("/")


def _client(url: str, key: str, timeout: float) -> Any:
    try:
        import openai
    except ImportError as error:
        raise MachineError("Judges behind a server need openai: pip install 'accord[judges]'") from error
    client = openai.OpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=0)
    client.organization = client.project = None  # from the environment, and meant for another server
    return client
