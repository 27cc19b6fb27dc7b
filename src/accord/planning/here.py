"""Plans for a place: this machine, whose memory is asked and whose speed is measured, or one that a data sheet describes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from accord.config.base import TrainingConfig
from accord.config.online import OnlineConfig
from accord.config.options import TrainOptions
from accord.config.plan import PlanOptions
from accord.data.packing import Unit
from accord.errors import DataError
from accord.models.free_memory import available_memory
from accord.models.load import pick_device, pick_dtype
from accord.models.size import ModelSize, measured, model_size
from accord.planning.holding import held_so, how_held, may_be_held_smaller
from accord.planning.machine import Speeds, data_sheet, hardware_named, measure
from accord.planning.plan import Place, Plan, place_of, plan_run, smallest_need, trains_all
from accord.planning.shapes import config_of, released_in_half
from accord.planning.work import NORMALISED_ON, SAMPLED_TOGETHER, Data, data_counted, data_like, data_of
from accord.types import Completion, Example

HERE = "this"
MEASURED_TOKENS = 512
"""Tokens of the products that are measured: products of 512 rows run as fast as those of more."""
CHARACTERS_A_TOKEN = 4.0
"""Of English text, in the tokenizers of common models; templates come on top."""
TEMPLATE_TOKENS = 12
"""Of a chat template, a message."""
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
    quick: bool = False,
    base: str = "",
) -> Plan:
    """The plan of one run.

    Args:
        sampled: as `work.work_of`.
        quick: True measures for an instant, enough to compare models, and nothing where the run does not fit. False measures well.
        base: the model that is under `options.model`, where that is a run that an earlier stage will make. "": none.
    """
    name = base or options.model
    stored, half = config_of(name), released_in_half(name)
    size = model_size(stored)
    held = how_held(
        config.weights,
        name,
        stored,
        lambda weights: place_named(hardware, memory_gb, held_so(config, weights), half=half),
        lambda place: smallest_need(size, options, config, place),
        frozen=not trains_all(options, config),
        smaller=may_be_held_smaller(config),
    )
    config = held_so(config, held.weights)
    notes = (*notes, held.note) if held.note else notes
    run = partial(plan_run, size, config, options, held.place, data=data, sampled=sampled, below=int(bool(base)))
    if quick and not (found := run(notes=notes)).fits:
        return found
    rows = min(SAMPLED_TOGETHER, data.rows * sampled[0]) or rows_sampled(config)
    speeds = speeds_of(hardware, size, options.lora_r, rows, QUICK if quick else 0.25)
    told = (speeds.sentence,) if speeds is not None else ("time: not planned for a GPU of this machine; --hardware has data sheets",)
    return run(speeds=speeds, notes=(*told, *notes))


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


def rows_of_data(options: TrainOptions, config: Any, plan: PlanOptions, kinds: Sequence[str] | None = None) -> tuple[Data, tuple[str, ...]]:
    """What the rows are like: counted in the data, where some is given; as the options say elsewhere. Cut to `max_length` as they are in training.

    Args:
        kinds: of rows that the method takes. None: any.
    """
    answered = not isinstance(config, OnlineConfig)  # otherwise the rows' own answers are not read
    limit = (config.max_length or sys.maxsize) - (0 if answered else config.answer_tokens)
    if not options.data:
        prompt, answer = _cut(plan.prompt_tokens, [plan.answer_tokens] if answered else [], limit)
        rows = min(plan.rows, config.overfit or plan.rows)
        told = f"for {rows} rows with prompts of {prompt} tokens and answers of {(answer or [plan.answer_tokens])[0]}; --data counts yours"
        return data_like(config.method, rows, prompt, (answer or [plan.answer_tokens])[0]), (told,)
    from accord.training.setup import examples, read_rows

    rows = (
        read_rows(options.data, options.columns, config.seed)
        if kinds is None
        else examples(options.data, kinds=kinds, what=f"accord plan {config.method}", columns=options.columns, seed=config.seed)
    )
    if not answered:
        rows = list({row.prompt_id: row for row in rows}.values())
    if not rows:
        raise DataError(f"{options.data} has no rows.")
    found = counted(config, rows, answer_tokens=plan.answer_tokens)
    return found, (f"{found.rows} rows of {options.data}, counted at {CHARACTERS_A_TOKEN:g} characters a token",)


def counted(config: Any, rows: Sequence[Example], *, answer_tokens: float) -> Data:
    """What rows are like, by their characters, cut as training cuts them.

    Args:
        answer_tokens: of sampled answers; the rows' own are read where a method learns from them.
    """
    answered = not isinstance(config, OnlineConfig)
    limit = (config.max_length or sys.maxsize) - (0 if answered else config.answer_tokens)
    units = [(row, answers) for row in rows for answers in _units(config.method, row)] if answered else [(row, []) for row in rows]
    found = data_counted(
        [
            _cut(
                _tokens("".join(message.content for message in row.prompt), len(row.prompt)),
                [_tokens("".join(message.content for message in answer.messages), 1) for answer in answers],
                limit,
            )
            for row, answers in units[: config.overfit or None]
        ]
    )
    return found if answered else replace(found, answer=answer_tokens)


def prompts_counted(rows: Sequence[Example], *, answer_tokens: int) -> Data:
    """What prompts with sampled answers are like, by their characters."""
    return replace(
        data_counted([(_tokens("".join(message.content for message in row.prompt), len(row.prompt)), []) for row in rows]),
        answer=answer_tokens,
    )


def _units(method: str, row: Example) -> list[Sequence[Completion]]:
    """The answers that go through the model behind one prompt together: all of a row's, or each alone where a method compares none."""
    return [[answer] for answer in row.completions] if method == "kto" else [row.completions]


def _tokens(text: str, messages: int) -> int:
    return round(len(text) / CHARACTERS_A_TOKEN) + TEMPLATE_TOKENS * messages


def _cut(prompt: int, answers: Sequence[int], limit: int) -> tuple[int, list[int]]:
    """A prompt and its answers in as many tokens as training takes: the prompt loses tokens first (`Renderer`)."""
    prompt = min(prompt, max(1, limit - max(answers, default=0)))
    return prompt, [min(answer, max(1, limit - prompt)) for answer in answers]
