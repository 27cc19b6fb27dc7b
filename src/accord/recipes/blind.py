"""Checkpoints compared blind: each answers the same question, nobody is told whose answer is whose before the vote, and votes are annotations.

The answers lie in the task in the order of their content, and on the page in an order drawn for each question, so neither says who wrote what.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accord.annotation.project import Project
from accord.annotation.refusals import Unknown
from accord.annotation.results import Assignment
from accord.annotation.store import Store
from accord.config.options import ChatOptions
from accord.data.snapshots import PROJECT
from accord.errors import DataError
from accord.models.opened import Opened, open_models
from accord.models.save import adapter_hash, base_hash
from accord.recipes.conversation import checked, fitted
from accord.recipes.partner import Kept, Partner, Watch
from accord.recipes.seat import Wish
from accord.recipes.votes import AUTHORS, Author, Pairing, pairings
from accord.rollouts.local import LocalSampler
from accord.rollouts.random import shuffled
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.types import Completion, Message, Rollout, Task, TaskKind, task_id

VOTES: tuple[TaskKind, ...] = ("pair", "ranking")


class Comparison(Partner):
    """Two to four models that answer the same questions.

    Args:
        opened: the models; those on one base share its weights.
        names: what they are called, one each.
        project: where questions, answers and votes lie.
        store: the project's, opened.
        chat: how answers are drawn; `model` is not read.
    """

    kind = "compare"

    def __init__(self, opened: Sequence[Opened], names: Sequence[str], project: Project, store: Store, chat: ChatOptions) -> None:
        self.opened, self.project, self.store, self.chat = list(opened), project, store, chat
        self.authors = [Author(name, weights_of(one)) for name, one in zip(names, opened, strict=True)]
        self.title = " · ".join(sorted(names))
        self.places = len(opened)
        self._samplers = [LocalSampler(one.policy, one.renderer, one.stack) for one in opened]
        self._asked = sum(1 for _ in store.tasks())
        """Questions in the project so far: no two have the same draws or the same order."""

    @property
    def kept(self) -> Kept:
        """The project and its store."""
        return Kept(self.project, self.store)

    def propose(self, messages: Sequence[Message], annotator: str, watch: Watch | None = None) -> Assignment:
        """An answer of each, one after another in the order of the page, stored as a task that is kept for whoever asked.

        Answers that are the same are one answer. All models see the same turns: those that the one with the fewest positions has room for.

        Raises:
            DataError: if the turns are none, or all answers are the same.
            ConfigError: if the last turn is too long for one of the models.
        """
        given = checked(messages)
        room = min(len(fitted(one, given, self.chat.max_new_tokens)[0]) for one in self.opened)
        prompt = tuple(given[len(given) - room :])
        number, self._asked = self._asked, self._asked + 1
        order = shuffled(self.places, "places", self.chat.seed, number, *(author.name for author in self.authors))
        rollouts = [self._answer(author, prompt, number, place, watch) for place, author in enumerate(order)]
        answers, shown_order = self._merged(rollouts, order, number)
        if len(answers) == 1:
            raise DataError(f"All {self.places} models gave the same answer: there is nothing to compare. Ask something else.")
        kind: TaskKind = "pair" if len(answers) == 2 else "ranking"
        # The number keeps apart answers that come a second time.
        task = Task(f"{task_id(kind, prompt, answers)}.{number}", kind, prompt, answers)
        self.store.add_tasks([task], wanted=1)
        return self.store.take(annotator, task.id, shown_order)

    def _answer(self, author: int, prompt: tuple[Message, ...], number: int, place: int, watch: Watch | None) -> Rollout:
        chat, opened = self.chat, self.opened[author]
        top_p = 0.95 if chat.top_p is None else chat.top_p
        config = SamplingConfig(chat.max_new_tokens, temperature=chat.temperature, top_p=top_p, seed=chat.seed, step=number)

        def told(_: str, index: int, written: Sequence[int]) -> None:
            if watch is not None:
                watch(place, opened.renderer.decode(written))

        ids = opened.renderer.prompt_ids(list(prompt))
        (rollout,) = self._samplers[author].sample([Prompt(f"author {author}", tuple(ids), prompt)], config, watch=told)
        return rollout

    def _merged(self, rollouts: Sequence[Rollout], order: Sequence[int], number: int) -> tuple[tuple[Completion, ...], list[int]]:
        """Different answers in the order of their content, and which of them stands at each place."""
        by_text: dict[str, list[int]] = {}
        for place, rollout in enumerate(rollouts):
            by_text.setdefault(rollout.text, []).append(place)
        places = list(by_text.values())
        answers = [self._completion([(order[place], rollouts[place]) for place in same], number) for same in places]
        ranked = sorted(range(len(answers)), key=lambda index: answers[index].id)
        return tuple(answers[index] for index in ranked), [ranked.index(index) for index in range(len(answers))]

    def _completion(self, same: Sequence[tuple[int, Rollout]], number: int) -> Completion:
        rollout = same[0][1]
        authors = [{**self.authors[author].row(), "tokens": len(written.completion_ids)} for author, written in same]
        source: dict[str, Any] = {"kind": "sample", "model": ", ".join(author["model"] for author in authors), AUTHORS: authors}
        source |= {"seed": self.chat.seed, "step": number, "temperature": self.chat.temperature}
        return Completion((Message("assistant", rollout.text),), rollout.finish_reason == "stop", source)

    def revealed(self, task: str, annotator: str) -> list[list[dict[str, Any]]]:
        """Who wrote the answer at each place of the page: model and tokens; an answer that several gave has several.

        Raises:
            Unknown: as long as this annotator has not voted on it.
        """
        voted = [one for one in self.store.annotations(task=task, annotator=annotator, valid=False) if one.kind in VOTES]
        if not voted:
            raise Unknown("Vote first: who wrote what is told after that.")
        answers = self.store.task(task).completions
        return [
            [{"model": one["model"], "tokens": one["tokens"]} for one in answers[index].source[AUTHORS]] for index in voted[-1].shown_order
        ]

    def take_back(self, annotator: str, submission: str) -> None:
        """Take the newest vote back for good: whoever gave it knows by now who wrote what, so the question is not asked again.

        Raises:
            Unknown: if there is none.
        """
        found = self.store.undo(annotator, submission)
        if found is not None:
            self.store.release(annotator, found.task.id, found.token)
            self.store.retire(found.task.id)

    def tallies(self) -> tuple[list[Pairing], int]:
        """How each two of these models stand, from all votes in the project; and how many votes are about other models or other weights."""
        return pairings(self.store, self.authors)


def weights_of(opened: Opened) -> str:
    """What tells the weights of a model from others: a hash of its base and one of each adapter."""
    return " + ".join([base_hash(opened.policy)[:16], *(adapter_hash(opened.policy, name)[:16] for name in opened.stack)])


def open_comparison(wish: Wish, votes: Path) -> Comparison:
    """Open the models and the project of the votes; a new one is made. Close the comparison at the end.

    Raises:
        ConfigError, DataError, MachineError: if something given is wrong, does not fit into memory, or cannot be opened.
    """
    opened = open_models(wish.models)
    project = Project(votes) if (votes / PROJECT).is_file() else Project.new(votes, gold_rate=0.0, repeat_rate=0.0)
    store = project.open_store()
    try:
        chat = ChatOptions(max_new_tokens=wish.max_new_tokens, temperature=wish.temperature)
        return Comparison(opened, wish.titles, project, store, chat)
    except BaseException:
        store.close()
        raise
