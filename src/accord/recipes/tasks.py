"""Tasks for annotators: answers of a model to given prompts, different ones side by side."""

from __future__ import annotations

from pathlib import Path

from accord.config.options import AnnotateOptions
from accord.data.read import read_examples
from accord.methods.prompts import as_prompt
from accord.models.opened import open_model
from accord.rollouts.collect import collect
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import SamplingConfig
from accord.training.setup import say
from accord.types import Completion, Message, Rollout, Task, TaskKind, task_id


def sampled_tasks(options: AnnotateOptions, folder: Path) -> list[Task]:
    """A task for each prompt that the model answers in at least two ways. Samples already drawn are read from the project.

    Args:
        options: model, data, answers, limit, sampling settings, round.
        folder: of the project; samples go to rounds/N/samples.jsonl.
    """
    assert options.model is not None and options.data is not None  # AnnotateOptions sees to it
    opened = open_model(options.model, accept_licence=options.accept_licence, force=options.force)
    rows = list(read_examples(options.data, columns=options.columns, kind="prompt", limit=options.limit))
    prompts = list({prompt.id: prompt for prompt in (as_prompt(row, opened.renderer) for row in rows)}.values())
    config = SamplingConfig(options.max_new_tokens, options.answers, options.temperature, seed=options.seed, step=options.round)
    path = folder / "rounds" / str(options.round) / "samples.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    groups = collect(
        LocalSampler(opened.policy, opened.renderer, opened.stack),
        prompts,
        config,
        path,
        drawn_from={"model": opened.line},
        progress=lambda done, total: say(f"  {done} of {total} prompts answered"),
    )
    found = [task_of(group, options.model, options.round, options.seed) for group in groups]
    tasks = [task for task in found if task is not None]
    if len(tasks) < len(found):
        say(f"{len(found) - len(tasks)} of {len(found)} prompts got the same answer each time: nothing to compare.")
    return tasks


def task_of(group: list[Rollout], model: str, round: int, seed: int) -> Task | None:
    """A pair, or a ranking of more, of the different answers to one prompt; None if there are not two."""
    texts = {rollout.text: rollout for rollout in group if rollout.text.strip()}
    if len(texts) < 2:
        return None
    source = {"kind": "sample", "model": model, "round": round, "seed": seed}
    answers = tuple(
        Completion((Message("assistant", text),), rollout.finish_reason == "stop", {**source, "index": rollout.sample_index})
        for text, rollout in texts.items()
    )
    kind: TaskKind = "pair" if len(answers) == 2 else "ranking"
    prompt = group[0].prompt
    return Task(task_id(kind, prompt, answers, round), kind, prompt, answers, round=round, columns=dict(group[0].columns))
