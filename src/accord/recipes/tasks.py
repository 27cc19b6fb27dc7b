"""Tasks for annotators: answers of a model to given prompts, different ones side by side, chosen by chance or by a reward model's heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accord.annotation.assign import arm_of, held_out
from accord.annotation.project import Project
from accord.annotation.store import Store
from accord.config.options import AnnotateOptions
from accord.data.read import read_examples
from accord.errors import ConfigError
from accord.models.opened import Opened, open_model
from accord.recipes.sampled import Drawn, prompts_to_answer
from accord.recipes.selection import ANSWERS, ask, by_chance, distinct, known, scored
from accord.rewards.learned import RewardModel
from accord.rollouts.sampler import SamplingConfig
from accord.training.setup import say
from accord.types import Completion, Message, Rollout, Task, task_id


def sampled_tasks(options: AnnotateOptions, project: Project, store: Store) -> list[Task]:
    """A task for each prompt that the model answers in at least two ways. Samples already drawn are read from the project.

    A pair's column `arm` says whether chance or the rule chose it. Chance chooses on held-out prompts, and on the project's random share of the others.

    Args:
        options: model, data, answers, limit, sampling settings, round, and which pairs are asked.
        project: samples go to rounds/N/samples.jsonl of it, those that a rule chooses from to samples-active.jsonl.
        store: the project's, with what was asked before.
    Raises:
        ConfigError: if the reward model has a single head, or the round has samples of other settings.
        DataError: if there is no reward model in the folder, or one on another base.
    """
    assert options.model is not None and options.data is not None  # AnnotateOptions sees to it
    opened = open_model(options.model, accept_licence=options.accept_licence, force=options.force)
    active = options.select == "active"
    reward = chooser(options, opened) if active else None
    rows = list(read_examples(options.data, columns=options.columns, kind="prompt", limit=options.limit))
    prompts = prompts_to_answer(rows, opened, options.max_new_tokens)
    answers = ANSWERS["active"] if active else options.answers
    config = SamplingConfig(options.max_new_tokens, answers, options.temperature, seed=options.seed, step=options.round)
    drawn = Drawn(opened, options.model)
    path = project.round_folder(options.round) / ("samples-active.jsonl" if active else "samples.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    groups = drawn(prompts, config, path)
    source = drawn.source(config, round=options.round)
    if options.answers > 2:
        return rankings(groups, source, options.round)
    before = known([task for task in store.tasks() if task.round != options.round])
    scores = None if reward is None else scored(groups, reward, but=left_to_chance([prompt.id for prompt in prompts], options, project))
    found = ask(groups, len(groups), round=options.round, source=source, asked=before, scores=scores, key=("pairs", options.seed))
    _tell_alike(found.alike, len(groups))
    if found.repeated:
        say(f"{found.repeated} pairs were asked in another round and are not asked again.")
    if scores is not None:
        chosen = sum(arm_of(question.task.columns) == "selected" for question in found.questions)
        say(f"The rule chose {chosen} of {len(found.questions)} pairs, chance the others: a control, and the only ones fit for evaluation.")
    return [question.task for question in found.questions]


def chooser(options: AnnotateOptions, opened: Opened) -> RewardModel:
    """The reward model whose heads choose what is asked.

    Raises:
        ConfigError: if it has one head, which never differs from itself.
        DataError: if the folder holds none, or one on another base than the model.
    """
    assert options.reward_model is not None  # AnnotateOptions sees to it
    found = RewardModel.load(opened.policy, Path(options.reward_model), opened.renderer)
    if found.heads.num_heads < 2:
        raise ConfigError(
            f"accord annotate --select active asks where two heads differ, and {options.reward_model} has one. Train it with --num-heads 5."
        )
    return found


def left_to_chance(prompts: Sequence[str], options: AnnotateOptions, project: Project) -> set[str]:
    """The ids of the prompts whose pairs chance chooses: those that the project holds out, and its random share of the others."""
    held = {prompt for prompt in prompts if held_out(prompt, project.settings.heldout)}
    others = [prompt for prompt in prompts if prompt not in held]
    return held | by_chance(others, project.settings.random_share, options.seed, options.round)


def rankings(groups: Sequence[Sequence[Rollout]], source: Mapping[str, Any], round: int) -> list[Task]:
    """A ranking of the different answers to each prompt (a pair where there are two); none where there are not two."""
    found = [task for task in (task_of(group, source, round) for group in groups) if task is not None]
    _tell_alike(len(groups) - len(found), len(groups))
    return found


def task_of(group: Sequence[Rollout], source: Mapping[str, Any], round: int) -> Task | None:
    """A ranking of the different answers to one prompt, a pair where there are two; None if there are not."""
    answers = tuple(
        Completion((Message("assistant", rollout.text),), rollout.finish_reason == "stop", {**source, "index": rollout.sample_index})
        for rollout in distinct(group)
    )
    if len(answers) < 2:
        return None
    kind = "pair" if len(answers) == 2 else "ranking"
    prompt = group[0].prompt
    return Task(task_id(kind, prompt, answers, round), kind, prompt, answers, round=round, columns=dict(group[0].columns))


def _tell_alike(alike: int, prompts: int) -> None:
    if alike:
        say(f"{alike} of {prompts} prompts got the same answer each time: nothing to compare.")
