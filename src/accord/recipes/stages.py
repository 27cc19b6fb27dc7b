"""Stages of a recipe: each has a folder, is skipped when its inputs have not changed, and says how long it took and what it used."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accord.types import content_hash

RECORD = "stage.json"


def peak_rss_gb() -> float:
    """Largest resident memory of this process so far, in GB (10^9 bytes).

    On Linux from /proc: what `getrusage` says also covers the program that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:", 1)[1].split()[0]) * 1024 / 1e9
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset / 1e9  # type: ignore[attr-defined]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


class Stages:
    """Runs the stages of one recipe in `folder`.

    Args:
        force: True runs every stage again; False skips those whose inputs have the hash they had.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], *, force: bool = False) -> None:
        self.folder, self.say, self.force = folder, say, force
        self.records: list[dict[str, Any]] = []

    def run(
        self, name: str, inputs: Any, work: Callable[[Path, bool], dict[str, Any]], *, planned_seconds: float | None = None
    ) -> dict[str, Any]:
        """Do one stage.

        Args:
            name: folder name and title.
            inputs: JSON-able; everything the result depends on. The hashes of earlier stages belong in it.
            work: called with the stage's folder and whether a checkpoint there can be resumed; returns a JSON-able result.
            planned_seconds: what the budget says, for the table.
        Returns:
            the result, from disk when the stage was skipped.
        """
        folder = self.folder / name
        key = content_hash(inputs)
        record = self._read(folder)
        if record.get("key") == key and record.get("done") and not self.force:
            self.say(f"{name}: unchanged since {record['finished']}, skipped ({record['seconds']:.0f} s then).")
            self.records.append({**record, "skipped": True, "planned_seconds": planned_seconds})
            return record["result"]
        resume = record.get("key") == key and not self.force
        if folder.exists() and not resume:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        before = record.get("seconds_before", 0.0) if resume else 0.0
        begun = {"name": name, "key": key, "done": False}
        self._write(folder, {**begun, "seconds_before": before})
        started = time.perf_counter()
        try:
            result = work(folder, resume)
        except BaseException:  # Ctrl-C too: what was spent counts when the stage goes on
            self._write(folder, {**begun, "seconds_before": before + time.perf_counter() - started})
            raise
        seconds = before + time.perf_counter() - started
        record = {
            "name": name,
            "key": key,
            "done": True,
            "seconds": seconds,
            "peak_rss_gb": peak_rss_gb(),
            "finished": time.strftime("%Y-%m-%d %H:%M"),
            "result": result,
        }
        self._write(folder, record)
        self.records.append({**record, "skipped": False, "planned_seconds": planned_seconds})
        self.say(
            f"{name}: {seconds:.0f} s"
            + (f" (plan {planned_seconds:.0f} s)" if planned_seconds else "")
            + f", peak memory {record['peak_rss_gb']:.1f} GB."
        )
        return result

    def _read(self, folder: Path) -> dict[str, Any]:
        try:
            return json.loads((folder / RECORD).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}

    def _write(self, folder: Path, record: dict[str, Any]) -> None:
        temporary = folder / f".{RECORD}.partial"
        temporary.write_text(json.dumps(record, ensure_ascii=False, indent=1), encoding="utf-8")
        os.replace(temporary, folder / RECORD)
