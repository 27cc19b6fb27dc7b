"""Runs and label projects below a folder: which there are, what each is made of, and how it stands, judged by its files alone.

Nothing here writes, and no link is followed: what lies outside the folder is never read.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

from accord.data.snapshots import PROJECT, ROUNDS
from accord.data.snapshots import RECORD as SNAPSHOT
from accord.errors import DataError
from accord.reporting.curves import Row, headline, newest
from accord.reporting.run_files import read_object, signature
from accord.training.lineage import RECORD

METRICS, ROLLOUTS, STAGE = "metrics.jsonl", "rollouts.jsonl", "stage.json"
DEEPEST, MOST_FOLDERS = 5, 5000
"""How far below the folder runs are looked for, and in how many folders."""
LEFT_OUT = re.compile(r"\..*|checkpoint-\d+|node_modules|__pycache__|venv")
"""Folders with no runs of their own in them."""
PATIENCE, FIRST_PATIENCE = 180.0, 900.0
"""Seconds without a new line after which an unfinished run counts as stopped; before its first line, as sampling comes first."""

State = Literal["running", "finished", "stopped"]


@dataclass(frozen=True)
class Found:
    """What lies below a folder, by names: paths from the folder, with `/`; the folder itself is `.`.

    Args:
        runs, projects: sorted.
        left_out: folders that could not be read, or whose names are no text.
        more: True if there are more folders than were looked at.
    """

    runs: tuple[str, ...]
    projects: tuple[str, ...]
    left_out: int
    more: bool


def find(root: Path) -> Found:
    """Runs and label projects below a folder, itself included."""
    runs: list[str] = []
    projects: list[str] = []
    waiting: deque[tuple[Path, tuple[str, ...]]] = deque([(root, ())])
    looked = left_out = 0
    while waiting and looked < MOST_FOLDERS:
        folder, parts = waiting.popleft()
        looked += 1
        try:
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            left_out += 1
            continue
        files = {entry.name for entry in inside if entry.is_file(follow_symlinks=False)}
        name = "/".join(parts) or "."
        if PROJECT in files:
            projects.append(name)
            continue
        if files & {RECORD, METRICS}:
            runs.append(name)
        below = [entry for entry in inside if entry.is_dir(follow_symlinks=False) and not LEFT_OUT.fullmatch(entry.name)]
        named = [entry for entry in below if _is_text(entry.name)]
        left_out += len(below) - len(named)
        if len(parts) < DEEPEST:
            waiting += [(Path(entry.path), (*parts, entry.name)) for entry in named]
    return Found(tuple(sorted(runs)), tuple(sorted(projects)), left_out, bool(waiting))


def _is_text(name: str) -> bool:
    try:
        return bool(name.encode("utf-8"))
    except UnicodeEncodeError:  # bytes of a file system that are no UTF-8
        return False


def folder_of(root: Path, name: str, *, project: bool = False) -> Path:
    """The folder of a run, or of a project.

    Args:
        project: True looks for a project. False for a run.
    Raises:
        DataError: if there is none of that name: names lead nowhere but down, and through no link.
    """
    what = "label project" if project else "run"
    unknown = DataError(f"There is no {what} of that name here. It may have been deleted or moved.")
    parts = () if name == "." else PurePosixPath(name).parts
    if len(parts) > DEEPEST or (parts and "/".join(parts) != name) or any(part in ("..", "/") or "\0" in part for part in parts):
        raise unknown
    try:
        base = root.resolve()
        folder = base.joinpath(*parts)
        inside = folder.resolve() == folder and folder.is_relative_to(base)
    except (OSError, ValueError):  # a name too long, or halves of characters
        raise unknown from None
    wanted = (PROJECT,) if project else (RECORD, METRICS)
    if not inside or not any(signature(folder / file) for file in wanted):
        raise unknown
    return folder


@dataclass(frozen=True)
class Standing:
    """How a run stands.

    Args:
        state: finished, where its own record says so; running, where it is being written; stopped, where it is neither.
        why: what that was judged by, in words.
        written: when something was last written, seconds since the epoch.
    """

    state: State
    why: str
    written: float


def standing(folder: Path, record: dict[str, Any], row: Row | None, now: float) -> Standing:
    """Judge a run by what it wrote and when.

    Args:
        record: its run.json.
        row: `curves.newest` of its metrics; its seconds a step say how long a wait is usual.
        now: seconds since the epoch.
    """
    written = _last_written(folder)
    if record.get("finished") is True:
        return Standing("finished", "finished: its model is saved", written)
    if record.get("metrics"):
        return Standing("finished", "trained to its end; its model was not saved in this folder", written)
    patience = FIRST_PATIENCE
    if row is not None:
        every = _config(record).get("logging_steps")
        rows_apart = (row.values.get("step_seconds") or 0.0) * (every if isinstance(every, int) and every > 0 else 1)
        patience = max(PATIENCE, 10 * rows_apart)
    quiet = max(0.0, now - written)
    if quiet <= patience:
        return Standing("running", "not finished, and being written", written)
    return Standing("stopped", f"not finished, and nothing was written for more than {duration(patience)}", written)


def duration(seconds: float) -> str:
    """Seconds in words, in the largest unit that gives more than one."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _last_written(folder: Path) -> float:
    times = [0.0]
    for path in (folder / METRICS, folder / ROLLOUTS, folder / RECORD, folder):
        with suppress(OSError):
            times.append(path.lstat().st_mtime)
    return max(times)


def _config(record: dict[str, Any]) -> dict[str, Any]:
    found = record.get("config")
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Summary:
    """A run in a list: its name, what it is, how it stands, and its newest numbers."""

    name: str
    method: str
    model: str
    standing: Standing
    step: float | None
    total: float | None
    """Steps that it will have made; None where it does not say."""
    numbers: dict[str, float | None]
    """reward, kl, length and loss."""

    def to_json(self) -> dict[str, Any]:
        """How it stands now, for the page."""
        one = self.standing
        return {"state": one.state, "why": one.why, "written": one.written, "step": self.step, "total": self.total}


def summary(root: Path, name: str, record: dict[str, Any], row: Row | None, now: float) -> Summary:
    """A run in a list, from its run.json and its newest numbers."""
    folder = root if name == "." else root / name
    step = row.step if row is not None else _number(record.get("steps"))
    asked = _number(_config(record).get("max_steps"))
    total = _number(record.get("total_steps")) or (asked if asked is not None and asked > 0 else None)
    one = standing(folder, record, row, now)
    return Summary(name, _word(record.get("method")), model_of(record), one, step, total, headline(row.values if row is not None else {}))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15 else None


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""


def model_of(record: dict[str, Any]) -> str:
    """The base model's name: of a folder the last part, without the hash that the cache adds, and of one in the hub's cache the name there."""
    base = _word(record.get("base"))
    if hub := re.search(r"models--([^\\/]+)[\\/]snapshots[\\/]", base):
        return hub[1].replace("--", "/", 1)
    return re.sub(r"-[0-9a-f]{12}-v\d+$", "", _last_part(base))


def _last_part(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]


def settings_of(record: dict[str, Any]) -> dict[str, str]:
    """The settings of a run by name, as text; those that are None are left out."""
    return {name: as_text(value) for name, value in _config(record).items() if value is not None}


def as_text(value: Any) -> str:
    """Text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def lineage_of(record: dict[str, Any], stage: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    """What a run was made of, and with: (what, in words).

    Args:
        stage: its stage.json, where a recipe made it.
    """
    found = [
        ("model", _last_part(_word(record.get("base")))),
        ("adapters, bottom first", ", ".join(map(as_text, _list(record.get("adapters"))))),
    ]
    for name, part in _dict(record.get("data")).items():
        frozen = ", ".join(f"label snapshot {as_text(one)[:16]}" for one in _list(_dict(part).get("snapshots")))
        said = f"{as_text(_dict(part).get('rows'))} rows, content hash {as_text(_dict(part).get('hash'))[:16]}"
        found.append((f"data: {name}", ", ".join(filter(None, (said, frozen)))))
    found.append(("seed", as_text(record["seed"]) if "seed" in record else ""))
    found.append(("versions", ", ".join(f"{name} {as_text(version)}" for name, version in _dict(record.get("versions")).items())))
    found.append(("checks skipped", "; ".join(map(as_text, _list(record.get("skipped_checks"))))))
    if stage is not None and stage.get("done") is True:
        seconds, memory = _number(stage.get("seconds")), _number(stage.get("peak_rss_gb"))
        found.append(("stage", f"took {duration(seconds or 0.0)}, peak memory {memory or 0.0:.1f} GB"))
    return [(what, words) for what, words in found if words]


def _list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def parents_of(root: Path, record: dict[str, Any]) -> list[tuple[str, str | None]]:
    """The runs that a run started from: what its record calls each, and the name under which it lies here, if it does.

    Paths of records are those of the place where training was started: they are tried from here, and from the folder above `root`.
    """
    base = root.resolve()
    found: list[tuple[str, str | None]] = []
    for parent in _list(record.get("parents")):
        said, here = _word(_dict(parent).get("run")), None
        for place in (Path(said), base.parent / said) if said and "\0" not in said else ():
            with suppress(OSError, ValueError, DataError):
                name = place.resolve().relative_to(base).as_posix()
                folder_of(root, name)
                here = name
                break
        found.append((said, here))
    return [(said, here) for said, here in found if said]


def differences(records: Sequence[dict[str, Any]]) -> tuple[list[tuple[str, list[str]]], int]:
    """Settings in which runs differ, with each run's value ("" where it has none), and how many settings they share."""
    tables = [
        {
            "method": _word(record.get("method")),
            **dict(lineage_of(record)),
            **{name: value for name, value in settings_of(record).items() if name != "output_dir"},
        }
        for record in records
    ]
    names = dict.fromkeys(name for table in tables for name in table)
    rows = [(name, [table.get(name, "") for table in tables]) for name in names]
    different = [(name, values) for name, values in rows if len(set(values)) > 1]
    return different, len(rows) - len(different)


@dataclass(frozen=True)
class ProjectSeen:
    """A label project, as its files tell; its database is not opened.

    Args:
        name: path from the folder.
        rounds: those whose labels are frozen, with the number of labels.
        written: when its files were last written, seconds since the epoch.
    """

    name: str
    rounds: tuple[tuple[int, int], ...]
    written: float


def project_seen(root: Path, name: str) -> ProjectSeen:
    """Look at a project from outside. Raises DataError if there is none of that name."""
    folder = folder_of(root, name, project=True)
    rounds: list[tuple[int, int]] = []
    times = [0.0]
    with suppress(OSError), os.scandir(folder) as entries:
        times += [entry.stat(follow_symlinks=False).st_mtime for entry in entries]
    with suppress(OSError), os.scandir(folder / ROUNDS) as entries:
        for entry in entries:
            record = read_object(Path(entry.path) / SNAPSHOT) if entry.is_dir(follow_symlinks=False) and entry.name.isdecimal() else None
            if record is not None:
                rounds.append((int(entry.name), int(_number(record.get("rows")) or 0)))
    return ProjectSeen(name, tuple(sorted(rounds)), max(times))


class Runs:
    """The runs below a folder, looked at again and again: what has not changed on disk is not read again. For several threads."""

    def __init__(self, root: Path, *, fresh_seconds: float = 1.0) -> None:
        """Args:
        fresh_seconds: how long what was found counts, so that many readers cost as much as one.
        """
        self.root, self.fresh_seconds = root, fresh_seconds
        self._lock = threading.Lock()
        self._found: tuple[float, Found] | None = None
        self._read: dict[str, tuple[Any, dict[str, Any], Row | None]] = {}

    def found(self) -> Found:
        """What lies below the folder."""
        with self._lock:
            now = time.monotonic()
            if self._found is None or now - self._found[0] >= self.fresh_seconds:
                self._found = (now, find(self.root))
                kept = set(self._found[1].runs)
                self._read = {name: seen for name, seen in self._read.items() if name in kept}
            return self._found[1]

    def folder(self, name: str) -> Path:
        """The folder of a run. Raises DataError if there is none of that name."""
        return folder_of(self.root, name)

    def read(self, name: str) -> tuple[dict[str, Any], Row | None]:
        """run.json of a run ({} if it cannot be read), and its newest numbers. Raises DataError if there is no such run."""
        folder = self.folder(name)
        signs = (signature(folder / RECORD), signature(folder / METRICS))
        with self._lock:
            known = self._read.get(name)
        if known is not None and known[0] == signs:
            return known[1], known[2]
        record, row = read_object(folder / RECORD) or {}, newest(folder / METRICS)
        with self._lock:
            self._read[name] = (signs, record, row)
        return record, row

    def summary(self, name: str) -> Summary:
        """A run as a list shows it. Raises DataError if there is no such run."""
        return summary(self.root, name, *self.read(name), time.time())

    def listed(self) -> list[Summary]:
        """All runs, those written last first."""
        found: list[Summary] = []
        for name in self.found().runs:
            with suppress(DataError):  # deleted meanwhile
                found.append(self.summary(name))
        return sorted(found, key=lambda one: -one.standing.written)

    def projects(self) -> list[ProjectSeen]:
        """All label projects, by name."""
        found: list[ProjectSeen] = []
        for name in self.found().projects:
            with suppress(DataError):
                found.append(project_seen(self.root, name))
        return found
