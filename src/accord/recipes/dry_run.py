"""`--dry-run`: everything a run would do, said before it is done, by the trainer that would do it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import yaml

from accord.config.options import TrainOptions
from accord.data.packing import Unit
from accord.methods.ppo import PPOTrainer
from accord.planning.memory import MemoryNeed, count_parameters
from accord.rollouts.sampler import Prompt


def describe(trainer: Any, options: TrainOptions, need: MemoryNeed) -> str:
    """Config, the first three rows as the model will see them, token counts, steps, parameters and memory."""
    rows, step = _ppo(trainer) if isinstance(trainer, PPOTrainer) else _offline(trainer)
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
        ]
    )


def _offline(trainer: Any) -> tuple[list[str], str]:
    units: Sequence[Unit] = trainer.train_units
    decode = trainer.processing_class.decode
    shown: list[str] = []
    for unit in units[:3]:
        shown.append(f"--- {unit.data['example'].where}\n{decode(list(unit.prompt_ids))}")
        shown += [
            f"    [{index + 1}] {decode(list(branch.ids))!r} ({branch.num_counted} tokens counted)"
            for index, branch in enumerate(unit.branches)
        ]
    return [*shown, _lengths("rows", [unit.num_tokens for unit in units], len(trainer.eval_units))], f"{trainer.batch_size} rows a step"


def _ppo(trainer: PPOTrainer) -> tuple[list[str], str]:
    prompts: Sequence[Prompt] = trainer.prompts
    config = trainer.config
    shown = [f"--- prompt {index + 1}\n{trainer.processing_class.decode(list(prompt.ids))}" for index, prompt in enumerate(prompts[:3])]
    count = min(config.prompts_per_iteration, len(prompts))
    step = (
        f"a round: {count} prompts, {config.num_generations} answers of at most {config.max_new_tokens} tokens to each, "
        f"{trainer.steps_per_iteration} optimizer steps; {config.num_iterations} rounds"
    )
    return [*shown, _lengths("prompts", [len(prompt.ids) for prompt in prompts], len(trainer.eval_prompts))], step


def _lengths(what: str, lengths: Sequence[int], held_out: int) -> str:
    more = f"; held out {held_out}" if held_out else ""
    return f"{len(lengths)} {what}, {sum(lengths)} tokens (median {median(lengths):.0f}, longest {max(lengths)} a row){more}"
