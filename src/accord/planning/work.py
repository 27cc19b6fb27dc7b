"""What a run of each method is made of: passes of how many tokens through the model, with and without gradient, and sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from accord.config.base import TrainingConfig
from accord.config.dpo import DPOConfig
from accord.config.online import OnlineConfig
from accord.data.packing import Unit
from accord.planning.flops import Volume, packed_volume, volume_of

ANSWERS = {"sft": 1, "reward": 2, "prm": 1, "dpo": 2, "kto": 1}
"""Answers of a row, by method; online methods sample theirs."""
REFERENCE_FREE = ("simpo", "orpo")
"""The preference losses that read no reference, by the names of `config.dpo.LOSSES`."""
HEADLESS = ("reward", "prm")
"""Methods that train no LM head: they read hidden states and no log-probs."""
NORMALISED_ON = 64
"""Answers that a reward model samples to set its scale (`methods.reference_answers`)."""
CHECKED = 2
"""Rows on which policy and reference are compared before the first step (`methods.reference`)."""
AGREEMENT = packed_volume(0, [(76, [7, 7], 14)]) * 12
"""What the monitor of sycophancy reads each time (`audit.agreeing`): six texts, liked and disliked, about as many tokens as SmolLM2 makes of them."""
PANEL = 8
"""Prompts that the policy answers again when the monitors look closely (`methods.guard`)."""
SAMPLED_TOGETHER = 128
"""Rows decoded side by side at most (`SamplingConfig.max_batch`)."""


@dataclass(frozen=True)
class Data:
    """What the rows are like."""

    rows: int
    epoch: Volume
    """Every row once. For methods that sample: every prompt once."""
    longest: int
    """Tokens of the longest row."""
    prompt: float
    """Mean tokens of a prompt."""
    answer: float
    """Mean tokens of an answer; of sampled ones, as long as they will be."""


@dataclass(frozen=True)
class Part:
    """Passes of one kind, all of the run's together."""

    name: str
    volume: Volume
    passes: float
    """Micro-batches; of sampling, steps of one token a row."""
    trains: bool = False
    """True has a backward pass. False has none."""
    head: bool = True
    """True reads log-probs. False stops at the hidden states."""
    layers: tuple[float, float] = (0.0, 1.0)
    """Share of the decoder layers, from the bottom, where a pass starts and ends."""
    rows: float = 0.0
    """Rows sampled side by side; 0 is no sampling."""
    cached: float = 0.0
    """Tokens in the KV cache, on average over the steps; a prompt's once for all of its answers."""


@dataclass(frozen=True)
class Work:
    """A whole run."""

    parts: tuple[Part, ...]
    steps: int
    """Optimizer steps."""
    longest: int
    """Tokens of the longest unit: one that may not be split."""
    sampled_rows: int = 0
    sampled_prompts: int = 0
    """Rows sampled side by side at most, and their different prompts."""
    answer: int = 0
    """Longest sampled answer, in tokens."""

    @property
    def tokens(self) -> float:
        """Tokens that the backward pass sees."""
        return sum(part.volume.tokens for part in self.parts if part.trains)


def data_of(units: Sequence[Unit], token_budget: int, answer: float = 0.0) -> Data:
    """Of rows that are rendered.

    Args:
        answer: tokens of a sampled answer; 0 for rows that have their own.
    """
    branches = [len(branch.ids) for unit in units for branch in unit.branches]
    return Data(
        rows=len(units),
        epoch=volume_of(units, token_budget),
        longest=max(unit.num_tokens for unit in units),
        prompt=sum(len(unit.prompt_ids) for unit in units) / len(units),
        answer=answer or sum(branches) / max(1, len(branches)),
    )


def data_like(method: str, rows: int, prompt: int, answer: int) -> Data:
    """Of rows that are not here: so many, with prompts and answers of so many tokens."""
    answers = ANSWERS.get(method, 0)
    one = data_counted([(prompt, [answer] * answers)])
    return replace(one, rows=rows, epoch=one.epoch * rows, answer=answer)


def data_counted(lengths: Sequence[tuple[int, Sequence[int]]]) -> Data:
    """Of rows whose prompts and answers were counted and not rendered: tokens of the prompt, and of each answer that is learned from."""
    epoch = sum((packed_volume(0, [(prompt, answers, sum(answers))]) for prompt, answers in lengths), Volume())
    every = [answer for _, answers in lengths for answer in answers]
    return Data(
        rows=len(lengths),
        epoch=epoch,
        longest=max(prompt + sum(answers) for prompt, answers in lengths),
        prompt=sum(prompt for prompt, _ in lengths) / len(lengths),
        answer=sum(every) / max(1, len(every)),
    )


def work_of(
    config: Any, data: Data, *, token_budget: int, lora_layers: float = 1.0, reward_models: int = 0, sampled: tuple[int, int] = (0, 0)
) -> Work:
    """What a run with this config on these rows does.

    Args:
        config: of any method.
        token_budget: tokens of a micro-batch.
        lora_layers: share of the decoder layers, from the top, that are trained.
        reward_models: learned rewards that an online method reads.
        sampled: answers to each prompt that are sampled before training (best of N), and the tokens of each.
    """
    if isinstance(config, OnlineConfig):
        return _online(config, data, token_budget, lora_layers, reward_models)
    work = _offline(config, data, token_budget, lora_layers)
    each, answer = sampled
    if not each:
        return work
    rows = min(SAMPLED_TOGETHER, data.rows * each)
    parts = (*_sampling(data.prompt, data.rows, each, answer), *work.parts)
    return replace(work, parts=parts, sampled_rows=rows, sampled_prompts=math.ceil(rows / each), answer=answer)


def _offline(config: TrainingConfig, data: Data, token_budget: int, lora_layers: float) -> Work:
    batch = min(data.rows, config.per_device_train_batch_size * config.gradient_accumulation_steps)
    an_epoch = math.ceil(data.rows / batch)
    steps = config.max_steps if config.max_steps > 0 else math.ceil(an_epoch * config.num_train_epochs)
    if getattr(config, "backbone", "") == "heads":
        features = Part("features", data.epoch, _passes(data.epoch, token_budget), head=False)
        return _normalised(config, data, token_budget, Work((features,), steps, data.longest))
    used = min(1.0, steps / an_epoch)
    seen = data.epoch * used
    upper = _upper(config, lora_layers)
    head = config.method not in HEADLESS
    parts: list[Part] = []
    if upper[0]:
        parts.append(Part("frozen layers", seen, _passes(seen, token_budget), head=False, layers=(0.0, upper[0])))
    if _reads_reference(config):
        reading = seen * 2 if config.method == "kto" else seen
        parts.append(Part("reference", reading, _passes(reading, token_budget), layers=upper))
        if not config.skip_step0_checks:
            parts.append(Part("first check", data.epoch * (min(CHECKED, data.rows) / data.rows), 1, layers=upper))
    trained = data.epoch * (steps / an_epoch)
    passes = steps * _passes(data.epoch * (1 / an_epoch), token_budget)
    if config.method == "kto":
        parts.append(Part("baseline", trained, passes))
    parts.append(Part("updates", trained, passes, trains=True, head=head, layers=upper))
    return _normalised(config, data, token_budget, Work(tuple(parts), steps, data.longest))


def _normalised(config: TrainingConfig, data: Data, token_budget: int, work: Work) -> Work:
    """This work, and what a reward model samples at its end."""
    if config.method != "reward" or not getattr(config, "normalise", False) or getattr(config, "normalise_on", None) == "training":
        return work
    answer, prompts = int(getattr(config, "max_new_tokens", 0)), min(NORMALISED_ON, data.rows)
    volume = packed_volume(0, [(round(data.prompt), [answer], 0)]) * prompts
    scale = Part("scale", volume, _passes(volume, token_budget), head=False)
    parts = (*work.parts, *_sampling(data.prompt, prompts, 1, answer), scale)
    return replace(work, parts=parts, sampled_rows=prompts, sampled_prompts=prompts, answer=answer)


def _online(config: OnlineConfig, data: Data, token_budget: int, lora_layers: float, reward_models: int) -> Work:
    prompts = min(config.prompts_a_round, data.rows)
    steps_a_round = config.passes * config.steps_a_pass
    rounds = (
        int(getattr(config, "num_iterations", 0))
        if config.method == "ppo"
        else math.ceil(data.rows * config.num_train_epochs / config.prompts_a_round)
    )
    if config.max_steps > 0:
        asked = math.ceil(config.max_steps / steps_a_round)
        rounds = asked if config.method != "ppo" else min(rounds, asked)
    answer = round(min(data.answer, config.answer_tokens))
    group = packed_volume(0, [(round(data.prompt), [answer] * config.num_generations, answer * config.num_generations)])
    a_round = group * prompts
    upper = _upper(config, lora_layers)
    once = _passes(a_round, token_budget)
    parts = [*_sampling(data.prompt, prompts, config.num_generations, answer)]
    if upper[0]:
        parts.append(Part("frozen layers", a_round, once, head=False, layers=(0.0, upper[0])))
    if config.method == "ppo" or getattr(config, "beta", 0.0) > 0:
        parts.append(Part("reference", a_round, once, layers=upper))
    critic = getattr(config, "value", "") == "adapter"
    readings = reward_models + critic
    if readings:
        parts.append(Part("rewards", a_round * readings, once * readings, head=False, layers=upper))
    if config.sampler_weights != "exact":
        parts.append(Part("old policy", a_round, once, layers=upper))
    updated, passes = a_round * config.passes, config.passes * max(config.steps_a_pass, once)
    parts.append(Part("updates", updated, passes, trains=True, layers=upper))
    if critic:
        parts.append(Part("critic", updated, passes, trains=True, head=False, layers=upper))
    every = tuple(replace(part, volume=part.volume * rounds, passes=part.passes * rounds) for part in parts)
    if config.monitors:
        every += _monitors(data.prompt, min(PANEL, prompts), answer, rounds, token_budget)
    rows = min(SAMPLED_TOGETHER, prompts * config.num_generations)
    together = min(prompts, math.ceil(rows / config.num_generations))
    longest = round(data.longest + config.num_generations * config.answer_tokens)
    return Work(every, rounds * steps_a_round, longest, rows, together, config.answer_tokens)


def _monitors(prompt: float, panel: int, answer: int, rounds: int, token_budget: int) -> tuple[Part, ...]:
    """What the guard asks at the first round, and halfway and at the end the panel with it; where no alarm asks more often."""
    looks = len({number for number in (rounds // 2, rounds) if number > 1})
    read = AGREEMENT * (1 + looks)
    parts = [Part("monitors", read, _passes(read, token_budget))]
    for _ in range(looks):
        parts += (replace(part, name="monitors") for part in _sampling(prompt, panel, 1, answer))
    return tuple(parts)


def _sampling(prompt: float, prompts: int, each: int, answer: int) -> tuple[Part, ...]:
    """So many prompts encoded, and so many answers to each written: one token for each of the rows that are written side by side a step."""
    rows = min(SAMPLED_TOGETHER, prompts * each)
    steps = answer * prompts * each / rows
    encoded = packed_volume(0, [(round(prompt), [], 0)]) * prompts
    standing = rows * answer / 2 + math.ceil(rows / each) * prompt
    written = Volume(prompts * each * answer, prompts * each * answer)
    return Part("prompts", encoded, max(1.0, encoded.tokens / 4096), head=False), Part(
        "sampling", written, steps, rows=rows, cached=standing
    )


def _upper(config: TrainingConfig, lora_layers: float) -> tuple[float, float]:
    return (1.0 - lora_layers, 1.0) if lora_layers < 1 and config.cache_lower_layers else (0.0, 1.0)


def _reads_reference(config: TrainingConfig) -> bool:
    return config.method == "kto" or (isinstance(config, DPOConfig) and config.loss_name not in REFERENCE_FREE)


def _passes(volume: Volume, token_budget: int) -> float:
    return max(1.0, math.ceil(volume.tokens / token_budget))
