"""Starts an answer and its tests, passes messages between them, watches time, memory, processes and output, and kills everything at the end.

One process for each run: it reads a job as a line of JSON, keeps its standard input open as a cord (when it ends, the caller is gone and so
is the sandbox), and writes the result as a line of JSON. Nothing here runs code of the answer or of the tests.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from accord.rewards.sandboxed.inside import MESSAGE
from accord.rewards.sandboxed.isolation import Isolation, isolate, kill_all, processes

_START_SECONDS = 60
"""How long a process may take to start, on a busy machine, before the answer's own time begins."""
_LOOK_SECONDS = 0.05
_CODE = "import sys; sys.path.insert(0, sys.argv[2]); from accord.rewards.sandboxed.inside import {0}; {0}()"


class _Stop(Exception):
    """The run is decided."""

    def __init__(self, outcome: str, reason: str) -> None:
        self.outcome, self.reason = outcome, reason


class _Child:
    """A process inside, with threads that read its replies and its output into one queue and one that writes its requests."""

    def __init__(self, role: str, job: dict[str, Any], isolation: Isolation, events: queue.Queue[tuple[str, str, Any]]) -> None:
        self.role, self.events = role, events
        limits = {
            **{name: job[name] for name in ("cpu_seconds", "file_bytes", "open_files", "memory_bytes", "path")},
            "process_limit": isolation.process_limit,
            "uid": isolation.users[role == "tests"],
            "refuse_sockets": not isolation.network,
            "guarded": role == "tests",
        }
        folder = os.path.join(job["folder"], role)
        # -s -P with an environment made here is what -I does, and lets the hash seed be fixed: the same answer, the same verdict
        command = [sys.executable, "-s", "-P", "-S", "-B", "-c", _CODE.format(role), json.dumps(limits), job["root"]]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={**job["environment"], "HOME": folder, "TMPDIR": folder},
        )
        self.requests: queue.Queue[bytes] = queue.Queue()
        for work in (self._write, self._read_replies, self._read_output):
            threading.Thread(target=work, daemon=True).start()

    def send(self, message: bytes) -> None:
        self.requests.put(message)

    def _write(self) -> None:
        assert self.process.stdin is not None
        with suppress(OSError, ValueError):
            while True:
                self.process.stdin.write(self.requests.get())
                self.process.stdin.flush()

    def _read_replies(self) -> None:
        assert self.process.stdout is not None
        with suppress(OSError, ValueError):
            while line := self.process.stdout.readline(MESSAGE):
                self.events.put((self.role, "message" if line.endswith(b"\n") else "long", line))
        self.events.put((self.role, "end", None))

    def _read_output(self) -> None:
        assert self.process.stderr is not None
        with suppress(OSError, ValueError):
            while data := os.read(self.process.stderr.fileno(), 65536):
                self.events.put((self.role, "output", data))
        self.events.put((self.role, "quiet", None))


class _Run:
    def __init__(self, job: dict[str, Any], isolation: Isolation) -> None:
        self.job, self.isolation = job, isolation
        self.events: queue.Queue[tuple[str, str, Any]] = queue.Queue(maxsize=64)
        self.output = bytearray()
        self.began: float | None = None
        self.asked = False
        self.secret = os.urandom(32).hex()
        self.started = time.monotonic()
        self.looked = 0.0
        self.peak = 0
        self.tests: _Child | None = None
        self.answer = _Child("answer", job, isolation, self.events)
        work: dict[str, Any] = {"code": job["code"]}
        if not job["isolated"]:
            work |= {"tests": job["tests"], "entry_point": job["entry_point"], "secret": self.secret}
        self.answer.send(_line(work))

    def run(self) -> tuple[str, str]:
        try:
            threading.Thread(target=self._hold_cord, daemon=True).start()
            while True:
                with suppress(queue.Empty):
                    self._event(*self.events.get(timeout=_LOOK_SECONDS))
                self._look()
        except _Stop as stop:
            return stop.outcome, stop.reason

    def _hold_cord(self) -> None:
        while os.read(0, 4096):
            pass
        self.events.put(("caller", "gone", None))

    def _event(self, role: str, kind: str, data: Any) -> None:
        if kind == "output":
            self._keep(data)
        elif kind == "gone":
            raise _Stop("not started", "the caller went away")
        elif kind == "long":
            raise _Stop("output too long", f"one value of more than {MESSAGE:,} characters")
        elif kind == "end":
            self._ended(role)
        elif kind == "message":
            (self._from_answer if role == "answer" else self._from_tests)(data)

    def _keep(self, data: bytes) -> None:
        room = self.job["output_bytes"] - len(self.output)
        self.output += data[:room]
        if len(data) > room:
            raise _Stop("output too long", f"it printed more than {self.job['output_bytes']:,} bytes")

    def _from_answer(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            kind = next(iter(message))
        except (ValueError, TypeError, StopIteration, RecursionError):
            raise _Stop("crashed", "it wrote to a pipe that is not its own") from None
        if kind == "begins" and self.began is None:
            self.began = time.monotonic()
        elif kind == "failed":
            failure = message["failed"] if isinstance(message["failed"], dict) else {}
            raise _Stop("out of memory" if failure.get("memory") else "failed", str(failure.get("text", "")))
        elif kind == "passed" and not self.job["isolated"]:
            if message["passed"] != self.secret:
                raise _Stop("failed", "it claimed success without having come to the end of the tests")
            raise _Stop("passed", "")
        elif kind == "ready" and self.job["isolated"] and self.tests is None:
            self._start_tests(message["ready"])
        elif self.asked and self.tests is not None and kind in ("result", "raised", "not_plain"):
            if message.get("memory"):
                raise _Stop("out of memory", "MemoryError")
            self.asked = False
            self.tests.send(line)

    def _start_tests(self, names: Any) -> None:
        names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        entry = self.job["entry_point"]
        if entry and entry not in names:
            raise _Stop("failed", f"it defines no function {entry}")
        self.tests = _Child("tests", self.job, self.isolation, self.events)
        self.tests.send(_line({"preamble": self.job["preamble"], "tests": self.job["tests"], "entry_point": entry, "names": names}))

    def _from_tests(self, line: bytes) -> None:
        message = json.loads(line)
        if "call" in message:
            self.asked = True
            self.answer.send(line)
            return
        verdict = str(message["verdict"])
        raise _Stop("not started" if verdict == "invalid" else verdict, message["reason"])

    def _ended(self, role: str) -> None:
        child = self.answer if role == "answer" else self.tests
        assert child is not None
        try:
            code = child.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            raise _Stop("crashed", f"the process of the {role} closed its pipes") from None
        self._look(now=True)
        if self.began is None:
            raise _Stop("not started", f"the process of the {role} ended with code {code}: {self.output[-500:].decode(errors='replace')}")
        over = code == -getattr(signal, "SIGXCPU", 0) or (code == -9 and _cpu_seconds() >= self.job["cpu_seconds"])
        if code < 0 and over:
            raise _Stop("timed out", f"more than {self.job['cpu_seconds']} s of processor time")
        who = "it" if role == "answer" else "the process of its tests"
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise _Stop("crashed", f"{who} {how} before the tests were done")

    def _look(self, *, now: bool = False) -> None:
        at = time.monotonic()
        if self.began is None and at - self.started > _START_SECONDS:
            raise _Stop("not started", f"Python took more than {_START_SECONDS} s to start")
        if self.began is not None and at - self.began > self.job["wall_seconds"]:
            raise _Stop("timed out", f"more than {self.job['wall_seconds']} s")
        if not now and at - self.looked < _LOOK_SECONDS:
            return
        self.looked = at
        found = processes(self.isolation)
        memory = sum(resident for _, resident in found.values())
        self.peak = max(self.peak, memory)
        if memory > self.job["memory_bytes"]:
            raise _Stop("out of memory", f"its processes together hold more than {self.job['memory_bytes']:,} bytes")
        if sum(threads for threads, _ in found.values()) > self.job["processes"] + 4:
            raise _Stop("crashed", f"more than {self.job['processes']} processes and threads")

    def drain(self) -> None:
        """Output that was on its way when the run was decided, for a second at most; it is over when everybody has closed it."""
        quiet = 0
        until = time.monotonic() + 1
        with suppress(queue.Empty, _Stop):
            while quiet < 1 + (self.tests is not None):
                _, kind, data = self.events.get(timeout=max(0.0, until - time.monotonic()))
                if kind == "output":
                    self._keep(data)
                quiet += kind == "quiet"


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _cpu_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    """Do the job on standard input."""
    job = json.loads(_read_line())
    isolation = isolate(job)
    if not sys.platform.startswith("linux"):
        isolation.missing += job["elsewhere"]
    _say({"begins": True, "namespaced": isolation.namespaced})
    run = _Run(job, isolation)
    try:
        outcome, reason = run.run()
    finally:
        kill_all(isolation)
        for child in (run.answer, run.tests):
            if child is not None:
                child.process.kill()
    run.drain()
    _say(
        {
            "outcome": outcome,
            "reason": reason,
            "output": run.output.decode(errors="replace"),
            "seconds": time.monotonic() - (run.began or run.started),
            "missing": isolation.missing,
        }
    )
    os._exit(0)  # threads may still wait on pipes


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _read_line() -> bytes:
    """The job, read without a buffer, so that the cord's thread sees the rest."""
    read = bytearray()
    while not read.endswith(b"\n"):
        data = os.read(0, 65536)
        if not data:
            raise SystemExit("no job")
        read += data
    return bytes(read)
