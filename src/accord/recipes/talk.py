"""Talking with a model so that its answers are judged: two answers to each turn, stored as a pair whose prompt is the conversation so far."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from accord.annotation.project import Project
from accord.annotation.results import Assignment
from accord.annotation.snapshot import OPENING
from accord.annotation.store import Store
from accord.config.options import AnnotateOptions
from accord.errors import ConfigError
from accord.models.opened import Opened, open_model
from accord.recipes.conversation import checked, fitted, two_answers
from accord.recipes.partner import Kept, Partner, Watch
from accord.recipes.sampled import Drawn
from accord.recipes.selection import question
from accord.rollouts.local import LocalSampler
from accord.rollouts.random import shuffled
from accord.rollouts.sampler import SamplingConfig
from accord.types import Message, content_hash

TURN = "turn"
"""Column of a task made here: which of the assistant's turns it is about, from 0."""


class Talker(Partner):
    """A model that answers twice. Threads may share it: one at a time runs the model.

    Args:
        opened: the model.
        project: where pairs go, into the round of the options.
        store: the project's, opened.
        options: model, round, sampling settings.
    Raises:
        ConfigError: if the project takes no pairs.
    """

    kind = "chat"
    places = 2

    def __init__(self, opened: Opened, project: Project, store: Store, options: AnnotateOptions) -> None:
        if "pair" not in project.settings.kinds:
            raise ConfigError(f"{project.folder}: talking makes pairs, and kinds in project.yaml has none. Add pair, or leave --talk out.")
        assert options.model is not None  # AnnotateOptions sees to it
        self.opened, self.options, self.title = opened, options, options.model
        self._kept = Kept(project, store)
        self._source = Drawn(opened, options.model).source
        self._sampler = LocalSampler(opened.policy, opened.renderer, opened.stack)
        self._model = threading.Lock()
        self._asked = sum(OPENING in task.columns for task in store.tasks())
        """Questions so far, those before this start too: no two have the same draws."""

    @property
    def kept(self) -> Kept:
        """The project and its store."""
        return self._kept

    def propose(self, messages: Sequence[Message], annotator: str, watch: Watch | None = None) -> Assignment:
        """Two different answers, stored as a task that is kept for whoever asked.

        Args:
            messages: turns of the user and the assistant by turns, from and to the user's. Old ones are left out where the model has no
                positions for them.
            watch: sees the answers grow, at the places where they will stand.
        Raises:
            DataError: if the turns are none, or the model says the same again and again.
            ConfigError: if the last turn is too long for the model.
        """
        turns = checked(messages)
        options = self.options
        with self._model:
            prompt, ids = fitted(self.opened, turns, options.max_new_tokens)
            number = self._asked
            order = shuffled(2, "places", options.seed, number)
            config = SamplingConfig(options.max_new_tokens, 2, options.temperature, seed=options.seed, step=number)
            pair = two_answers(self._sampler, prompt, ids, config, order, watch)
            source = self._source(config, round=options.round, step=number)
            made = question((pair[0], pair[1]), options.round, source, {OPENING: opening_of(turns), TURN: len(turns) // 2})
            # The number keeps apart a pair that comes a second time.
            task = replace(made.task, id=f"{made.task.id}.{number}")
            self._kept.store.add_tasks([task])
            self._asked += 1
        place = {rollout.sample_index: index for index, rollout in enumerate(made.rollouts)}
        return self._kept.store.take(annotator, task.id, [place[sample] for sample in order])


def opening_of(turns: Sequence[Message]) -> str:
    """The id of the prompt that a conversation began with: what decides whether all of it is held out."""
    return content_hash([[turns[0].role, turns[0].content]])


def open_talker(options: AnnotateOptions, project: Project) -> Talker:
    """Open the model and the project's store. Close the talker at the end.

    Raises:
        ConfigError, MachineError: if the project takes no pairs, or the model cannot be opened.
    """
    assert options.model is not None  # AnnotateOptions sees to it
    opened = open_model(options.model, accept_licence=options.accept_licence, force=options.force)
    store = project.open_store()
    try:
        return Talker(opened, project, store, options)
    except BaseException:
        store.close()
        raise
