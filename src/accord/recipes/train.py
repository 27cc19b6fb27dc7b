"""One training command: options and config in, a run folder out, with what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accord.annotation.accuracies import Measured, keep
from accord.config.base import SMALL_WEIGHTS, TrainingConfig
from accord.config.options import BestOfOptions, TrainOptions
from accord.data.snapshots import ARMS, is_project, newest_snapshot
from accord.errors import ConfigError
from accord.models.free_memory import available_memory
from accord.models.load import pick_device, pick_dtype
from accord.models.lora import lora_config
from accord.models.opened import Opened, open_model
from accord.models.save import HEADS, REWARD
from accord.models.size import choose_token_budget, model_size
from accord.planning.here import trainer_plan
from accord.planning.holding import held_so, how_held, may_be_held_smaller
from accord.planning.memory import MemoryNeed, check_fits, predict, suggest
from accord.planning.plan import budget_settings, memory_settings, more_ways, place_of, sampling_settings, smallest_need, trains_all
from accord.planning.work import SAMPLED_TOGETHER
from accord.recipes.dry_run import describe, describe_sampling
from accord.recipes.rejection import imitated_rows
from accord.recipes.sampled import prompts_to_answer
from accord.training import processes
from accord.training.best import check_can_evaluate
from accord.training.lineage import JUDGES, load_lines
from accord.training.setup import Rows, frozen_weights, read_rows, say
from accord.types import Example


def run(options: TrainOptions, config: TrainingConfig, best_of: BestOfOptions | None = None) -> int:
    """Train with one method; returns the exit code. best_of: for sft, how answers are sampled to be imitated, if they are."""
    best_of = best_of if best_of is not None and best_of.best_of else None
    check_options(options, config, best_of)
    if not options.data:
        raise ConfigError(
            f"accord {config.method} needs data: accord {config.method} --data rows.jsonl. Start a file with: accord data template {TEMPLATES[config.method]} rows.jsonl"
        )
    needs: list[MemoryNeed] = []
    have = available_memory(pick_device())
    rows = read_rows(options.data, options.columns, config.seed)
    evaluation = read_rows(options.eval_data, options.columns, config.seed) if options.eval_data else None
    opened = open_model(
        options.model,
        dtype=config.dtype,
        accept_licence=options.accept_licence,
        before_loading=lambda found: needs.append(
            plan_memory(found, options, config, rows=len(rows), sampled=(best_of.best_of, best_of.sample_tokens) if best_of else (0, 0))
        ),
        weights=lambda: config.weights,
    )
    say(opened.line)
    if best_of is not None:
        prompts = prompts_to_answer(rows, opened, best_of.sample_tokens)
        if options.dry_run:
            print(describe_sampling(prompts, opened, options, config, best_of, needs[-1]))
            return 0
        rewards = _rewards(options, config.method, opened, aggregation=best_of.aggregation)
        rows = imitated_rows(rows, prompts, opened, rewards, options, config, best_of)
    lora = None
    if options.lora_r:
        lora = lora_config(
            opened.policy,
            rank=options.lora_r,
            alpha=options.lora_alpha,
            target=options.lora_target,
            layers=options.lora_layers,
            dropout=options.lora_dropout,
        )
    trainer = build(options, config, opened, rows, evaluation, lora)
    plan = trainer_plan(trainer, options, have)
    if options.dry_run:
        print(describe(trainer, options, needs[-1], plan.lines))
        return 0
    plan.check(force=options.force)
    say(plan.lines)
    if config.logging_steps and config.save_steps == 0 and trainer.total_steps() > 20:
        config.save_steps = max(1, trainer.total_steps() // 4)
        say(f"save_steps {config.save_steps}: a quarter of the {trainer.total_steps()} steps.")
    trainer.train()
    trainer.save_model()
    if evaluation is not None:
        found = trainer.evaluate()
        say("held out: " + ", ".join(f"{name} {value:.4g}" for name, value in found.items()))
        if config.method == "reward" and processes.is_main():
            keep_accuracy(options, rows, evaluation, found, trainer.folder)
    say(f"Saved in {trainer.folder}.\n{next_steps(config.method, trainer.folder, adapters=bool(trainer.prepared.stack))}")
    return 0


def keep_accuracy(options: TrainOptions, rows: list[Example], heldout: list[Example], found: dict[str, float], folder: Path) -> None:
    """Where a project's labels were learned from and what it holds out was tested on, keep in it how often the reward model is right (its page /quality shows it)."""
    source, _, split = (options.eval_data or "").rpartition("@")
    learned, _, arm = options.data.rpartition("@")
    place, arm = (Path(learned), arm) if arm in ARMS else (Path(options.data), "")
    if split != "heldout" or Path(source) != place or not is_project(place) or "eval_accuracy" not in found:
        return
    labels, pairs = (sum(row.kind in ("preference", "ranking") for row in part) for part in (rows, heldout))
    keep(newest_snapshot(place), [Measured(labels, float(found["eval_accuracy"]), pairs, folder.as_posix(), arm)])


def check_options(options: TrainOptions, config: TrainingConfig, best_of: BestOfOptions | None = None) -> None:
    """Refuse what this method would ignore, before anything is loaded.

    Raises:
        ConfigError: naming the option.
    """
    if config.method == "ppo" and not options.lora_r:
        raise ConfigError(
            "accord ppo trains an adapter (policy, reference and value share one base): --lora_r 0, all weights, is not offered. Leave it at 16."
        )
    if config.weights in SMALL_WEIGHTS and trains_all(options, config):
        raise frozen_weights(config.weights)
    for name, methods in (("reward_model", ONLINE), ("reward", ONLINE), ("heldout_reward", ONLINE), ("ptx_data", ("ppo",))):
        both = name in ("reward_model", "reward")
        if config.method not in methods and getattr(options, name) and (best_of is None or not both):
            more = " (accord sft takes it with --best-of N)" if config.method == "sft" and both else ""
            raise ConfigError(f"accord {config.method} has no --{name}: it belongs to accord {' and accord '.join(methods)}{more}.")
    if best_of is not None and not (options.reward_model or options.reward):
        raise ConfigError("accord sft --best-of needs a reward to choose by: --reward_model runs/... or --reward file.py:function.")
    if best_of is not None and processes.world() > 1:
        raise ConfigError(
            "accord sft --best-of samples in one process. Run it in one with --max_steps 1, then train on its best_of.jsonl in several."
        )
    if any((Path(options.model) / record).exists() for record in HEADS):
        _on_a_judge(options.model, config)
    check_can_evaluate(config, has_rows=bool(options.eval_data or config.overfit))


def _on_a_judge(model: str, config: Any) -> None:
    """A reward run is no policy: only what makes judges goes on from one, and its own answers are then no scale for a reward."""
    if config.method not in JUDGES:
        kind, use = (
            ("reward", f"; accord ppo and accord grpo take it as --reward_model {model}")
            if (Path(model) / REWARD).exists()
            else ("process reward", "")
        )
        raise ConfigError(f"{model} is a {kind} model, not a policy to train. Give --model the run that it was trained on{use}.")
    if config.method == "reward" and config.normalise and config.normalise_on is None:
        config.normalise_on = "training"
        say(f"normalise_on training: {model} is a reward model, whose samples are no policy's.")


def plan_memory(
    model_config: Any, options: TrainOptions, config: TrainingConfig, *, rows: int | None = None, sampled: tuple[int, int] = (0, 0)
) -> MemoryNeed:
    """Choose the token budget from free memory when none is given, and refuse what cannot fit, before weights are read. Returns the need.

    Args:
        rows: of the data. None: as many as a round asks.
        sampled: answers to each prompt that are sampled before training, and the tokens of each.
    """
    import torch

    device = pick_device()
    size = model_size(model_config)
    dtype = pick_dtype(device) if config.dtype == "auto" else getattr(torch, config.dtype)
    half, have = getattr(model_config, "dtype", None) == torch.bfloat16, available_memory(device)
    held = how_held(
        config.weights,
        options.model,
        model_config,
        lambda weights: place_of(held_so(config, weights), have, device, dtype.itemsize, half=half),
        lambda place: smallest_need(size, options, config, place),
        frozen=not trains_all(options, config),
        smaller=may_be_held_smaller(config),
    )
    place, config.weights = held.place, held.weights
    if held.note:
        say(f"{held.note}.")
    settings = memory_settings(config, options, place, rows=rows)
    if sampled[0]:
        settings |= sampling_settings(sampled[0] * (rows or SAMPLED_TOGETHER), sampled[1])
    if config.tokens_per_microbatch is None:
        fixed = predict(size, **{**settings, "head": True}, token_budget=0).total  # as `training.budget` counts
        config.tokens_per_microbatch = choose_token_budget(size, place.have - fixed, device=device, **budget_settings(settings))
        say(f"tokens_per_microbatch {config.tokens_per_microbatch}, from {place.have / 1e9:.1f} GB of free memory.")
    settings["token_budget"] = config.tokens_per_microbatch
    need = predict(size, **settings)
    check_fits(
        need,
        place.have,
        what=f"accord {config.method} on {options.model}",
        fitting=suggest(size, place.have, **settings, **more_ways(config, place, settings)),
        force=options.force,
    )
    return need


ONLINE = ("ppo", "grpo")
"""Methods that sample what they learn from, and take rewards."""
TEMPLATES = {
    "sft": "demonstration",
    "reward": "preference",
    "prm": "steps",
    "dpo": "preference",
    "kto": "labelled",
    "ppo": "prompt",
    "grpo": "prompt",
}


def build(options: TrainOptions, config: Any, opened: Opened, rows: Rows, evaluation: Rows, lora: Any) -> Any:
    """The trainer of a method."""
    import accord

    tokenizer = opened.tokenizer
    common = {"train_dataset": rows, "processing_class": tokenizer}
    watched = _heldout(options, opened) if config.method in ONLINE else None
    if config.method == "ppo":
        return accord.PPOTrainer(
            config,
            model=opened.policy,
            reward=_rewards(options, config.method, opened),
            peft_config=lora,
            eval_dataset=evaluation,
            ptx_dataset=options.ptx_data,
            heldout_reward=watched,
            start=opened.stack,
            **common,
        )
    if config.method == "grpo":
        rewards = _rewards(options, config.method, opened, aggregation="min")
        return accord.GRPOTrainer(
            opened.policy, rewards, config, eval_dataset=evaluation, peft_config=lora, heldout_reward=watched, start=opened.stack, **common
        )
    if getattr(config, "backbone", "") == "heads":
        lora = None
    return _trainer(config.method)(opened.policy, args=config, eval_dataset=evaluation, peft_config=lora, **common)


def _trainer(method: str) -> Any:
    """The trainer of a method that learns from rows as they are."""
    import accord

    return {
        "sft": accord.SFTTrainer,
        "reward": accord.RewardTrainer,
        "prm": accord.PRMTrainer,
        "dpo": accord.DPOTrainer,
        "kto": accord.KTOTrainer,
    }[method]


def kinds_of(method: str) -> tuple[str, ...]:
    """Kinds of rows that a method takes."""
    from accord.methods.prompts import KINDS

    return KINDS if method in ONLINE else tuple(_trainer(method).kinds)


def _rewards(options: TrainOptions, method: str, opened: Opened, *, aggregation: str | None = None) -> list[Any]:
    from accord.rewards.sources import load_rewards

    found = load_rewards(options.reward_model, options.reward, opened.policy, opened.renderer, aggregation=aggregation)
    if not found:
        raise ConfigError(
            f"accord {method} needs a reward: --reward_model runs/... (accord reward makes one) or --reward file.py:function."
        )
    return found


def _heldout(options: TrainOptions, opened: Opened) -> Any:
    from accord.rewards.learned import RewardModel

    return RewardModel.load(opened.policy, Path(options.heldout_reward), opened.renderer) if options.heldout_reward else None


def next_steps(method: str, folder: Path, *, adapters: bool) -> str:
    """What people do after this method, and the lines that load the result. adapters: True for a peft folder, False for a whole model."""
    after = {
        "sft": f"Next: accord dpo --model {folder} --data pairs.jsonl, or accord reward --model {folder} --data pairs.jsonl",
        "reward": f"Next: accord evaluate {folder} --data heldout.jsonl, then accord ppo --reward_model {folder} --data prompts.jsonl",
        "prm": f"Next: accord evaluate {folder} --data heldout-steps.jsonl",
    }.get(method, f"Next: accord chat {folder}")
    return after if method in JUDGES else f"{after}\nLoad it:\n{load_lines(folder.as_posix(), adapters=adapters)}"
