"""A project: one folder with its settings, guideline, annotations and the frozen labels of its rounds. One more thing that --data accepts."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import yaml

from accord.data.snapshots import PROJECT, ROUNDS
from accord.errors import ConfigError, DataError
from accord.types import TaskKind
from accord.writing import whole_folder, write_text

if TYPE_CHECKING:
    from accord.annotation.assign import Rules, Selector
    from accord.annotation.snapshot import Snapshot
    from accord.annotation.store import Store

GUIDELINE, DATABASE = "guidelines.md", "annotations.sqlite"
SCHEMA = 1
FIRST_GUIDELINE = """# Which answer is better?

Read the whole prompt, then each answer. Prefer the one that

1. does what was asked, and says so where it cannot;
2. is true, as far as you can tell;
3. harms nobody;
4. is no longer than it needs to be.

Length, confidence and politeness are no merit of their own. Two answers that are as good as each other are a tie; two that should not be given at all are
both bad. Skip what you cannot judge, and say why.
"""


@dataclass
class ProjectSettings:
    """What project.yaml says."""

    name: str = ""
    """For people."""
    database: str | None = None
    """postgresql://user:password@host/name; ${NAME} is taken from the environment. None: annotations.sqlite in the folder."""
    kinds: list[str] = field(default_factory=lambda: list(get_args(TaskKind)))
    """Kinds of task that it takes."""
    overlap: int = 1
    """Annotators wanted for each task. 2 or 3 for some of the tasks tell how far annotators agree."""
    gold_rate: float = 0.05
    """Share of tasks with a known answer, while there are any that an annotator has not had."""
    repeat_rate: float = 0.05
    """Share of tasks that come again with the sides swapped."""
    random_share: float = 0.3
    """Share of tasks that chance chooses where a rule chooses the others. Only these are fit for evaluation."""
    lease_minutes: float = 30.0
    """How long a task is kept for an annotator who does nothing."""
    heldout: float = 0.1
    """Share of the prompts that training does not see."""
    seed: int = 0
    """Orders the tasks, and draws gold and repeats."""

    def __post_init__(self) -> None:
        for name in ("gold_rate", "repeat_rate", "random_share", "heldout"):
            if not _number(getattr(self, name)) or not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{PROJECT}: {name} is {getattr(self, name)!r}; it is a share from 0 to 1.")
        if self.gold_rate + self.repeat_rate >= 1 or self.heldout >= 1:
            raise ConfigError(f"{PROJECT}: gold_rate + repeat_rate, and heldout, must leave something to label and to train on.")
        if self.database is not None and not isinstance(cast("object", self.database), str):
            raise ConfigError(f"{PROJECT}: database is {self.database!r}; it is a URL, or null for a file in the folder.")
        if not isinstance(self.overlap, int) or isinstance(self.overlap, bool) or self.overlap < 1:
            raise ConfigError(f"{PROJECT}: overlap is {self.overlap!r}; a task wants 1 annotator or more.")
        if not _number(self.lease_minutes) or self.lease_minutes <= 0:
            raise ConfigError(f"{PROJECT}: lease_minutes is {self.lease_minutes!r}; it must be above 0.")
        wrong = (
            [kind for kind in self.kinds if kind not in get_args(TaskKind)]
            if isinstance(cast("object", self.kinds), list)
            else [self.kinds]
        )
        if wrong or not self.kinds:
            raise ConfigError(f"{PROJECT}: kinds has {wrong or 'nothing'}; it is a list of some of {', '.join(get_args(TaskKind))}.")


class Project:
    """An opened project folder.

    Args:
        folder: with a project.yaml.
    Raises:
        DataError: if it has none, or one of a newer release.
        ConfigError: naming what is wrong in it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.settings = _read(self.folder)

    @classmethod
    def new(cls, folder: str | Path, **settings: Any) -> Project:
        """Make a project folder with a guideline to start from, and its database.

        Args:
            settings: fields of `ProjectSettings`; the name is the folder's if none is given.
        Raises:
            ConfigError: if the folder is not empty, or a setting is wrong.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} is {'not empty' if folder.is_dir() else 'a file'}. A project needs a new folder.")
        wanted = ProjectSettings(**{"name": folder.name, **settings})
        with whole_folder(folder) as made:
            write_text(made / GUIDELINE, FIRST_GUIDELINE)
            _write(made, wanted)
            cls(made).open_store().close()
        return cls(folder)

    @property
    def rules(self) -> Rules:
        """How its tasks are given out."""
        from accord.annotation.assign import Rules

        found = self.settings
        return Rules(
            overlap=found.overlap,
            gold_rate=found.gold_rate,
            repeat_rate=found.repeat_rate,
            lease_seconds=60 * found.lease_minutes,
            random_share=found.random_share,
            seed=found.seed,
        )

    def open_store(self, *, selector: Selector | None = None, clock: Callable[[], float] = time.time) -> Store:
        """Its store, to be closed by the caller. A first guideline is taken from guidelines.md.

        Raises:
            MachineError: if a package is missing or the database cannot be opened.
        """
        from accord.annotation.store import Store

        url = os.path.expandvars(self.settings.database) if self.settings.database else None
        store = Store(url or self.folder / DATABASE, self.rules, selector=selector, clock=clock)
        if not store.guidelines() and self.guideline_text.strip():
            store.set_guideline(self.guideline_text)
        return store

    @property
    def guideline_text(self) -> str:
        """What guidelines.md says, which may be newer than what holds."""
        path = self.folder / GUIDELINE
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def round_folder(self, round: int) -> Path:
        """Where what belongs to a round lies."""
        return self.folder / ROUNDS / str(round)

    def freeze(self, store: Store, round: int | None = None, *, replace_old: bool = False) -> Snapshot:
        """Freeze the labels that count now. See `snapshot.freeze`.

        Args:
            round: whose folder it goes into. None is the newest round with tasks.
        """
        from accord.annotation.snapshot import freeze

        number = store.progress().round if round is None else round
        return freeze(store, self.round_folder(number), number, heldout=self.settings.heldout, replace_old=replace_old)


def set_database(folder: Path, database: str | None) -> None:
    """Change where a project's annotations lie; None: in the folder."""
    _write(folder, dataclasses.replace(_read(folder), database=database))


def _read(folder: Path) -> ProjectSettings:
    path = folder / PROJECT
    if not path.is_file():
        raise DataError(f"{folder} is no project: it has no {PROJECT}. Make one with: accord project new {folder}")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} must have a line NAME: VALUE for each setting.")
    values = cast("dict[str, Any]", found)
    if values.pop("schema", SCHEMA) > SCHEMA:
        raise DataError(f"{path} was written by a newer accord. Upgrade accord to open it.")
    known = [item.name for item in dataclasses.fields(ProjectSettings)]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ConfigError(f'{path} has no setting "{unknown[0]}". The settings are: {", ".join(known)}.')
    return ProjectSettings(**values)


def _write(folder: Path, settings: ProjectSettings) -> None:
    text = yaml.safe_dump({"schema": SCHEMA, **dataclasses.asdict(settings)}, sort_keys=False, allow_unicode=True)
    write_text(folder / PROJECT, text)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
