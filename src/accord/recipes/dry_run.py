"""`--dry-run`: everything a run would do, said before it is done, by the trainer that would do it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

import yaml

from accord.config.base import TrainingConfig
from accord.config.options import BestOfOptions, TrainOptions
from accord.data.packing import Unit
from accord.methods.online import OnlineTrainer
from accord.models.opened import Opened
from accord.planning.memory import MemoryNeed, count_parameters
from accord.recipes.pipeline import Pipeline
from accord.rollouts.sampler import Prompt
from accord.training.setup import report_rendering


def describe(trainer: Any, options: TrainOptions, need: MemoryNeed, plan: str) -> str:
    """Config, the first three rows as the model will see them, token counts, steps, parameters and memory, and the lines of the plan."""
    rows, step = _online(trainer) if isinstance(trainer, OnlineTrainer) else _offline(trainer)
    config = trainer.config
    settings = {**vars(options), **config.to_dict(), "output_dir": str(trainer.folder)}
    total = count_parameters(trainer.policy.model.config)
    trained = sum(parameter.numel() for parameter in trainer.parameters().values())
    return "\n".join(
        [
            yaml.safe_dump({key: value for key, value in settings.items() if value is not None}, sort_keys=False).rstrip(),
            *rows,
            f"{step}, {trainer.total_steps()} optimizer steps in all",
            f"parameters {total / 1e6:.2f} M in the model, {trained:,} trained",
            f"memory about {need}",
            plan,
        ]
    )


def describe_pipeline(pipeline: Pipeline, options: Any, memory: str) -> str:
    """The same of a whole recipe: options and settings, the first three comparisons, the tokens of each stage's rows, parameters, memory.

    Args:
        options: what the user gave the command.
        memory: how much its largest stage takes.
    """
    data, settings = pipeline.data, pipeline.settings
    given = {key: value for key, value in vars(options).items() if value is not None}
    demonstrations, comparisons = (pipeline.renderer.units(rows) for rows in (data.demonstrations, data.comparisons))
    report_rendering(pipeline.renderer, "rows")
    total = count_parameters(pipeline.policy.model.config)
    return "\n".join(
        [
            yaml.safe_dump({**given, "settings": asdict(settings)}, sort_keys=False).rstrip(),
            *_shown(comparisons, pipeline.tokenizer.decode),
            _lengths("demonstrations", [unit.num_tokens for unit in demonstrations], 0),
            _lengths("comparisons", [unit.num_tokens for unit in comparisons], len(data.heldout_comparisons)),
            f"parameters {total / 1e6:.2f} M in the model; adapters of rank {settings.lora_r} on {100 * settings.lora_layers:.0f} % of its layers",
            f"memory about {memory}",
        ]
    )


def describe_sampling(
    prompts: Sequence[Prompt], opened: Opened, options: TrainOptions, config: TrainingConfig, best_of: BestOfOptions, need: MemoryNeed
) -> str:
    """What `accord sft --best-of` would sample: rows to imitate are known only afterwards."""
    settings = {**vars(options), **config.to_dict(), **vars(best_of)}
    shown = [f"--- prompt {index + 1}\n{opened.tokenizer.decode(list(prompt.ids))}" for index, prompt in enumerate(prompts[:3])]
    return "\n".join(
        [
            yaml.safe_dump({key: value for key, value in settings.items() if value is not None}, sort_keys=False).rstrip(),
            *shown,
            _lengths("prompts", [len(prompt.ids) for prompt in prompts], 0),
            f"{best_of.best_of} answers of at most {best_of.sample_tokens} tokens to each; the best of each prompt at most is imitated, "
            f"{config.per_device_train_batch_size * config.gradient_accumulation_steps} rows a step",
            f"memory about {need}",
        ]
    )


def _offline(trainer: Any) -> tuple[list[str], str]:
    units: Sequence[Unit] = trainer.train_units
    shown = _shown(units, trainer.processing_class.decode)
    return [*shown, _lengths("rows", [unit.num_tokens for unit in units], len(trainer.eval_units))], f"{trainer.batch_size} rows a step"


def _shown(units: Sequence[Unit], decode: Callable[[list[int]], str]) -> list[str]:
    """The first three rows as the model will see them."""
    shown: list[str] = []
    for unit in units[:3]:
        shown.append(f"--- {unit.data['example'].where}\n{decode(list(unit.prompt_ids))}")
        shown += [
            f"    [{index + 1}] {decode(list(branch.ids))!r} ({branch.num_counted} tokens counted)"
            for index, branch in enumerate(unit.branches)
        ]
    return shown


def _online(trainer: OnlineTrainer) -> tuple[list[str], str]:
    prompts: Sequence[Prompt] = trainer.prompts
    config = trainer.config
    shown = [f"--- prompt {index + 1}\n{trainer.processing_class.decode(list(prompt.ids))}" for index, prompt in enumerate(prompts[:3])]
    count = min(config.prompts_a_round, len(prompts))
    step = (
        f"a round: {count} prompts, {config.num_generations} answers of at most {config.answer_tokens} tokens to each, "
        f"{trainer.steps_per_iteration} optimizer steps; {trainer.rounds()} rounds"
    )
    return [*shown, _lengths("prompts", [len(prompt.ids) for prompt in prompts], len(trainer.eval_prompts))], step


def _lengths(what: str, lengths: Sequence[int], held_out: int) -> str:
    more = f"; held out {held_out}" if held_out else ""
    return f"{len(lengths)} {what}, {sum(lengths)} tokens (median {median(lengths):.0f}, longest {max(lengths)} a row){more}"
