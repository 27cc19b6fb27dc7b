"""Which models a page offers to open: the finished runs below a folder that write answers, what they were trained on, and the starter model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from accord.models.registry import PINNED
from accord.reporting.run_files import signature
from accord.reporting.runs import Runs, model_of
from accord.training.lineage import JUDGES

POLICY = ("stack.json", "adapter_config.json", "config.json")
"""Files of which a folder with a policy has one."""
HEADS = ("reward.json", "process.json")
"""Files of folders that score and do not answer."""


@dataclass(frozen=True)
class Checkpoint:
    """A model that can be opened.

    Args:
        name: on the page, and what the page sends back.
        model: what `open_model` takes.
        note: what it is, in a few words.
    """

    name: str
    model: str
    note: str


def checkpoints(runs: Runs, more: tuple[str, ...] = ()) -> dict[str, Checkpoint]:
    """What may be opened, by name: first what was named, then runs, those written last first, then what they were trained on.

    Args:
        runs: of the folder that is served.
        more: names as `open_model` takes them, that whoever started the server gave. A run that is one of them is not offered twice.
    """
    found = {name: Checkpoint(name, name, "named at the start") for name in more}
    named = {Path(name).resolve() for name in more if Path(name).is_dir()}
    bases: dict[str, Checkpoint] = {}
    for run in runs.listed():
        folder = runs.folder(run.name)
        base = str(runs.read(run.name)[0].get("base") or "")
        if run.method in JUDGES or not _answers(folder):
            continue
        if folder.resolve() not in named:
            found.setdefault(run.name, Checkpoint(run.name, str(folder), " on ".join(filter(None, (run.method, run.model)))))
        if base and Path(base).is_dir():
            bases.setdefault(model_of({"base": base}), Checkpoint(model_of({"base": base}), base, "what runs here were trained on"))
    for name, one in bases.items():
        found.setdefault(name, one)
    for name, pinned in PINNED.items():
        if not pinned.must_accept and pinned.packages:
            found.setdefault(name, Checkpoint(name, name, f"{pinned.title}; fetched once, {pinned.size / 1e6:.0f} MB"))
    return found


def _answers(folder: Path) -> bool:
    return any(signature(folder / name) for name in POLICY) and not any(signature(folder / name) for name in HEADS)
