"""A real OpenAI-compatible server for tests: it serves a model's own log-probabilities, and can be told to be busy, slow, rude or dead."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from accord.types import content_hash

Reply = dict[str, Any]
Replies = Callable[[dict[str, Any]], Reply]
"""From the body of a request to that of its answer."""


def completion(
    text: str, *, logprobs: list[dict[str, Any]] | None = None, finish: str = "stop", tokens: tuple[int, int] = (10, 1)
) -> Reply:
    """A chat completion as OpenAI writes it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    choice["logprobs"] = None if logprobs is None else {"content": logprobs}
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    return {"id": "c", "object": "chat.completion", "created": 0, "model": "served", "choices": [choice], "usage": usage}


def says(text: str) -> Replies:
    """Always this text, without probabilities."""
    return lambda body: completion(text)


class StoriesReplies:
    """Greedy text of a transformers model with the likeliest tokens in each place, computed by the model's plain forward pass."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._lock = threading.Lock()

    def __call__(self, body: dict[str, Any]) -> Reply:
        with self._lock, torch.no_grad():
            return self._reply(body)

    def _reply(self, body: dict[str, Any]) -> Reply:
        text = self.tokenizer.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        prompt, places = len(ids), list[dict[str, Any]]()
        finish = "length"
        for _ in range(body["max_tokens"]):
            logprobs = self.model(input_ids=torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
            best = logprobs.topk(min(body.get("top_logprobs", 1), len(logprobs)))
            near = [self._place(token, value) for token, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
            token = int(logprobs.argmax())
            if token == self.tokenizer.eos_token_id:
                finish = "stop"
                break
            ids = [*ids, token]
            places.append({**self._place(token, float(logprobs[token])), "top_logprobs": near})
        text = "".join(place["token"] for place in places)
        return completion(text, logprobs=places if body.get("logprobs") else None, finish=finish, tokens=(prompt, len(ids) - prompt))

    def _place(self, token: int, logprob: float) -> dict[str, Any]:
        text = self.tokenizer.convert_ids_to_tokens(token).replace("▁", " ")
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


class JudgeServer:
    """Serves on a free port of this machine.

    Args:
        replies: what it answers; `trouble` comes before it.
    """

    def __init__(self, replies: Replies = says("A")) -> None:
        self.replies = replies
        self.trouble: Callable[[int], Response | None] = lambda number: None
        """From the number of a request (0 is the first) to what is sent instead of an answer, if anything."""
        self.answered: Counter[str] = Counter()
        """How often each different question was answered."""
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> JudgeServer:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Serve, on the port it had before if there was one."""
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._server = uvicorn.Server(uvicorn.Config(self._app(), log_level="critical", access_log=False))
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],), daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        """Drop everything, answers on their way too."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)
        self._listener.close()

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/v1/models")
        def models() -> dict[str, Any]:
            return {"object": "list", "data": [{"id": "served", "object": "model", "created": 0, "owned_by": "tests"}]}

        @app.post("/v1/chat/completions")
        async def completions(request: Request) -> Response:
            from starlette.concurrency import run_in_threadpool

            body = await request.json()
            with self._lock:
                number = len(self.requests)
                self.requests.append(body)
                self.headers.append(dict(request.headers))
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
            try:
                return await run_in_threadpool(self._answer, number, body)
            finally:
                with self._lock:
                    self._at_once -= 1

        return app

    def _answer(self, number: int, body: dict[str, Any]) -> Response:
        trouble = self.trouble(number)
        if trouble is not None:
            return trouble
        reply = self.replies(body)
        with self._lock:
            self.answered[content_hash(body["messages"])] += 1
        return JSONResponse(reply)


def failing(status: int, message: str = "no", **headers: str) -> Response:
    """An error as OpenAI writes it."""
    return JSONResponse({"error": {"message": message, "type": "error", "code": None}}, status, headers)
