"""Plans for a place: this machine, whose memory is asked and whose speed is measured, or one that a data sheet describes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from statistics import fmean
from typing import Any

from accord.config.base import TrainingConfig
from accord.config.online import OnlineConfig
from accord.config.options import TrainOptions
from accord.config.plan import AdviseOptions, PlanOptions
from accord.data.packing import Unit
from accord.models.free_memory import available_memory
from accord.models.load import pick_device, pick_dtype
from accord.models.size import ModelSize, measured
from accord.planning.advise import Stage
from accord.planning.machine import Speeds, data_sheet, hardware_named, measure
from accord.planning.plan import Place, Plan, place_of, plan_run
from accord.planning.recipe_files import TRAINING, split_options
from accord.planning.shapes import released_in_half, size_of
from accord.planning.work import NORMALISED_ON, SAMPLED_TOGETHER, Data, data_like, data_of

HERE = "this"
MEASURED_TOKENS = 512
"""Tokens of the products that are measured: products of 512 rows run as fast as those of more."""
CHARACTERS_A_TOKEN = 4.0
"""Of English text, in the tokenizers of common models; templates come on top."""
TEMPLATE_TOKENS = 12
"""Of a chat template, a message."""
TYPICAL = (100, 150)
"""Tokens of a prompt and of an answer, where a situation says nothing of them."""
QUICK = 0.02
"""Seconds of each measurement where models are only compared."""


def place_named(hardware: str, memory_gb: float | None, config: TrainingConfig, *, half: bool = False) -> Place:
    """Where a run of this config would be. half: as `plan.place_of`. Raises ConfigError if there is no such hardware."""
    import torch

    have = None if memory_gb is None else memory_gb * 1e9
    if hardware != HERE:
        known = hardware_named(hardware)
        weight_bytes = known.weight_bytes if config.dtype == "auto" else getattr(torch, config.dtype).itemsize
        device = "cuda" if known.gb_per_second > 100 else "cpu"
        return place_of(config, have or known.memory_gb * 1e9, device, weight_bytes, half=half)
    device = pick_device()
    dtype = pick_dtype(device) if config.dtype == "auto" else getattr(torch, config.dtype)
    return place_of(config, have or available_memory(device), device, dtype.itemsize, half=half)


@lru_cache(maxsize=32)
def speeds_of(hardware: str, size: ModelSize, rank: int, rows: int, at_most: float = 0.25) -> Speeds | None:
    """Of a place; None for a GPU of this machine, which is not measured."""
    if hardware != HERE:
        return data_sheet(hardware_named(hardware))
    return measure(size, tokens=MEASURED_TOKENS, rank=rank, rows=rows, at_most=at_most) if pick_device() == "cpu" else None


def rows_sampled(config: Any) -> int:
    """Rows that a run decodes side by side; 0 where it samples nothing."""
    if isinstance(config, OnlineConfig):
        return min(SAMPLED_TOGETHER, config.prompts_a_round * config.num_generations)
    return NORMALISED_ON if config.method == "reward" and getattr(config, "normalise", False) else 0


def planned(
    options: TrainOptions,
    config: Any,
    data: Data,
    *,
    hardware: str = HERE,
    memory_gb: float | None = None,
    sampled: tuple[int, int] = (0, 0),
    notes: tuple[str, ...] = (),
    at_most: float = 0.25,
) -> Plan:
    """The plan of one run. sampled: as `work.work_of`."""
    size = size_of(options.model)
    place = place_named(hardware, memory_gb, config, half=released_in_half(options.model))
    rows = min(SAMPLED_TOGETHER, data.rows * sampled[0]) or rows_sampled(config)
    speeds = speeds_of(hardware, size, options.lora_r, rows, at_most)
    told = (speeds.sentence,) if speeds is not None else ("time: not planned for a GPU of this machine; --hardware has data sheets",)
    return plan_run(size, config, options, place, data=data, speeds=speeds, sampled=sampled, notes=(*told, *notes))


def trainer_plan(trainer: Any, options: TrainOptions, have: float) -> Plan:
    """The plan of a run that is ready: of its own rows, on this machine.

    Args:
        trainer: of any method.
        have: bytes that were free before its model was loaded.
    """
    policy, config = trainer.policy, trainer.config
    size = measured(policy.model, policy.adapters)
    sampled = isinstance(config, OnlineConfig)
    units = [Unit(prompt.ids, ()) for prompt in trainer.prompts] if sampled else trainer.train_units
    data = data_of(units, trainer.token_budget, answer=config.answer_tokens if sampled else 0.0)
    here = policy.device.type == "cpu"
    speeds = speeds_of(HERE, size, options.lora_r, rows_sampled(config), QUICK * 5) if here else None
    place = Place(have, policy.device.type, policy.dtype.itemsize)
    if policy.held:
        outer = policy.model.get_input_embeddings().weight.element_size()
        place = Place(have, policy.device.type, outer, policy.dtype.itemsize, policy.held)
    below = max(0, len(trainer.prepared.stack) - 1)
    return plan_run(size, config, options, place, data=data, speeds=speeds, below=below)


def rows_of_data(options: TrainOptions, config: Any, plan: PlanOptions) -> tuple[Data, tuple[str, ...]]:
    """What the rows are like: counted in the data, where some is given; as the options say elsewhere."""
    if not options.data:
        told = f"for {plan.rows} rows with prompts of {plan.prompt_tokens} tokens and answers of {plan.answer_tokens}; --data counts yours"
        return data_like(config.method, plan.rows, plan.prompt_tokens, plan.answer_tokens), (told,)
    from accord.training.setup import read_rows

    rows = list(read_rows(options.data, options.columns, config.seed))
    prompts = [_tokens("".join(message.content for message in row.prompt), len(row.prompt)) for row in rows]
    answers = [[_tokens("".join(m.content for m in answer.messages), 1) for answer in row.completions] for row in rows]
    every = [count for row in answers for count in row]
    answer = round(fmean(every)) if every else plan.answer_tokens
    longest = min(config.max_length or 10**9, max(p + max(a, default=0) for p, a in zip(prompts, answers, strict=True)))
    counted = len(rows) * (2 if config.method == "kto" and every and len(every) == 2 * len(rows) else 1)
    told = f"{len(rows)} rows of {options.data}, counted at {CHARACTERS_A_TOKEN:g} characters a token"
    return data_like(config.method, counted, round(fmean(prompts)), answer, longest=longest), (told,)


def _tokens(text: str, messages: int) -> int:
    return round(len(text) / CHARACTERS_A_TOKEN) + TEMPLATE_TOKENS * messages


def stage_plans(stages: Sequence[Stage], asked: AdviseOptions, *, quick: bool = False) -> list[Plan | None]:
    """The plan of each stage; None for those that are not planned as one run.

    Args:
        quick: True measures for an instant, enough to compare models. False measures well.
    """
    found: list[Plan | None] = []
    for stage in stages:
        if not stage.rows or (stage.command not in TRAINING and stage.command != "align"):
            found.append(None)
            continue
        options, config = split_options(stage)
        found.append(
            planned(
                options,
                config,
                data_like(config.method, stage.rows, *TYPICAL),
                hardware=asked.hardware,
                memory_gb=asked.memory_gb,
                sampled=(stage.options.get("best_of", 0), stage.options.get("sample_tokens", 0)),
                at_most=QUICK if quick else 0.25,
            )
        )
    return found
