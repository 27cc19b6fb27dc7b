"""The other side of a `GraderProcess`: imports one grader and answers requests, a line of JSON each. Run as a module, not imported."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from accord.errors import AccordError, ConfigError
from accord.rewards.verdicts import Verdict


def main(grader: str, memory_gib: float) -> None:
    """Answer until the input ends. What the grader prints goes to the error stream, so that it cannot be taken for a reply."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)
    try:
        function = load_grader(grader)
        _limit_memory(memory_gib)
    except Exception as error:
        _reply(replies, _failure(error))
        return
    _reply(replies, {"ready": True})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            reply = _result(function(request["text"], request["gold"], **request["options"]), grader)
        except AccordError as error:
            reply = {"error": str(error), "kind": type(error).__name__}
        except (Exception, RecursionError, MemoryError) as error:
            reply = _failure(error, f"{grader} raised ")
        _reply(replies, reply)


def load_grader(spec: str) -> Callable[..., Any]:
    """The function at "module:function" or "file.py:function".

    Raises:
        ConfigError: if it is not there.
    """
    place, _, name = spec.rpartition(":")
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise ConfigError(f"Grader file {place} does not exist.")
        found = importlib.util.spec_from_file_location(Path(place).stem, place)
        assert found is not None and found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
    else:
        module = importlib.import_module(place)
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"{place} has no function {name!r}.")
    getattr(module, "prepare", lambda: None)()
    return function


def _result(value: Any, grader: str) -> dict[str, Any]:
    if isinstance(value, Verdict):
        return {"outcome": value.outcome, "reason": value.reason}
    if isinstance(value, (bool, int, float)):
        if math.isfinite(value):
            return {"value": float(value)}
        return {"error": f"{grader} returned {value}", "kind": ""}
    return {"error": f"{grader} returned {value!r:.80}, which is no verdict and no number", "kind": ""}


def _failure(error: BaseException, before: str = "") -> dict[str, Any]:
    said = str(error).splitlines()[0] if str(error) else "no message"
    kind = type(error).__name__
    if isinstance(error, AccordError):
        return {"error": said, "kind": kind}
    return {"error": f"{before}{kind}: {said}", "kind": ""}


def _limit_memory(gib: float) -> None:
    """Bound the address space, so that one expression cannot take the machine's memory before its time is up."""
    if gib > 0 and sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (int(gib * 2**30), hard))


def _reply(replies: IO[str], reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
