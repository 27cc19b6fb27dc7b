"""What a grader in a process of its own may do wrong, and what becomes of it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from accord.errors import ConfigError, DataError
from accord.rewards.accuracy import AccuracyReward
from accord.rewards.grader_process import FailureBudget, GraderFailure, GraderProcess
from accord.rewards.verdicts import Verdict
from rewards.answers import rollout

BAD = f"{Path(__file__).with_name('bad_graders.py')}:grade"


@pytest.fixture
def process() -> Iterator[GraderProcess]:
    with GraderProcess(BAD, timeout=2.0) as started:
        yield started


def running(pid: float) -> bool:
    try:
        os.kill(int(pid), 0)
    except OSError:
        return False
    return True


def test_one_worker_grades_many(process: GraderProcess) -> None:
    assert process.grade("5", "6") == Verdict("right", "5 is 6")
    assert process.grade("half") == 0.5
    assert process.grade("true") == 1.0
    assert process.grade("options", options={"value": 0.25}) == 0.25
    assert process.grade("ünï\u2028code\n", "γ") == Verdict("right", "ünï\u2028code\n is γ")
    assert process.starts == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise", "raised ZeroDivisionError: nothing to divide by$"),
        ("nan", "returned nan$"),
        ("inf", "returned inf$"),
        ("none", "returned None, which is no verdict and no number$"),
        ("text", "returned 'yes', which is no verdict and no number$"),
        ("recursion", "raised RecursionError"),
    ],
)
def test_a_failure_has_its_reason_and_the_worker_lives_on(process: GraderProcess, text: str, reason: str) -> None:
    with pytest.raises(GraderFailure, match=reason):
        process.grade(text)
    assert process.grade("5", "5") == Verdict("right", "5 is 5")
    assert process.starts == 1


@pytest.mark.skipif("sys.platform == 'win32'", reason="no limit of memory there")
def test_memory_is_bounded(process: GraderProcess) -> None:
    with pytest.raises(GraderFailure, match="raised MemoryError"):
        process.grade("memory")


@pytest.mark.parametrize("text", ["hang", "spin"])
def test_a_grader_that_hangs_is_stopped_and_started_again(process: GraderProcess, text: str) -> None:
    first = process.grade("pid")
    assert isinstance(first, float)
    began = time.monotonic()
    with pytest.raises(GraderFailure, match=r"gave no verdict within 2 s$"):
        process.grade(text)
    assert 1.9 < time.monotonic() - began < 20
    assert not running(first)
    assert process.grade("pid") != first
    assert process.starts == 2


def test_a_grader_that_dies_is_started_again(process: GraderProcess) -> None:
    with pytest.raises(GraderFailure, match="died with exit code 7"):
        process.grade("die")
    assert process.grade("5", "5") == Verdict("right", "5 is 5")
    assert process.starts == 2


def test_what_a_grader_prints_is_no_reply(process: GraderProcess) -> None:
    assert process.grade("print") == Verdict("wrong", "printed")
    assert process.grade("5", "5") == Verdict("right", "5 is 5")


def test_errors_of_the_data_stay_errors_of_the_data(process: GraderProcess) -> None:
    with pytest.raises(DataError, match=r"^The gold answer is bad\.$"):
        process.grade("bad gold")


def test_many_threads_share_one_worker(process: GraderProcess) -> None:
    """Eight threads, none of them the main one, get their own answers."""
    found: dict[int, object] = {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: process.grade(f"{n}", n)})) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: Verdict("right", f"{n} is {n}") for n in range(8)}
    assert process.starts == 1


def test_the_worker_ends_with_its_owner() -> None:
    process = GraderProcess(BAD)
    pid = process.grade("pid")
    assert isinstance(pid, float)
    assert running(pid)
    del process
    gc.collect()
    assert not running(pid)


def test_a_script_without_a_main_guard_works(tmp_path: Path) -> None:
    """The script is not run again by the worker, and its worker does not outlive it."""
    script = tmp_path / "script.py"
    code = "from accord.rewards.grader_process import GraderProcess\nprint('once', flush=True)\np = GraderProcess({!r})\nprint(p.grade('pid'))\n"
    script.write_text(code.format(BAD), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=120)
    first, pid = done.stdout.split()
    assert first == "once"
    assert not running(float(pid))


@pytest.mark.parametrize(
    ("grader", "message"),
    [
        ("nothing", "not of the form"),
        ("missing.py:grade", "does not exist"),
        ("accord.rewards.numeric:missing", "has no function 'missing'"),
        ("no_such_module:grade", "ModuleNotFoundError"),
    ],
)
def test_a_grader_that_cannot_start_is_a_named_error(grader: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GraderProcess(grader).grade("5", "5")


def test_symbolic_grading_runs_in_a_thread_and_stops_what_hangs() -> None:
    """math-verify's own timeout works in a main thread only, and a tower of powers never ends."""
    pytest.importorskip("math_verify")
    reward = AccuracyReward("symbolic", timeout=4.0)
    texts = [r"\boxed{\sqrt{8}}", r"\boxed{9^{9^{9^{9}}}}", r"\boxed{\sqrt{7}}", "nothing"]
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.extend(reward.score([rollout(text, answer=r"2\sqrt{2}") for text in texts])))
    thread.start()
    thread.join()
    reward.close()
    values = [score.value for score in found]  # type: ignore[attr-defined]
    assert values == [1.0, None, 0.0, 0.0]
    assert "gave no verdict within 4 s" in (found[1].error or "")  # type: ignore[attr-defined]
    assert (reward.failures.graded, reward.failures.failed) == (3, 1)


def test_failures_are_scores_without_a_value_until_they_are_too_many() -> None:
    reward = AccuracyReward(BAD, max_failure_share=0.25)
    scores = reward.score([rollout(text, answer="6") for text in ["5"] * 16 + ["raise"] * 4])
    assert [score.value for score in scores[16:]] == [None] * 4
    assert all(score.error and "ZeroDivisionError" in score.error for score in scores[16:])
    with pytest.raises(ConfigError, match=r"failed on 6 of the last 22 answers, more than max_failure_share=0\.25 .*ZeroDivisionError"):
        reward.score([rollout("raise", answer="6")] * 2)
    reward.close()


def test_the_share_of_failures_is_of_the_last_answers() -> None:
    """With a window of 10 and a share of 0.5: five failures of ten are allowed, the sixth is not, however many were graded before."""
    budget = FailureBudget("grader", max_failure_share=0.5, window=10, least=10)
    for _ in range(1000):
        budget.count(None)
    for _ in range(5):
        budget.count("late")
    with pytest.raises(ConfigError, match="6 of the last 10"):
        budget.count("late")
    assert (budget.graded, budget.failed) == (1000, 6)


def test_a_gold_that_json_cannot_carry_is_a_failure(process: GraderProcess) -> None:
    with pytest.raises(GraderFailure, match="cannot be sent"):
        process.grade("5", {1, 2})
