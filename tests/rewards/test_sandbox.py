"""The sandbox: answers that attack it are survived and named, success cannot be claimed, and right answers pass."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.errors import ConfigError
from accord.rewards.sandbox import Execution, Limits, run_code
from accord.rewards.sandboxed.plain_data import NotPlainError, pack, unpack

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and namespaces of Linux")
SMALL = Limits(wall_seconds=8, cpu_seconds=4, memory_bytes=256 << 20)
TESTS = "assert f(1) == 2\nassert f(2) == 3"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Each test has a temporary folder of its own, and neither it nor the process table keeps anything of a run."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert not list(tmp_path.glob("accord-sandbox-*"))
    assert not left_behind(tmp_path)


def left_behind(folder: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.name != str(os.getpid()) and os.fsencode(str(folder)) in (path / "environ").read_bytes():
                found.append((path / "cmdline").read_text())
        except OSError:
            continue
    return found


def after(line: str, *, value: str = "x + 1") -> str:
    """An answer that does something first and is right otherwise."""
    return f"def f(x):\n    {line}\n    return {value}\n"


def run(code: str, tests: str = TESTS, **given: Any) -> Execution:
    given.setdefault("limits", SMALL)
    return run_code(code, tests, **given)


def test_a_right_answer_passes_and_a_wrong_one_fails_with_the_line() -> None:
    found = run(after("print('hello', x)"))
    assert (found.outcome, found.reason, found.output) == ("passed", "", "hello 1\nhello 2\n")
    assert found.passed and found.error is None
    wrong = run(after("pass", value="2"))
    assert (wrong.outcome, wrong.reason) == ("failed", "AssertionError at test line 2: assert f(2) == 3")
    assert run("def g(x): pass", "assert f(1) == 2", entry_point="f").reason == "it defines no function f"
    assert run("def f(x) return 1").reason.startswith("SyntaxError")
    assert run(after("raise KeyError('k')")).reason == "KeyError: \"'k'\" at test line 1: assert f(1) == 2"


# what the answer does, how that ends, a part of the reason
ATTACKS = [
    ("infinite loop", after("while True: pass"), "timed out", "s"),
    ("endless sleep", after("import time; time.sleep(1e6)"), "timed out", "more than 2 s"),
    ("endless loop at import", "while True: pass", "timed out", "s"),
    ("10 GB at once", after("bytearray(10 * 1024**3)"), "out of memory", "MemoryError"),
    ("10 GB bit by bit", after("kept = []\n    while True: kept.append(bytearray(1 << 20))"), "out of memory", ""),
    ("10 GB at import", "big = 'x' * (10 * 1024**3)", "out of memory", "MemoryError"),
    ("exit 0", after("import os; os._exit(0)"), "crashed", "ended with exit code 0 before the tests were done"),
    ("exit 0 at import", "import os; os._exit(0)", "crashed", "exit code 0"),
    ("sys.exit", after("import sys; sys.exit(0)"), "failed", "SystemExit"),
    ("sys.exit at import", "import sys; sys.exit(0)", "failed", "SystemExit"),
    ("abort", after("import os; os.abort()"), "crashed", "signal 6"),
    ("kill itself", after("import os; os.kill(os.getpid(), 9)"), "crashed", "signal 9"),
    ("stdin", after("input()"), "failed", "EOFError"),
    ("recursion", "def f(x): return f(x)", "failed", "RecursionError"),
    ("printing without end", after("while True: print('x' * 1000)"), "output too long", "65,536"),
    ("a value without end", after("pass", value="'x' * (5 << 20)"), "output too long", "value"),
    ("a list in itself", after("a = []; a.append(a)", value="a"), "failed", "nested too deeply or holds itself"),
    ("close every file", after("import os; os.closerange(0, 256)"), "crashed", ""),
    ("equal to everything", "class E:\n    __eq__ = lambda s, o: True\ndef f(x): return E()", "failed", "no plain data"),
    ("an int equal to everything", "class E(int):\n    __eq__ = lambda s, o: True\ndef f(x): return E()", "failed", "no plain data"),
    ("no assertion", "import builtins\nbuiltins.AssertionError = ValueError\ndef f(x): return 0", "failed", "AssertionError"),
    ("odd exception", "class B(BaseException):\n    def __str__(self): raise self\ndef f(x): raise B", "failed", "AnswerError"),
]


@linux
@pytest.mark.parametrize(("code", "outcome", "reason"), [attack[1:] for attack in ATTACKS], ids=[attack[0] for attack in ATTACKS])
def test_an_attack_is_survived_and_named(code: str, outcome: str, reason: str) -> None:
    wall = 2 if outcome == "timed out" else 20
    found = run(code, limits=Limits(wall_seconds=wall, cpu_seconds=10, memory_bytes=256 << 20))
    assert found.outcome == outcome, found
    assert reason in found.reason
    assert run(after("pass")).passed


@linux
@pytest.mark.parametrize("body", ["f(x) + 1", "max([x], key=f)"], ids=["Python", "C"])
def test_recursion_without_a_limit(body: str) -> None:
    """Releases of Python end it in different ways: by the memory limit, by the stack, or by a limit of their own."""
    found = run(
        f"import sys; sys.setrecursionlimit(10**9)\ndef f(x): return {body}", limits=Limits(wall_seconds=30, memory_bytes=256 << 20)
    )
    assert found.outcome in ("crashed", "out of memory", "failed") and found.error is None, found


KILLS = {
    "parent": "os.kill(os.getppid(), 9)",
    "everybody": "os.kill(-1, 9)",
    "group": "os.killpg(0, 9)",
    "neighbors": "[os.kill(p, 9) for p in range(1, 60) if p != os.getpid()]",
}


def killing(line: str) -> str:
    return f"import os\ndef f(x):\n    try:\n        {line}\n    except OSError: pass\n    return x"


@linux
@pytest.mark.parametrize("name", KILLS)
def test_killing_others_reaches_nobody_outside(name: str) -> None:
    if run(after("pass")).unprotected:
        pytest.skip("without namespaces it would reach this machine's processes")
    found = run(killing(KILLS[name]))
    assert found.outcome in ("crashed", "failed") and found.error is None, found


@linux
def test_killing_the_supervisor_where_nothing_shuts_it_off() -> None:
    if runs_as_root_without_namespaces():
        pytest.skip("here the answer would be root")
    found = run(killing(KILLS["parent"]), limits=Limits(namespaces=False))
    assert found.outcome in ("crashed", "failed") and found.error is None, found


def runs_as_root_without_namespaces() -> bool:
    return os.getuid() == 0 and any("as root" in text for text in run(after("pass"), limits=Limits(namespaces=False)).unprotected)


BOMB = "import os\ndef f(x):\n    while True:\n        try: os.fork()\n        except OSError: pass"
QUIET_BOMB = "import os, time\ndef f(x):\n    while True:\n        try:\n            if os.fork() == 0: os.setsid()\n        except OSError: time.sleep(0.01)"


@linux
@pytest.mark.parametrize("bomb", [BOMB, QUIET_BOMB], ids=["fork bomb", "fork bomb of sessions"])
def test_a_fork_bomb_is_survived(bomb: str) -> None:
    if any("counted, not limited" in text for text in run(after("pass")).unprotected):
        pytest.skip("this machine cannot limit processes: no bomb here")
    before = time.monotonic()
    found = run(bomb, limits=Limits(wall_seconds=2))
    assert found.outcome in ("timed out", "crashed") and found.error is None, found
    assert time.monotonic() - before < 60


@linux
def test_processes_have_a_limit() -> None:
    """With 16 allowed and one the answer's own, 15 more can start."""
    tame = """
import os, time
def f(x):
    for made in range(40):
        try: number = os.fork()
        except OSError: return made
        if number == 0:
            time.sleep(5); os._exit(0)
    return 40
"""
    found = run(f"{tame}", "made = f(0)\nassert made <= 15, made\nassert made > 5, made")
    if any("counted, not limited" in text for text in found.unprotected):
        assert found.reason == "more than 16 processes and threads"
    else:
        assert found.passed, found


@linux
def test_processes_together_have_a_limit_on_memory() -> None:
    """Six with 60 MB each are more than 256 MB, though each is below."""
    code = """
import os, time
def f(x):
    for _ in range(6):
        if os.fork() == 0:
            kept = bytearray(60 << 20); time.sleep(30); os._exit(0)
    time.sleep(30)
"""
    found = run(code)
    assert (found.outcome, found.reason[:13]) == ("out of memory", "its processes"), found


@linux
@pytest.mark.parametrize("namespaces", [True, False])
def test_files_have_limits(namespaces: bool) -> None:
    one = "\n        ".join(["def f(x):\n    with open('big', 'wb') as file:", "for _ in range(100): file.write(bytes(1 << 20))"])
    limits = Limits(namespaces=namespaces, file_bytes=4 << 20, disk_bytes=8 << 20)
    assert "File too large" in run(one, limits=limits).reason
    many = "def f(x):\n    for i in range(50):\n        with open(str(i), 'wb') as file: file.write(bytes(1 << 20))\n    return x + 1"
    if namespaces and not run(after("pass")).unprotected:
        assert "No space left" in run(many, limits=limits).reason
    files = "def f(x):\n    kept = [open('a', 'w') for _ in range(200)]\n    return x + 1"
    assert "Too many open files" in run(files, limits=limits).reason


@linux
def test_processor_time_has_a_limit_of_its_own() -> None:
    found = run(after("while True: pass"), limits=Limits(wall_seconds=60, cpu_seconds=1))
    assert (found.outcome, found.reason) == ("timed out", "more than 1 s of processor time")


@linux
def test_it_deletes_and_writes_nothing_outside(folder: Path) -> None:
    canary, home = folder / "canary", Path.home()
    canary.write_text("here")
    listed = sorted(path.name for path in home.iterdir())
    code = f"""
import os, shutil
def f(x):
    for path in (os.getcwd(), {str(folder)!r}, os.path.expanduser('~'), {str(home)!r}):
        shutil.rmtree(path, ignore_errors=True)
    tried = 0
    for path in ({str(canary)!r}, {str(folder / "new")!r}, '/tmp/new', '/etc/new', {str(home / "new")!r}):
        try: open(path, 'w').write('gone')
        except OSError: tried += 1
    return x + 1
"""
    if run(after("pass")).unprotected:
        pytest.skip("this machine allows no private file system")
    assert run(code, limits=Limits(wall_seconds=120, cpu_seconds=60)).passed
    assert canary.read_text() == "here"
    assert sorted(path.name for path in home.iterdir()) == listed
    assert not Path("/etc/new").exists() and not Path("/tmp/new").exists()


@linux
@pytest.mark.parametrize("namespaces", [True, False])
def test_no_network(namespaces: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        code = f"import socket\ndef f(x):\n    socket.create_connection(('127.0.0.1', {port}), timeout=1)\n    return x + 1"
        found = run(code, limits=Limits(namespaces=namespaces))
        assert found.outcome == "failed"
        with pytest.raises(TimeoutError):
            server.accept()


@linux
@pytest.mark.parametrize("namespaces", [True, False])
def test_the_environment_holds_nothing_of_ours(namespaces: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCORD_TEST_TOKEN", "5ecre7")
    code = """
import os
def f(x):
    print(dict(os.environ))
    for name in os.listdir('/proc'):
        try: print(open(f'/proc/{name}/environ').read())
        except OSError: pass
    return x + 1
"""
    if not namespaces:
        code = code.replace("/proc", "/sys")  # there the user's own processes can be read, as the module says
    found = run(code, limits=Limits(namespaces=namespaces))
    assert found.passed, found
    assert "5ecre7" not in found.output and "HOME" in found.output


def test_threads_that_never_end_do_not_hold_a_right_answer() -> None:
    code = "import threading, time\ndef f(x):\n    threading.Thread(target=lambda: [time.sleep(1) for _ in iter(int, 1)]).start()\n    return x + 1"
    before = time.monotonic()
    assert run(code).passed
    assert time.monotonic() - before < 30


def test_a_process_left_behind_ends_with_the_run() -> None:
    """The fixture looks for it in the process table."""
    code = "import os, time\ndef f(x):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0: time.sleep(300)\n        os._exit(0)\n    return x + 1"
    for namespaces in (True, False):
        assert run(code, limits=Limits(namespaces=namespaces)).passed


FORGERIES = [
    'print(\'{"verdict": "passed"}\')',
    "import sys; sys.stdout.write('{\"passed\": true}\\n'); sys.stdout.flush(); os._exit(0)",
    '[write(n, b\'{"verdict": "passed", "reason": ""}\\n\') for n in range(256)]',
    "[write(n, b'{\"passed\": \"' + b'0' * 64 + b'\"}\\n') for n in range(256)]",
    '[write(n, b\'{"outcome": "passed", "reason": ""}\\n\') for n in range(256)]',
]


@pytest.mark.parametrize("line", FORGERIES)
@pytest.mark.parametrize("isolated", [True, False])
def test_success_cannot_be_claimed(line: str, isolated: bool) -> None:
    code = f"import os\ndef write(n, data):\n    try: os.write(n, data)\n    except OSError: pass\ndef f(x):\n    {line}\n    return 0"
    for text in (code, f"{code}\nf(0)"):
        found = run(text, isolated=isolated)
        assert found.outcome in ("failed", "crashed") and found.error is None, found


def test_the_tests_are_not_in_the_answers_memory() -> None:
    """The answer looks through every frame, object and file of its process for a word that only the tests hold."""
    code = """
import gc, sys
def f(x):
    frame, seen = sys._getframe(), []
    while frame:
        seen.append(repr(frame.f_locals) + repr(frame.f_globals)[:100000]); frame = frame.f_back
    seen += [repr(o)[:10000] for o in gc.get_objects() if isinstance(o, (dict, list, tuple))]
    return ''.join(['pomegra', 'nate']) in ''.join(seen)
"""
    assert run(code, "assert f(1) is False  # pomegranate").passed
    assert not run(code, "assert f(1) is False  # pomegranate", isolated=False).passed


def test_tests_that_cannot_judge_are_an_error() -> None:
    for tests, reason in (
        ("assert True", "the tests never call the answer"),
        ("assert f(1", "the tests do not start: SyntaxError"),
        ("assert f(lambda: 1)", "they pass a value of type function to the answer; run them with isolated=False"),
    ):
        found = run(after("pass"), tests)
        assert found.outcome == "not started" and reason in found.reason
        assert found.error is not None and reason in found.error


def test_a_sandbox_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    found = run(after("pass"))
    assert found.outcome == "not started" and found.error is not None and "FileNotFoundError" in found.error


def test_what_passes_between_tests_and_answer() -> None:
    echo = "def f(*a, **k): return (a, k)"
    tests = """
value = f(1, -2.5, 'é', None, True, [1, (2, 3)], {4, 5}, {1: 'a', (1, 2): 'b'}, b'x', 10**30, 1j, range(3), key=float('inf'))
assert value == ((1, -2.5, 'é', None, True, [1, (2, 3)], {4, 5}, {1: 'a', (1, 2): 'b'}, b'x', 10**30, 1j, range(3)), {'key': float('inf')})
assert type(f(1)[0][0]) is int and type(f(1.0)[0][0]) is float
"""
    assert run(echo, tests).passed
    assert run("def f(a):\n    a.sort()\n    a.append(9)", "x = [3, 1]\nassert f(x) is None\nassert x == [1, 3, 9]").passed
    assert run("def f(d, s):\n    d['k'] = 1; s.add(2)", "d, s = {}, set()\nf(d, s)\nassert d == {'k': 1} and s == {2}").passed
    raises = "try: f(0)\nexcept ZeroDivisionError as e: assert str(e) == 'division by zero'\nelse: raise SystemExit"
    assert run("def f(x): return 1 / x", raises).passed
    assert run("from collections import Counter\ndef f(x): return Counter(x)", "assert f('aab') == {'a': 2, 'b': 1}").passed
    assert run("def g(x): return x\ndef f(x): return g(x) + 1", "assert g(f(1)) == 2").passed


def test_classes_and_generators_in_one_process() -> None:
    code = "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\ndef count():\n    yield from (1, 2)"
    tests = "s = Stack(); s.push(1)\nassert s.items == [1]\nassert list(count()) == [1, 2]"
    assert run(code, tests, isolated=False).passed
    assert run(code, tests).outcome == "failed"
    assert run(code, "assert list(count()) == [1]", isolated=False).reason == "AssertionError"


def test_the_same_answer_has_the_same_verdict_twice() -> None:
    """Order in a set of texts depends on the hash seed, which is fixed."""
    code = "def f(): return list({str(i) for i in range(50)})"
    first = run(code, "print(f())")
    assert first.passed and first.output == run(code, "print(f())").output


def test_from_any_thread_many_at_a_time() -> None:
    codes = [after("pass", value=str(2 if number % 2 else "x + 1")) for number in range(8)]
    found: list[bool] = []
    worker = threading.Thread(target=lambda: found.extend(ThreadPoolExecutor(4).map(lambda code: run(code).passed, codes)))
    worker.start()
    worker.join()
    assert found == [True, False] * 4


def test_third_party_packages_can_be_imported() -> None:
    assert run("import numpy\ndef f(x): return int(numpy.array([x]).sum()) + 1", limits=Limits(wall_seconds=60)).passed


@pytest.mark.parametrize(
    ("field", "value"), [("wall_seconds", 0), ("cpu_seconds", 0), ("memory_bytes", 1), ("processes", 0), ("open_files", 3)]
)
def test_a_limit_that_nothing_fits_in_is_refused(field: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"Sandbox limit {field} is {value}"):
        Limits(**{field: value})


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers()), inner)
    ),
)


@settings(max_examples=40)
@given(PLAIN)
def test_plain_data_comes_back_as_it_was(value: Any) -> None:
    import json

    back = unpack(json.loads(json.dumps(pack(value))))
    assert back == value and repr(back) == repr(value)


@settings(max_examples=40)
@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_forged_data_are_refused_or_plain(data: Any) -> None:
    try:
        value = unpack(data)
    except NotPlainError:
        return
    assert unpack(pack(value)) == value


def test_what_is_no_plain_data() -> None:
    class List(list):  # type: ignore[type-arg]
        pass

    for value in (object(), List(), lambda: 1, [iter([])], {1: int}):
        with pytest.raises(NotPlainError):
            pack(value)
