"""How much memory this process can still take (what the system has free, what its control groups allow), and the error when it is too little."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from accord.errors import MachineError
from accord.models import control_groups


def available_memory(device: str = "cpu") -> int:
    """Bytes that this process can still take on a device; on Linux no more than its control group allows."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    free = _free_memory()
    group = _group_memory() if sys.platform.startswith("linux") else None
    return free if group is None else min(free, group)


def require(need: float, have: float, *, what: str, fitting: str = "") -> None:
    """Refuse what cannot fit.

    Args:
        need: bytes that it takes.
        have: bytes available to the process beyond what it holds already.
        what: who needs it, for the message: `DPO on smollm2-135m`.
        fitting: what would fit instead.
    Raises:
        MachineError: (exit code 4) with what it needs, what there is and what would fit.
    """
    if need > have:
        instead = f"What would fit: {fitting}." if fitting else "Close other programs or use a smaller model."
        raise MachineError(f"{what} needs {need / 1e9:.1f} GB of memory and {have / 1e9:.1f} GB are free. {instead}")


def _free_memory() -> int:
    """What the operating system would give without swapping."""
    try:
        import psutil
    except ImportError:
        pass
    else:
        return int(psutil.virtual_memory().available)
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return _windows_memory()
    # Nothing says what is free (macOS without psutil): half of what is built in.
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) // 2


def _windows_memory() -> int:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong), *((f"value{index}", ctypes.c_ulonglong) for index in range(7))]

    status = Status()
    status.length = ctypes.sizeof(Status)
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return int(status.value1)


def _group_memory(root: Path = control_groups.ROOT, own: str | None = None) -> int | None:
    """What is left under the limits of this process's control groups (containers, batch systems); None without a limit.

    Args:
        root, own: as `control_groups.folders`.
    """
    left: list[int] = []
    for group, unified in control_groups.folders("memory", root, own):
        names = ("memory.max", "memory.current", "inactive_file")
        if not unified:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        found = _left_in_group(group, *names)
        if found is not None:
            left.append(found)
    return min(left, default=None)


def _left_in_group(group: Path, limit: str, used: str, inactive: str) -> int | None:
    """limit - used + file cache that the system can drop; None when the group sets no limit or cannot be read."""
    try:
        text = (group / limit).read_text(encoding="ascii").strip()
        if not text.isdigit() or int(text) >= 1 << 60:
            return None
        words = (group / "memory.stat").read_text(encoding="ascii").split()
        cached = dict(zip(words[::2], words[1::2], strict=False)).get(inactive, "0")
        return max(0, int(text) - int((group / used).read_text(encoding="ascii")) + int(cached))
    except OSError:
        return None
