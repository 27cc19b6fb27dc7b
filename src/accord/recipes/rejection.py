"""Rejection-sampling fine-tuning: the best of N sampled answers to each prompt become demonstrations (Yuan et al. 2023, arXiv:2308.01825).

The plain control for every claim of reinforcement learning: the same samples and the same reward, but imitation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accord.config.base import TrainingConfig
from accord.config.options import BestOfOptions, TrainOptions
from accord.data.write import write_examples
from accord.errors import DataError
from accord.models.opened import Opened
from accord.recipes.sampled import Drawn
from accord.rewards.combine import RewardSource, combined
from accord.rewards.mitigated import pessimistic, shaped
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.training.setup import default_folder, read_rows, say
from accord.types import Completion, Example, Message, Rollout

SAMPLES = "samples.jsonl"
DEMONSTRATIONS = "best_of.jsonl"
RENDERED = ("tools", "functions")
"""Columns that belong to the prompt: the chat template writes them."""


@dataclass(frozen=True)
class Kept:
    """What was chosen of the answers to some prompts."""

    best: tuple[Rollout, ...]
    """The best answer to each prompt that has one good enough, its score on it."""
    prompts: int
    without: int
    """Prompts none of whose answers is good enough."""
    not_scored: int
    """Answers whose reward failed: they are never chosen."""
    keep_from: float | None
    """Lowest reward that was good enough; None: any."""


def best_answers(groups: Sequence[Sequence[Rollout]], keep_from: float | None = None) -> Kept:
    """The answer with the highest score of each group, the first of equal ones, where it is good enough.

    Args:
        groups: the answers to each prompt, with their scores.
        keep_from: lowest score that is good enough. None: 1 where every score is 0 or 1 (right answers only), else any.
    """
    values = [rollout.score.value for group in groups for rollout in group if rollout.score is not None]
    scored = [value for value in values if value is not None]
    if keep_from is None and scored and set(scored) <= {0.0, 1.0}:
        keep_from = 1.0
    best: list[Rollout] = []
    for group in groups:
        found = [(rollout.score.value, rollout) for rollout in group if rollout.score is not None and rollout.score.value is not None]
        if found:
            value, rollout = max(found, key=lambda pair: pair[0])
            if keep_from is None or value >= keep_from:
                best.append(rollout)
    count = sum(len(group) for group in groups)
    return Kept(tuple(best), len(groups), len(groups) - len(best), count - len(scored), keep_from)


def demonstrations(kept: Kept, source: Mapping[str, Any], plain: Mapping[str, bool] | None = None) -> list[Example]:
    """The chosen answers as rows for accord sft; who wrote each, its seed, number and reward stand in its source.

    Args:
        source: `Completion.source` of all of them.
        plain: by prompt id, whether its row held plain strings. None: chat messages.
    """
    rows: list[Example] = []
    for rollout in kept.best:
        assert rollout.score is not None
        about = {**source, "sample": rollout.sample_index, "reward": rollout.score.value}
        answer = Completion((Message("assistant", rollout.text),), rollout.finish_reason == "stop", about)
        columns = {name: rollout.columns[name] for name in RENDERED if name in rollout.columns}
        rows.append(Example("demonstration", rollout.prompt, (answer,), plain=(plain or {}).get(rollout.prompt_id, False), columns=columns))
    return rows


def imitated_rows(
    rows: Sequence[Example],
    prompts: Sequence[Prompt],
    opened: Opened,
    rewards: Sequence[RewardSource],
    options: TrainOptions,
    config: TrainingConfig,
    best_of: BestOfOptions,
) -> list[Example]:
    """Sample, choose, write `best_of.jsonl` into the run's folder, and read it back: what is trained on is exactly that file.

    Raises:
        DataError: if no answer is good enough.
    """
    folder = Path(config.output_dir or default_folder(config.method, opened.policy))
    if config.output_dir is None:
        config.output_dir = str(folder)
        say(f"output_dir {folder}: give it again to go on with the samples that are there, should this be stopped.")
    drawn = Drawn(opened, options.model)
    sampling = SamplingConfig(best_of.sample_tokens, best_of.best_of, best_of.temperature, seed=config.seed)
    groups = drawn(prompts, sampling, folder / SAMPLES)
    flat = [(index, rollout) for index, group in enumerate(groups) for rollout in group]
    careful = pessimistic(rewards, best_of.reward_ensemble, best_of.uncertainty_weight)
    plain_scores = combined(careful, [rollout for _, rollout in flat])
    lengths = [len(rollout.completion_ids) for _, rollout in flat]
    scores = iter(shaped(plain_scores, lengths, [index for index, _ in flat], best_of.reward_shaping))
    kept = best_answers([[replace(rollout, score=next(scores)) for rollout in group] for group in groups], best_of.keep_from)
    count = sum(len(group) for group in groups)
    if kept.not_scored:
        say(f"{kept.not_scored} of {count} answers were not scored and are not chosen.")
    enough = "" if kept.keep_from is None else f" of {kept.keep_from:g} or more"
    say(f"{len(kept.best)} of {kept.prompts} prompts have an answer with a reward{enough}; {kept.without} have none and are left out.")
    if not kept.best:
        raise DataError(
            f"None of {count} sampled answers has a reward{enough}: there is nothing to imitate. Sample more, or look at {folder / SAMPLES}."
        )
    plain = {row.prompt_id: row.plain for row in rows}
    source = drawn.source(sampling, best_of=best_of.best_of)
    write_examples(demonstrations(kept, source, plain), folder / DEMONSTRATIONS, "prompt_completion")
    say(f"They stand in {folder / DEMONSTRATIONS}.")
    return read_rows(str(folder / DEMONSTRATIONS))
