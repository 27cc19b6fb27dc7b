"""What a pipeline will take, said before its weights are read: memory of its largest stage, and the time of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from accord.config.base import TrainingConfig
from accord.config.dpo import DPOConfig
from accord.config.grpo import GRPOConfig
from accord.config.options import TrainOptions
from accord.config.ppo import PPOConfig
from accord.config.reward import RewardConfig
from accord.config.sft import SFTConfig
from accord.models.opened import Opened, open_model
from accord.models.size import SMALLEST_BUDGET, ModelSize, model_size
from accord.planning.here import HERE, QUICK, place_named, rows_sampled, speeds_of
from accord.planning.holding import how_held
from accord.planning.memory import MemoryNeed
from accord.planning.pipeline import BUDGETS, pipeline_need, smaller_ways
from accord.planning.plan import Place, Plan, plan_run
from accord.planning.time import duration, roughly
from accord.planning.work import Data
from accord.recipes.pipeline import Settings
from accord.training.setup import say


@dataclass(frozen=True)
class Run:
    """One run of a stage, and how often it is done."""

    options: TrainOptions
    config: Any
    rows: int = 0
    """Of data, where that is not here yet."""
    times: int = 1
    sampled: tuple[int, int] = (0, 0)
    """As `work.work_of`."""
    notes: tuple[str, ...] = ()


def stage_run(name: str, settings: Settings, model: str, *, rounds: int = 1, notes: tuple[str, ...] = ()) -> Run:
    """The run of a pipeline's stage: SFT once, the others in each round. Reward models sample no scale there.

    Args:
        name: sft, reward, ppo, grpo or dpo.
    Raises:
        ConfigError: if the stage cannot be as the settings say.
    """
    learned = TrainOptions(model=model, lora_r=settings.lora_r, lora_layers=settings.lora_layers)
    online = replace(learned, reward_model=["reward"])
    grpo = {"max_completion_length": settings.max_new_tokens, **settings.grpo}
    if name == "sft":
        return Run(learned, SFTConfig(**settings.sft), notes=notes)
    if name == "reward":
        return Run(learned, RewardConfig(**{**settings.reward, "normalise": False}), times=rounds, notes=notes)
    if name == "dpo":
        return Run(learned, DPOConfig(**settings.dpo), times=rounds, notes=notes)
    config = GRPOConfig(**grpo) if name == "grpo" else PPOConfig(max_new_tokens=settings.max_new_tokens, **settings.ppo)
    return Run(online, config, times=rounds, notes=notes)


@dataclass
class PipelinePlan:
    """Called with the config of a model before its weights are read: says what the pipeline will take, and refuses what cannot fit."""

    command: str
    """Of accord, for the message: align."""
    model: str
    settings: Settings
    weights: str = "auto"
    """How the base is held, as `--weights`; once it has been called, what `auto` came to."""
    ignore_memory: bool = False
    """True goes on where it does not fit. False raises."""
    data: Callable[[Callable[[str], Run]], Mapping[str, Data]] | None = None
    """From the run of a stage, by its name, to what those that are done learn from, by theirs. None: no time is planned."""
    rounds: int = 1
    sampled: int = 64
    """Answers sampled side by side at least: those that reward models are scaled on."""
    apart: str = ""
    """What the time leaves out."""
    need: MemoryNeed | None = None
    """Once it has been called."""

    def __call__(self, model_config: Any) -> None:
        """Raises MachineError (exit code 4) if it does not fit, and ConfigError if there is no such way to hold the base here."""
        size, half = model_size(model_config), getattr(model_config, "dtype", None) == torch.bfloat16

        def at(weights: str) -> Place:
            return place_named(HERE, None, TrainingConfig(weights=weights), half=half)

        def needed(place: Place) -> int:
            return self._need(size, place).total

        held = how_held(self.weights, self.model, model_config, at, needed)
        self.weights, have, ways = held.weights, held.place.have, ()
        budget = next((tokens for tokens in BUDGETS if self._need(size, held.place, tokens).total <= have), SMALLEST_BUDGET)
        self.need = self._need(size, held.place, budget)
        if self.need.total > have:
            ways = smaller_ways({name: needed(at(name)) for name in ("bf16", "int8", "nf4")}, have, half=half)
        plan = Plan(f"{self.command} on {self.model}", self.need, have, budget, ways)
        if held.note:
            say(f"{held.note}.")
        plan.check(force=self.ignore_memory)
        say("\n".join([plan.lines, *self._time(size, held.place)]))

    def opened(self, *, accept_licence: bool = False) -> Opened:
        """The model, held as was decided; what the pipeline takes is said, or refused, before its weights are read."""
        return open_model(
            self.model,
            accept_licence=accept_licence,
            before_loading=self,
            weights_too=True,
            force=self.ignore_memory,
            weights=lambda: self.weights,
        )

    def _need(self, size: ModelSize, place: Place, budget: int = SMALLEST_BUDGET) -> MemoryNeed:
        settings, ppo = self.settings, PPOConfig(**self.settings.ppo)
        adapters = 3 if ppo.value == "adapter" else 2
        rows = max(self.sampled, ppo.prompts_a_round * ppo.num_generations)
        return pipeline_need(
            size, place, rank=settings.lora_r, rows=rows, answer_tokens=settings.max_new_tokens, adapters=adapters, budget=budget
        )

    def _time(self, size: ModelSize, place: Place) -> list[str]:
        """How long the stages take on this machine, whose speed is measured; nothing on a GPU, which is not."""
        run_of = partial(stage_run, settings=self.settings, model=self.model, rounds=self.rounds)
        seconds: dict[str, float] = {}
        for name, data in self.data(run_of).items() if self.data is not None else ():
            run = run_of(name)
            speeds = speeds_of(HERE, size, run.options.lora_r, rows_sampled(run.config), QUICK * 5)
            plan = plan_run(size, run.config, run.options, place, data=data, speeds=speeds, below=int(name != "sft"))
            if plan.seconds is not None:
                seconds[name] = run.times * plan.seconds.total
        if not seconds:
            return []
        parts = ", ".join(f"{name} {duration(value)}" for name, value in seconds.items())
        return [f"  training: {roughly(sum(seconds.values()))}: {parts}" + (f"; {self.apart} apart" if self.apart else "")]
