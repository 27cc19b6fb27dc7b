"""The two processes that run code nobody trusts: the answer, and the tests that call it. Both give up every right first."""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from accord.rewards.sandboxed.plain_data import NotPlainError, pack, unpack

MESSAGE = 4 << 20
"""Longest line that passes between the processes, characters."""


def restrict(limits: dict[str, Any]) -> None:
    """Set this process's limits, give up its user and every way to gain rights back; refuse Python's sockets where no namespace holds the network."""
    try:
        import resource
    except ImportError:  # Windows: the supervisor says what is not limited
        resource = None
    if resource is not None:
        wanted = {
            "RLIMIT_CPU": (limits["cpu_seconds"], limits["cpu_seconds"] + 1),
            "RLIMIT_FSIZE": (limits["file_bytes"],) * 2,
            "RLIMIT_NOFILE": (limits["open_files"],) * 2,
            "RLIMIT_CORE": (0, 0),
            "RLIMIT_AS": (limits["memory_bytes"],) * 2,
        }
        if limits["process_limit"]:
            wanted["RLIMIT_NPROC"] = (limits["process_limit"],) * 2
        for name, values in wanted.items():
            try:
                resource.setrlimit(getattr(resource, name), values)
            except (AttributeError, ValueError, OSError):
                if sys.platform.startswith("linux"):
                    raise
    if limits["uid"]:
        os.setgroups([])
        os.setresgid(limits["uid"], limits["uid"], limits["uid"])
        os.setresuid(limits["uid"], limits["uid"], limits["uid"])
    if sys.platform.startswith("linux"):
        import ctypes

        prctl = ctypes.CDLL(None).prctl
        prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG: die with the supervisor
        prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        if limits["guarded"]:
            prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: the answer may have the same user and must not read or trace the tests
    if limits["refuse_sockets"]:
        sys.addaudithook(_refuse_sockets)
    sys.path[:] = limits["path"]
    sys.argv[:] = ["answer.py"]


def _refuse_sockets(event: str, arguments: Any) -> None:
    if event.startswith("socket.") or (event == "import" and arguments[0] in ("_socket", "_ctypes")) or event.startswith("ctypes."):
        raise PermissionError("The network and ctypes are not available in the sandbox.")


def _pipes() -> tuple[TextIO, TextIO]:
    """Requests and replies as private files; standard input becomes empty, standard output goes where standard error goes."""
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8", errors="surrogatepass", newline="\n")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="surrogatepass", newline="\n")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    return requests, replies


def _sender(replies: TextIO) -> Callable[[dict[str, Any]], None]:
    def send(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    return send


def _module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    sys.modules[name] = module
    return module


def _said(error: BaseException) -> str:
    try:
        text = str(error).strip().splitlines()
    except BaseException:  # an exception class of the answer whose own text fails
        text = []
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__


def _failure(error: BaseException) -> dict[str, Any]:
    error.__traceback__ = None  # its frames may hold the memory that ran out
    return {"raised": type(error).__name__, "text": _said(error), "memory": isinstance(error, MemoryError)}


def answer() -> None:
    """Run an answer's code, then call its functions as asked; or, when tests come along, run them in the same process."""
    requests, replies = _pipes()
    restrict(json.loads(sys.argv[1]))
    send = _sender(replies)
    job = json.loads(requests.readline())
    module = _module("answer")
    send({"begins": True})
    try:
        exec(compile(job["code"], "answer.py", "exec"), module.__dict__)
        if "tests" in job:
            _together(job, module.__dict__)
            _flush()
            send({"passed": job["secret"]})
            return
    except BaseException as error:
        _flush()
        send({"failed": _failure(error)})
        return
    send({"ready": [name for name, value in list(module.__dict__.items()) if callable(value) and not name.startswith("_")]})
    for line in requests:
        try:
            reply = _called(json.loads(line), module.__dict__)
        except BaseException as error:
            reply = _failure(error)
        _flush()
        send(reply)


def _flush() -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # the answer may have closed or replaced them
        pass


def _together(job: dict[str, Any], namespace: dict[str, Any]) -> None:
    exec(compile(job["tests"], "tests.py", "exec"), namespace)
    if job["entry_point"] and callable(namespace.get("check")):
        namespace["check"](namespace[job["entry_point"]])


def _called(call: dict[str, Any], namespace: dict[str, Any]) -> dict[str, Any]:
    arguments, named = unpack(call["arguments"]), unpack(call["named"])
    result = namespace[call["call"]](*arguments, **named)
    try:
        packed, after = pack(result), pack(arguments)
    except NotPlainError as error:
        return {"not_plain": str(error)}
    return {"result": packed, "after": after if after != call["arguments"] else None}


class AnswerError(Exception):
    """An exception of a class of the answer's own, as the tests see it."""


class _ImpossibleError(Exception):
    """The tests cannot be run apart from the answer."""


def tests() -> None:
    """Run tests whose calls of the answer's functions go to the answer's process; say how they ended."""
    requests, replies = _pipes()
    restrict(json.loads(sys.argv[1]))
    send = _sender(replies)
    job = json.loads(requests.readline())
    calls = 0

    def stand_in(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            try:
                send({"call": name, "arguments": pack(list(arguments)), "named": pack(named)})
            except NotPlainError as error:
                raise _ImpossibleError(f"they pass {error} to the answer; run them with isolated=False") from None
            return _result(json.loads(requests.readline()), arguments)

        call.__name__ = name
        return call

    namespace = _module("tests").__dict__
    try:
        exec(compile(job["preamble"], "preamble.py", "exec"), namespace)
        code = compile(job["tests"], "tests.py", "exec")
    except BaseException as error:
        send({"verdict": "invalid", "reason": f"the tests do not start: {_said(error)}"})
        return
    namespace |= {name: stand_in(name) for name in job["names"] if name not in namespace or name == job["entry_point"]}
    try:
        exec(code, namespace)
        if job["entry_point"] and callable(namespace.get("check")):
            namespace["check"](namespace[job["entry_point"]])
        verdict = {"verdict": "passed", "reason": ""} if calls else {"verdict": "invalid", "reason": "the tests never call the answer"}
    except _ImpossibleError as error:
        verdict = {"verdict": "invalid", "reason": f"the tests cannot run apart from the answer: {error}"}
    except BaseException as error:
        verdict = {"verdict": "failed", "reason": _where(error, job["tests"])}
    _flush()
    send(verdict)


def _result(reply: dict[str, Any], arguments: tuple[Any, ...]) -> Any:
    """What the answer returned, its changes to lists, dicts and sets among the arguments made here too; or what it raised."""
    import builtins

    if "not_plain" in reply:
        raise AnswerError(f"it returned or left in an argument {reply['not_plain']}, which is no plain data")
    if "raised" in reply:
        kind = getattr(builtins, str(reply["raised"]), None)
        text = str(reply["text"]).removeprefix(f"{reply['raised']}: ")
        error: Exception = AnswerError(str(reply["text"]))
        if isinstance(kind, type) and issubclass(kind, Exception):
            with suppress(TypeError):  # UnicodeDecodeError and its like need more than a text
                error = kind(text)
        raise error
    if reply.get("after") is not None:
        for mine, theirs in zip(arguments, unpack(reply["after"]), strict=True):
            if type(mine) is not type(theirs):
                continue
            if isinstance(mine, (list, bytearray)):
                mine[:] = theirs
            elif isinstance(mine, (dict, set)):
                mine.clear()
                mine.update(theirs)
    return unpack(reply["result"])


def _where(error: BaseException, source: str) -> str:
    """The exception and the line of the tests it came from."""
    import traceback  # only failures pay for it

    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "tests.py"]
    shown = source.splitlines()[lines[-1] - 1].strip()[:200] if lines and lines[-1] and lines[-1] <= len(source.splitlines()) else ""
    place = f" at test line {lines[-1]}: {shown}" if lines else ""
    return f"{_said(error)}{place}"
