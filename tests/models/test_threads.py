"""Threads: no more than the process may run at once, and the user's own number is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from accord.models.threads import usable_processors

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="control groups are Linux's")
ALLOWED = len(os.sched_getaffinity(0)) if sys.platform.startswith("linux") else 1


def grant(group: Path, quota: str, period: int = 100_000) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "cpu.max").write_text(f"{quota} {period}\n", encoding="ascii")


def test_a_group_grants_fewer_than_the_machine_has(tmp_path: Path) -> None:
    grant(tmp_path / "job", "100000")
    assert usable_processors(tmp_path, "0::/job\n") == 1
    grant(tmp_path / "job", "20000")
    assert usable_processors(tmp_path, "0::/job\n") == 1  # a fifth of a processor is one thread


def test_the_narrowest_group_counts_and_parts_are_rounded_up(tmp_path: Path) -> None:
    grant(tmp_path / "job", "100001")
    grant(tmp_path / "job" / "step", "max")
    assert usable_processors(tmp_path, "0::/job/step\n") == min(2, ALLOWED)


def test_without_a_limit_it_is_what_the_process_may_run_on(tmp_path: Path) -> None:
    grant(tmp_path / "job", "max")
    assert usable_processors(tmp_path, "0::/job\n") == usable_processors(tmp_path, "") == ALLOWED


def test_version_1_of_control_groups(tmp_path: Path) -> None:
    folder = tmp_path / "cpu" / "docker"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_period_us").write_text("100000\n", encoding="ascii")
    for quota, expected in (("50000", 1), ("-1", ALLOWED)):
        (folder / "cpu.cfs_quota_us").write_text(quota + "\n", encoding="ascii")
        assert usable_processors(tmp_path, "4:cpu,cpuacct:/docker\n9:memory:/other\n") == expected


@pytest.mark.parametrize(("chosen", "expected"), [(None, 1), ("3", 3)])
def test_torch_gets_what_is_granted_and_keeps_what_was_chosen(chosen: str | None, expected: int) -> None:
    """In a process of its own, which may run on one processor."""
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import torch; torch.set_num_threads(3)\nfrom accord.models.threads import fit_threads\nprint(fit_threads(), torch.get_num_threads())"
    environment = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment |= {"OMP_NUM_THREADS": chosen} if chosen else {}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True, encoding="utf-8")
    assert found.stdout.split() == [str(expected)] * 2
