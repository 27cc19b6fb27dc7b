"""What this process's control groups (containers, batch systems) allow it, on Linux."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def folders(controller: str, root: Path = ROOT, own: str | None = None) -> Iterator[tuple[Path, bool]]:
    """Folders of this process's groups from the innermost outwards, and whether each is of version 2 (one tree for all controllers).

    Args:
        controller: of version 1: "memory", "cpu".
        root: where control groups are mounted.
        own: text of /proc/self/cgroup; None reads it.
    """
    if own is None:
        listing = Path("/proc/self/cgroup")
        own = listing.read_text(encoding="utf-8") if listing.is_file() else ""
    for line in own.splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers == "":
            base = root
        elif controller in controllers.split(","):
            base = root / controller
        else:
            continue
        folder = base / place.strip("/")
        for group in (folder, *folder.parents):
            yield group, controllers == ""
            if group == base:
                break
