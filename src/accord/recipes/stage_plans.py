"""Plans of the stages that advice names, those of several runs taken apart: `accord align` and `accord constitution`."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

from accord.config.dpo import DPOConfig
from accord.config.options import AlignOptions, TrainOptions
from accord.config.plan import AdviseOptions
from accord.planning.advise import SOME, Stage
from accord.planning.here import planned
from accord.planning.plan import Plan
from accord.planning.recipe_files import TRAINING, filled, split_options
from accord.planning.work import Data, data_counted, data_like
from accord.recipes.align import settings_of
from accord.recipes.pipeline_plan import Run, stage_run

TYPICAL = (100, 150)
"""Tokens of a prompt and of an answer, where a situation says nothing of them."""
RANKED = 4
"""Answers of a ranking, likewise."""
PRACTISED = 0.8
"""Share of the prompts that `accord align` trains on."""


@dataclass(frozen=True)
class Planned:
    """The plan of a run that is done so often."""

    plan: Plan
    times: int = 1

    @property
    def hours(self) -> float:
        """All of them together; 0 where no time is planned."""
        return self.times * self.plan.seconds.total / 3600 if self.plan.seconds is not None else 0.0

    def without(self, told: Collection[str]) -> Planned:
        """The same without notes that have been told."""
        return replace(self, plan=replace(self.plan, notes=tuple(note for note in self.plan.notes if note not in told)))

    def __str__(self) -> str:
        return str(self.plan) if self.times == 1 else f"{self.times} times: {self.plan}"


def stage_plans(stages: Sequence[Stage], asked: AdviseOptions, *, quick: bool = False) -> list[list[Planned]]:
    """The plans of each stage; none for what trains nothing.

    Args:
        quick: as `here.planned`.
    """
    return [[_planned(run, stage, asked, quick) for run in runs_of(stage)] for stage in stages]


def _planned(run: Run, stage: Stage, asked: AdviseOptions, quick: bool) -> Planned:
    ranked = asked.feedback == "rankings" and not stage.options.get("rounds")  # rounds ask about pairs
    plan = planned(
        run.options,
        run.config,
        _data(run, ranked),
        hardware=asked.hardware,
        memory_gb=asked.memory_gb,
        sampled=run.sampled,
        notes=(
            *run.notes,
            "for prompts of {} and answers of {} tokens".format(*TYPICAL) + (f", {RANKED} of them in a ranking" if ranked else ""),
        ),
        quick=quick,
        base=stage.base,
    )
    return Planned(plan, run.times)


def _data(run: Run, ranked: bool) -> Data:
    """Rows of the usual lengths. A reward model reads a ranking as one row; DPO takes it apart into its pairs."""
    method, prompt, answer = run.config.method, *TYPICAL
    if ranked and method == "reward":
        one = data_counted([(prompt, [answer] * RANKED)])
        return replace(one, rows=run.rows, epoch=one.epoch * run.rows)
    return data_like(method, run.rows * math.comb(RANKED, 2) if ranked and method == "dpo" else run.rows, prompt, answer)


def runs_of(stage: Stage) -> list[Run]:
    """What a stage trains, in order."""
    if stage.command in TRAINING:
        options, config = split_options(stage)
        return [Run(options, config, stage.rows, sampled=(stage.options.get("best_of", 0), stage.options.get("sample_tokens", 0)))]
    if stage.command == "align":
        return _aligned(stage)
    if stage.command == "constitution":
        note = f"for {stage.rows} revised answers and as many compared ones; critiques and judgements apart"
        return [run for run in _aligned(stage, method="dpo", notes=(note,)) if run.config.method != "reward"]
    if stage.command == "annotate":
        note = f"what training on {SOME} comparisons will take, once they are there"
        return [Run(TrainOptions(model=stage.options["model"]), DPOConfig(num_train_epochs=2), SOME, notes=(note,))]
    return []


def _aligned(stage: Stage, method: str = "", notes: tuple[str, ...] = ()) -> list[Run]:
    """SFT on the answers that were preferred, the reward models' features once, and the policy; in rounds the last two, of all labels so far."""
    asked: AlignOptions = filled(AlignOptions, stage.options)
    method, rounds = method or asked.method, stage.options.get("rounds", 0)
    run_of = partial(stage_run, settings=settings_of(asked), model=asked.model, rounds=max(1, rounds), notes=notes)
    rows = math.ceil(stage.rows * (rounds + 1) / 2) if rounds else stage.rows
    names = [name for name in ("sft", "reward", method) if name != "sft" or not rounds]
    return [replace(run_of(name), rows=rows if name == "reward" else math.ceil(PRACTISED * rows)) for name in names]
