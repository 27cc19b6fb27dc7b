"""How many threads torch works with: no more than this process may run at once."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

from accord.models import control_groups

CHOSEN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Settings of the user's own, which are kept."""


def fit_threads() -> int:
    """Take torch's threads down to the processors that this process may use; returns how many threads it has.

    torch counts the machine's cores. A container or a batch system may grant fewer, by time: two cores' worth of a machine with 64 then
    has 64 threads that take turns, and each product waits for the one whose turn comes last. Left alone where the user chose a number.
    """
    import torch

    threads = torch.get_num_threads()
    if not any(name in os.environ for name in CHOSEN) and (usable := usable_processors()) < threads:
        torch.set_num_threads(usable)
        return usable
    return threads


def usable_processors(root: Path = control_groups.ROOT, own: str | None = None) -> int:
    """Processors that this process may run on, at most as many as its control groups grant it time for (rounded up).

    Args:
        root, own: as `control_groups.folders`.
    """
    if not sys.platform.startswith("linux"):
        return os.cpu_count() or 1
    granted = (_granted(group, unified) for group, unified in control_groups.folders("cpu", root, own))
    return max(1, min(len(os.sched_getaffinity(0)), *(math.ceil(share) for share in granted if share is not None), sys.maxsize))


def _granted(group: Path, unified: bool) -> float | None:
    """Processors' worth of time in each period; None without a limit."""
    try:
        if unified:
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text(encoding="ascii").strip() for name in ("quota", "period"))
        return int(quota) / int(period) if quota.isdigit() and int(period) else None
    except (OSError, ValueError):
        return None
