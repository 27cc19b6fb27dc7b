"""Tasks that ask the same: one kind, one prompt, the same answers in whatever order, one round."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from accord.annotation.store import Store
from accord.types import Task, content_hash


def question(task: Task) -> str:
    """What a task asks, whatever the order of its answers and whatever its id (16 hex digits)."""
    prompt = [[message.role, message.content] for message in task.prompt]
    return content_hash([task.kind, prompt, sorted(completion.id for completion in task.completions), task.round])


@dataclass
class Unique:
    """Passes on the tasks that ask something new, or that the store has under the same id, and counts the others.

    Args:
        store: with the tasks that are there.
        keep: ids of tasks that are passed on all the same: labels name them.
    """

    store: Store
    keep: Collection[str] = ()
    left_out: int = 0
    _asked: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        for task in self.store.tasks():
            self._asked.setdefault(question(task), task.id)

    def of(self, found: Iterable[Task]) -> Iterator[Task]:
        """The tasks to add."""
        passed: set[str] = set()
        for task in found:
            first = self._asked.setdefault(question(task), task.id)
            if task.id in passed or (first != task.id and task.id not in self.keep):
                self.left_out += 1
                continue
            passed.add(task.id)
            yield task

    @property
    def words(self) -> str:
        """What was left out, in a line; empty where nothing was."""
        if not self.left_out:
            return ""
        them = "1 row asks" if self.left_out == 1 else f"{self.left_out} rows ask"
        return f"{them} what another task of the round asks (the same prompt and answers, in any order) and made no second task."
