"""What a round finds in its project: labels that are in or still wanted, what they say, and whether this loop may go on in it.

A sitting is what annotators are asked at one time: the pairs of a round, mixed with the comparisons of the policy that the round before made. It has
the round's number as `Task.round`; the last one holds comparisons alone.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accord.annotation.assign import arm_of
from accord.annotation.project import Project
from accord.annotation.store import Store
from accord.config.options import AlignOptions
from accord.config.rounds import RoundsOptions
from accord.data.read import read_examples
from accord.data.snapshots import RECORD
from accord.errors import ConfigError, DataError
from accord.evaluation.intervals import Interval, wilson
from accord.recipes.align import decided
from accord.recipes.pairs import pairs_of
from accord.recipes.selection import COMPARES, labels_of
from accord.training.setup import say, usable
from accord.types import Annotation, Example, Task
from accord.writing import write_text

LOOP = "rounds.json"
"""What the loop of a project depends on."""

Wait = Callable[[Project, Callable[[], bool]], None]
"""Serves a project until the function says True."""


def remember(project: Project, store: Store, options: AlignOptions, rounds: RoundsOptions) -> None:
    """Write down what the loop of a project depends on, or insist that it is what it was: rounds may be added, nothing else may change.

    Raises:
        ConfigError: if a setting differs, or simulated labels would mix with real ones.
    """
    about = {
        name: getattr(options, name) for name in ("data", "model", "method", "columns", "max_new_tokens", "iterations", "seed", "weights")
    }
    about |= {name: getattr(rounds, name) for name in ("feedback", "labels", "comparisons", "reward", "reward_model", "select")}
    about |= {"noise": rounds.noise} if rounds.feedback == "simulated" else {}
    path = project.folder / LOOP
    before = {"weights": "auto", **json.loads(path.read_text(encoding="utf-8"))} if path.exists() else {"schema": 1, **about}
    changed = [name for name in about if before.get(name) != about[name]]
    if changed:
        told = ", ".join(f"{name} {before.get(name)} then, {about[name]} now" for name in changed)
        raise ConfigError(f"The rounds of {project.folder} were begun with other settings ({told}). Give those, or another --project.")
    sources = {annotation.source for annotation in store.annotations(valid=False)}
    if sources and (rounds.feedback == "simulated") != (sources == {"simulated"}):
        mine = "simulated ones" if rounds.feedback == "simulated" else "those of people or of a judge"
        raise ConfigError(
            f"{project.folder} has labels from {', '.join(sorted(sources))}; {mine} belong into a project of their own (--project)."
        )
    write_text(path, json.dumps({"schema": 1, **about}, ensure_ascii=False, indent=1) + "\n")


# -- waiting --------------------------------------------------------------------------------------------------------------------------


def still_wanted(store: Store, sitting: int) -> int:
    """Answers that a sitting still wants. A task that somebody set aside (skipped or reported) is waited for no longer."""
    missing = store.progress(sitting).missing
    if not missing:
        return 0
    aside = {one.task for kind in ("skip", "flag") for one in store.annotations(round=sitting, kind=kind)}
    if not aside:
        return missing
    return sum(task.id not in aside for task in store.tasks(round=sitting, role="work", state="open"))


def labels_are_in(project: Project, store: Store, sitting: int, wait: Wait | None) -> bool:
    """Whether people have judged a sitting, after waiting for them where somebody serves the page; else one line says how to go on."""
    missing = still_wanted(store, sitting)
    if missing and wait is not None:
        say(f"Sitting {sitting}: {missing} answers are wanted. This goes on when they are in.")
        wait(project, lambda: not still_wanted(store, sitting))
        missing = still_wanted(store, sitting)
    if missing:
        folder = project.folder
        say(
            f"Sitting {sitting}: {missing} answers are wanted. Judge them with accord annotate {folder}, or elsewhere (accord project export-tasks {folder} "
            f"tasks.jsonl there, accord project import-tasks {folder} labels.jsonl back), then give the same command again: it goes on from here."
        )
    return not missing


# -- labels ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labels:
    """What a round's reward model learns from and is tested on: every label so far."""

    train: list[Example]
    heldout: list[Example]
    """Pairs on held-out prompts that chance chose and somebody decided."""
    snapshot: str
    """Hash of the frozen labels."""


def frozen_labels(project: Project, store: Store, number: int) -> Labels:
    """The labels of a round, frozen once: whatever comes later belongs to the next one.

    Raises:
        DataError: if no label of the training prompts prefers an answer.
    """
    folder = project.round_folder(number)
    if not (folder / RECORD).exists():
        project.freeze(store, number)
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    rows = {
        split: usable(list(read_examples(str(folder), split=split)), ("preference", "ranking"), f"round {number}")
        for split, count in (("train", record["rows"] - record["heldout"]), ("heldout", record["heldout"]))
        if count
    }
    train, heldout = rows.get("train", []), pairs_of(rows.get("heldout", []), say, f"round {number}, held out")
    if not any(map(decided, train)):
        raise DataError(f"Round {number}: no label of a training prompt prefers an answer ({folder}), so there is nothing to learn.")
    return Labels(train, [row for row in heldout if decided(row) and labels_of(row.columns, chance_alone=True)], record["hash"])


@dataclass(frozen=True)
class Counts:
    """The labels of one sitting, comparisons of policies left out."""

    sources: dict[str, int]
    """Labels by who gave them."""
    selected: int
    """Chosen by the rule."""
    ties: int
    skipped: int


def counts(store: Store, sitting: int) -> Counts:
    """Counts the valid labels of a sitting."""
    tasks = {task.id: task for task in store.tasks(round=sitting) if labels_of(task.columns)}
    found = [one for one in _work(store, sitting) if one.task in tasks]
    said = [one for one in found if one.kind not in ("skip", "flag")]
    return Counts(
        sources=dict(Counter(one.source for one in said)),
        selected=sum(arm_of(tasks[one.task].columns) == "selected" for one in said),
        ties=sum(one.value.get("choice") in ("tie", "both_bad") for one in said),
        skipped=len(found) - len(said),
    )


def _work(store: Store, sitting: int) -> Iterable[Annotation]:
    return (one for one in store.annotations(round=sitting) if one.purpose in ("work", "calibration", "adjudication"))


# -- new against old ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WinRate:
    """How often a round's policy was preferred to the one before it, blind, on held-out prompts."""

    wins: float
    ties: float
    losses: float
    """Prompts; where several people judged one, each has its share of it."""
    alike: int
    """Prompts to which both gave the same answer: ties that nobody was asked."""
    interval: Interval
    """Of the win rate, ties half (Wilson)."""


def win_rate(store: Store, number: int, alike: int) -> WinRate | None:
    """What was said of round `number`'s policy and the one before it; None before anything was.

    Args:
        alike: prompts to which both gave the same answer.
    """
    tasks = {task.id: task for task in store.tasks(round=number + 1) if task.columns.get(COMPARES) == number}
    said: dict[str, list[float]] = defaultdict(list)
    for one in _work(store, number + 1):
        if one.task in tasks and one.kind == "pair":
            said[one.task].append(_score(one, tasks[one.task], number))
    if not said and not alike:
        return None
    shares = [[sum(value == wanted for value in values) / len(values) for values in said.values()] for wanted in (1.0, 0.5, 0.0)]
    wins, ties, losses = map(sum, shares)
    count = len(said) + alike
    return WinRate(wins, ties + alike, losses, alike, wilson((wins + 0.5 * (ties + alike)) / count, count))


def _score(annotation: Annotation, task: Task, number: int) -> float:
    """1 where the new policy's answer was preferred, 0 where the old one's was, 0.5 for neither."""
    choice = annotation.value["choice"]
    if choice not in (0, 1):
        return 0.5
    return float(task.completions[choice].source["policy"] == policy_name(number))


def policy_name(number: int) -> str:
    """What the policy of a round is called in sources of answers; 0 is the model that was given."""
    return f"round {number}" if number else "start"


def project_of(rounds: RoundsOptions, heldout: float) -> Project:
    """The project of the options, made if it is not there.

    Args:
        heldout: share of the prompts that a new project holds out.
    """
    from accord.annotation.project import PROJECT

    folder = Path(rounds.project)
    if (folder / PROJECT).is_file():
        return Project(folder)
    return Project.new(folder, overlap=rounds.overlap, heldout=heldout)


def told_counts(found: dict[str, Any]) -> str:
    """`40 simulated, 2 human`."""
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items()))
