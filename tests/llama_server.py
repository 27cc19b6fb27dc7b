"""llama.cpp's own HTTP server on a GGUF file, where the package xllamacpp is installed (it brings llama.cpp compiled)."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

INSTALLED = importlib.util.find_spec("xllamacpp") is not None
READY_SECONDS = 60
CODE = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = sys.argv[1], ["127.0.0.1"], int(sys.argv[2])
params.n_ctx, params.n_parallel, params.warmup = 8192, 2, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
server = xllamacpp.Server(params)
while True:
    time.sleep(1)
"""


@contextmanager
def serving(file: Path) -> Iterator[str]:
    """The address of the server, `http://127.0.0.1:PORT/v1`, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", CODE, str(file), str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        started = time.monotonic()
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None and time.monotonic() - started < READY_SECONDS, "llama.cpp's server did not start"
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def greedy_chat(address: str, question: str, tokens: int) -> str:
    """What it answers by its own template, tokenizer and end tokens, always the most probable token."""
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": tokens, "temperature": 0}
    request = urllib.request.Request(f"{address}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        found: dict[str, Any] = json.load(answer)
    return str(found["choices"][0]["message"]["content"])
