"""Runs Python code that nobody trusts against tests, and says how it ended.

Three processes for each run. A supervisor starts the *answer* and the *tests* apart and passes calls between them as plain data, so an
answer never holds the tests, their expected values or the verdict: `os._exit(0)`, a printed marker, an object that equals everything, a
patched `assert` or a search through memory and frames passes nothing (`isolated=False` gives that up, see `run_code`).

On Linux, where the machine allows namespaces (root, or unprivileged user namespaces): no network, no signals to or memory of other processes,
every file read-only but one folder in memory of `disk_bytes` that goes with the run; the homes, /tmp and /run are not there; a root process
runs it as a user that owns nothing. Ending process 1 of the namespace ends everything inside, whatever it did. Processes, memory, processor
time, files and open files have limits; the environment holds nothing of ours; standard input is empty.

What it does not protect from: holes in the kernel or in Python; reading files outside the hidden folders that the user may read (they
cannot leave but through the output, which lands in logs); use of the processor for as long as the limits allow; a slow answer that fails by
time on a busy machine. Without namespaces it is a guard against accidents, not against intent: the answer can write and kill what its user
can, and ctypes and Python's sockets are refused by an audit hook, which other programs it starts do not know. On macOS memory has no
limit; on Windows only wall time and output have one. `Execution.unprotected` says what was missing where it ran.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from accord.errors import ConfigError

Outcome = Literal["passed", "failed", "timed out", "out of memory", "crashed", "output too long", "not started"]

_WINDOWS = [
    "Windows: processor time, memory, files, open files and processes have no limit, and processes that the answer starts may outlive it"
]
_MACOS = ["no limit on memory: this system does not enforce RLIMIT_AS"]


@dataclass(frozen=True)
class Limits:
    """What one run may use."""

    wall_seconds: float = 10.0
    """Time from the answer's first line to the last test, both together."""
    cpu_seconds: int = 8
    """Processor time of each process, whole seconds."""
    memory_bytes: int = 1 << 30
    """Address space of each process, and resident memory of all together."""
    file_bytes: int = 16 << 20
    """Length of one file."""
    disk_bytes: int = 64 << 20
    """All files together, where the sandbox has a file system of its own."""
    processes: int = 16
    """Processes and threads of the answer, and as many of the tests."""
    open_files: int = 64
    output_bytes: int = 64 << 10
    """What it may print, standard output and error together."""
    namespaces: bool = True
    """True: use Linux namespaces where the machine allows them. False: do without, as on machines that do not."""

    def __post_init__(self) -> None:
        for name, least in (("wall_seconds", 0.01), ("cpu_seconds", 1), ("memory_bytes", 64 << 20), ("processes", 1), ("open_files", 16)):
            if getattr(self, name) < least:
                raise ConfigError(f"Sandbox limit {name} is {getattr(self, name)} and must be at least {least}.")


@dataclass(frozen=True)
class Execution:
    """How a run ended."""

    outcome: Outcome
    reason: str = ""
    """One line; empty when it passed."""
    output: str = ""
    """What the answer and the tests printed, up to the limit."""
    seconds: float = 0.0
    """From the answer's first line to the end."""
    unprotected: tuple[str, ...] = ()
    """What this machine could not shut off or limit."""

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"

    @property
    def error(self) -> str | None:
        """Why there is no verdict on the answer: the sandbox or the tests could not start. None: there is one."""
        return f"the sandbox did not start: {self.reason}" if self.outcome == "not started" else None


def run_code(
    code: str,
    tests: str | Sequence[str],
    *,
    entry_point: str | None = None,
    preamble: str = "",
    limits: Limits | None = None,
    isolated: bool = True,
) -> Execution:
    """Run an answer against tests. Safe to call from any thread, many at a time.

    Args:
        code: the answer, a whole Python program; run with `__name__` set to "answer".
        tests: Python that raises when the answer is wrong: HumanEval's `check(candidate)`, called with the entry point, or plain asserts
            (also as a list, one each). Calling no function of the answer is an error of the tests, not a pass.
        entry_point: the function that is tested; missing from the answer means failed.
        preamble: trusted code that the tests need, such as HumanEval's prompt with its helper functions; it takes precedence over
            functions of the same name in the answer, except the entry point.
        limits: None takes the defaults of `Limits`.
        isolated: True: the answer runs in a process of its own and gets arguments as plain data (numbers, texts, lists, dicts, sets,
            ...); an answer that returns anything else fails; changes it makes to list, dict and set arguments come back; object identity
            does not. What remains possible is to know or guess what tests ask.
            False: tests run in the answer's process, for tests of classes and generators. A random secret, handed over a private pipe,
            must come back at the end; code that looks through the frames of its caller finds it, and code that replaces what the tests
            use (`__eq__`, `builtins`) needs not even that. Use it where answers are not trained against the verdict.
    Returns:
        How it ended; `Execution.error` is set where that says nothing about the answer.
    """
    limits = limits or Limits()
    folder = tempfile.mkdtemp(prefix="accord-sandbox-")
    try:
        for name in ("answer", "tests"):
            os.mkdir(os.path.join(folder, name), 0o700)
        joined = tests if isinstance(tests, str) else "\n".join(tests)
        return _run(_job(code, joined, entry_point, preamble, limits, isolated, folder), limits)
    except OSError as error:
        return Execution("not started", f"{type(error).__name__}: {error}")
    finally:
        _remove(folder)


def _job(code: str, tests: str, entry_point: str | None, preamble: str, limits: Limits, isolated: bool, folder: str) -> dict[str, Any]:
    root = str(Path(__file__).resolve().parents[2])
    libraries = list(dict.fromkeys(sysconfig.get_paths()[name] for name in ("purelib", "platlib")))
    standard = [sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib")]
    dynamic = str(Path(sysconfig.get_paths()["stdlib"]) / "lib-dynload")
    environment = {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONIOENCODING": "utf-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
    if "SYSTEMROOT" in os.environ:
        environment["SYSTEMROOT"] = os.environ["SYSTEMROOT"]  # Windows finds no library without it
    return {
        "code": code,
        "tests": tests,
        "entry_point": entry_point,
        "preamble": preamble,
        "isolated": isolated,
        "folder": folder,
        "root": root,
        "path": list(dict.fromkeys([*standard, dynamic, *libraries])),
        "needed": [root, sys.base_prefix, sys.base_exec_prefix, *libraries],
        "hidden": [os.path.expanduser("~"), "/root", "/home", "/run", "/tmp", "/var/tmp", "/dev/shm", tempfile.gettempdir()],
        "environment": environment,
        "elsewhere": _WINDOWS if sys.platform == "win32" else _MACOS,
        **{name: getattr(limits, name) for name in Limits.__dataclass_fields__},
    }


def _run(job: dict[str, Any], limits: Limits) -> Execution:
    code = "import sys; sys.path.insert(0, sys.argv[1]); from accord.rewards.sandboxed.supervisor import main; main()"
    process = subprocess.Popen(
        [os.path.realpath(sys.executable), "-I", "-S", "-c", code, job["root"]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=job["folder"],
        env=job["environment"],
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None
    said: list[bytes] = []
    reader = threading.Thread(target=lambda out: said.append(out.read()), args=(process.stdout,), daemon=True)
    reader.start()
    late = False
    try:
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
        process.wait(timeout=limits.wall_seconds + 150)  # the supervisor keeps the time; this is for when it does not
    except subprocess.TimeoutExpired:
        late = True
    finally:
        with suppress(OSError):
            process.stdin.close()
        _end(process, job["folder"])
    reader.join(timeout=5)
    return _execution(process.returncode, said[0] if said else b"", late)


def _end(process: subprocess.Popen[bytes], folder: str) -> None:
    """Closing its input was the order to end; what is left after that is killed."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)
    if process.poll() == 0:
        return
    if hasattr(os, "killpg"):
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    for _ in range(100):  # without namespaces an answer can kill its supervisor and leave processes behind
        left = _with_environment(folder)
        if not left:
            return
        for number in left:
            with suppress(OSError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.01)


def _with_environment(folder: str) -> list[int]:
    """Linux: processes whose environment names the folder, which all in the sandbox were started with; elsewhere none are found."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if os.fsencode(f"HOME={folder}{os.sep}") in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def _execution(code: int, said: bytes, late: bool) -> Execution:
    messages: list[dict[str, Any]] = []
    for line in said.splitlines():
        with suppress(ValueError):
            messages.append(json.loads(line))
    last = messages[-1] if messages else {}
    if last.get("outcome") in get_args(Outcome):
        return Execution(last["outcome"], last["reason"], last["output"], last["seconds"], tuple(last["missing"]))
    if last.get("begins") and code < 0 and not last["namespaced"] and not late:
        return Execution("crashed", "it killed the process that watches it")
    text = said.decode(errors="replace").strip().splitlines()[-1:] or ["nothing"]
    return Execution(
        "not started", "its supervisor did not answer" if late else f"its supervisor ended with code {code} and said: {text[0][:300]}"
    )


def _remove(folder: str) -> None:
    """Delete a folder even where the answer took away its own permissions."""

    def again(function: Any, path: str, _: Any) -> None:
        with suppress(OSError):
            os.chmod(os.path.dirname(path), 0o700)
            os.chmod(path, 0o700)
            function(path)

    shutil.rmtree(folder, onerror=again)
