"""A grader in a process of its own: what hangs is stopped, what dies is started again, and neither is ever taken for a wrong answer."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from typing import Any, cast

from accord.errors import AccordError, ConfigError, DataError, MachineError
from accord.rewards.verdicts import Verdict

_ERRORS: dict[str, type[AccordError]] = {"ConfigError": ConfigError, "DataError": DataError, "MachineError": MachineError}


class GraderFailure(Exception):
    """A grader gave no verdict on one answer: it hung, died, raised or returned what is none. Becomes `Score(None, error=...)`."""


class GraderProcess:
    """Runs one grader in a worker process that lives until it hangs or dies, and is then started again.

    The worker is a fresh interpreter (nothing is forked, the caller's script is not run again) that is spoken to in lines of JSON.
    Any thread may call; calls of several threads are graded one after the other. Use it as a context manager, or `close` it; a worker
    also ends with its owner.

    Args:
        grader: where the function is: "package.module:function" or "file.py:function". It is called with (text, gold, **options), which
            must be JSON-able, and returns a `Verdict`, or a finite number or a boolean as the reward itself.
        timeout: seconds one answer may take.
        startup_timeout: seconds the worker may take to start and import the grader.
        memory_gib: address space of the worker; None: no limit. Kept where the system has such limits (not on Windows).
    """

    def __init__(self, grader: str, *, timeout: float = 10.0, startup_timeout: float = 120.0, memory_gib: float | None = 4.0) -> None:
        if ":" not in grader:
            raise ConfigError(f"Grader {grader!r} is not of the form module:function or file.py:function.")
        if not timeout > 0:
            raise ConfigError(f"GraderProcess: timeout={timeout} must be more than 0 seconds.")
        self.grader, self.timeout, self.startup_timeout, self.memory_gib = grader, timeout, startup_timeout, memory_gib
        self.starts = 0
        """How many workers were started so far."""
        self._lock = threading.Lock()
        self._worker: _Worker | None = None

    def grade(self, text: str, gold: Any = None, options: Mapping[str, Any] | None = None) -> Verdict | float:
        """What the grader says of one answer.

        Raises:
            GraderFailure: if there is no verdict, with the reason.
            DataError: if the gold answer cannot be read. Other errors of `accord.errors` pass through too.
        """
        with self._lock:
            worker = self._ready()
            try:
                request = json.dumps({"text": text, "gold": gold, "options": dict(options or {})})
            except TypeError as error:
                raise GraderFailure(f"the gold answer or an option cannot be sent to the grader's process: {error}") from error
            reply = worker.ask(request, self.timeout)
            if reply is None:
                running = worker.running
                self._stop()
                if running:
                    raise GraderFailure(f"{self.grader} gave no verdict within {self.timeout:g} s")
                raise GraderFailure(f"the process of {self.grader} died{worker.code}")
        return self._understood(reply)

    def close(self) -> None:
        """End the worker; the next call starts another."""
        with self._lock:
            self._stop()

    def __enter__(self) -> GraderProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _understood(self, reply: dict[str, Any]) -> Verdict | float:
        if "error" in reply:
            if reply["kind"] in _ERRORS:
                raise _ERRORS[reply["kind"]](reply["error"])
            raise GraderFailure(reply["error"])
        if "outcome" in reply:
            return Verdict(reply["outcome"], reply["reason"])
        return cast("float", reply["value"])

    def _ready(self) -> _Worker:
        if self._worker is not None and self._worker.running and self._worker.owner == os.getpid():
            return self._worker
        self._stop()
        self.starts += 1
        worker = _Worker(self.grader, self.memory_gib)
        ready = worker.next_line(self.startup_timeout)
        if ready is None or "error" in ready:
            running = worker.running
            worker.stop()
            said = (
                ready["error"] if ready else f"it did not start within {self.startup_timeout:g} s" if running else f"it died{worker.code}"
            )
            kind = _ERRORS.get(ready["kind"] if ready else "", ConfigError)
            raise kind(said if kind is MachineError else f"The process of grader {self.grader} cannot start: {said}")
        self._worker = worker
        return worker

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.stop()
        self._worker = None


class _Worker:
    """The process, and a thread that reads its lines so that waiting for one can end."""

    def __init__(self, grader: str, memory_gib: float | None) -> None:
        self.owner = os.getpid()
        paths = [path for path in sys.path if path]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "accord.rewards.grader_worker", grader, str(memory_gib or 0)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8"},
        )
        self.lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=_read, args=(self.process.stdout, self.lines), daemon=True).start()
        self._end = weakref.finalize(self, _kill, self.process)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def code(self) -> str:
        """How it ended, for messages."""
        code = self.process.poll()
        return "" if code is None else f" with exit code {code}" if code >= 0 else f" by signal {-code}"

    def ask(self, request: str, timeout: float) -> dict[str, Any] | None:
        """The reply to a request; None if there is none in time or the process is dead."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(request.encode("utf-8") + b"\n")
            self.process.stdin.flush()
        except OSError:
            self._settle()
            return None
        return self.next_line(timeout)

    def next_line(self, timeout: float) -> dict[str, Any] | None:
        try:
            line = self.lines.get(timeout=timeout)
        except queue.Empty:
            return None
        if not line:
            self._settle()
            return None
        return cast("dict[str, Any]", json.loads(line))

    def stop(self) -> None:
        self._end()

    def _settle(self) -> None:
        """Wait a moment for a process that closed its end to be gone, so that its exit code is known."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)


def _read(stream: Any, lines: queue.Queue[bytes]) -> None:
    with contextlib.suppress(ValueError, OSError):
        for line in stream:
            lines.put(line)
    lines.put(b"")


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


class FailureBudget:
    """Counts graded answers and failures, and stops the run where too many of the last ones failed.

    A run that is resumed counts anew: whoever resumes has mended what failed, and old failures would stop it at the next one.

    Args:
        what: the grader's name, for the message.
        max_failure_share: of the last `window` answers, 0 to 1; more stops the run. 1 never does.
        window: answers that are looked at; nothing is judged before `least` of them.
        least: answers before the share means anything.
        setting: what users call `max_failure_share`, for the message.
    """

    def __init__(
        self,
        what: str,
        *,
        max_failure_share: float = 0.1,
        window: int = 200,
        least: int = 20,
        setting: str = "max_failure_share",
    ) -> None:
        if not 0 <= max_failure_share <= 1:
            raise ConfigError(f"{what}: {setting}={max_failure_share} must be 0 to 1.")
        self.what, self.max_failure_share, self.window, self.least, self.setting = what, max_failure_share, window, least, setting
        self.graded = self.failed = 0
        self._recent: list[bool] = []
        self._lock = threading.Lock()

    def count(self, reason: str | None) -> None:
        """Note one answer; None: it was graded.

        Raises:
            ConfigError: if too many failed, with the last reason.
        """
        with self._lock:
            self.graded += reason is None
            self.failed += reason is not None
            self._recent = [*self._recent, reason is not None][-self.window :]
            share, seen = sum(self._recent) / len(self._recent), len(self._recent)
        if reason is not None and seen >= self.least and share > self.max_failure_share:
            raise ConfigError(
                f"{self.what} failed on {sum(self._recent)} of the last {seen} answers, more than {self.setting}={self.max_failure_share:g} "
                f"allows. The last reason: {reason}. Mend it, or raise its timeout or {self.setting}, and resume."
            )
