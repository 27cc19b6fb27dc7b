"""`accord plan METHOD`: what a run takes and whether it fits. `accord plan`: which method, why, and a recipe."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from accord.arguments import Command, parse
from accord.config.options import BestOfOptions, TrainOptions
from accord.config.plan import FEEDBACK, GOALS, AdviseOptions, PlanOptions
from accord.errors import ConfigError
from accord.planning.advise import METHODS, SLOWER, Advice, Stage, advise
from accord.planning.machine import HARDWARE
from accord.planning.recipe_files import TRAINING, command_line, put_in, write_recipes

if TYPE_CHECKING:
    from accord.recipes.stage_plans import Planned

HERE, HERE_TITLE = "this", "this machine, whose memory is asked and whose speed is measured"
COUNTLESS = ("principles", "judge", "nothing", "prompts", "checkable")
"""Feedback that is planned without a number of rows, too."""

ADVISE = Command(
    "plan",
    "which method, why, how many labels, and a recipe; or accord plan METHOD: memory, time, whether it fits",
    ("accord.config.plan:AdviseOptions",),
    "",
    tuple("feedback labels goal model base hardware memory_gb hours online people recipe data".split()),
    positional="feedback",
)
_SHOWN = tuple(
    "model data rows prompt_tokens answer_tokens hardware memory_gb lora_r max_length gradient_checkpointing tokens_per_microbatch".split()
)


def method_command(method: str) -> Command:
    """`accord plan METHOD`, with all the options of the method."""
    config = f"accord.config.{method}:{method.upper() if method != 'reward' else 'Reward'}Config"
    more = ("accord.config.options:BestOfOptions",) if method == "sft" else ()
    return Command(
        f"plan {method}",
        f"memory and time of accord {method}",
        ("accord.config.options:TrainOptions", config, "accord.config.plan:PlanOptions", *more),
        "",
        _SHOWN,
        positional="data",
    )


def run(given: Sequence[str]) -> int:
    """Either of the two; returns the exit code: 4 where a planned run does not fit."""
    if given and given[0] in TRAINING:
        parsed = parse(method_command(given[0]), given[1:])
        return 0 if parsed is None else plan_method(*parsed)
    if given and not given[0].startswith("-") and given[0] not in FEEDBACK:
        raise ConfigError(
            f"accord plan {given[0]!r}: name a method ({', '.join(TRAINING)}), what you have ({', '.join(FEEDBACK)}), or nothing, to be asked."
        )
    parsed = parse(ADVISE, given)
    if parsed is None:
        return 0
    (options,) = parsed
    return plan_situation(asked_for(options))


# -- one method ---------------------------------------------------------------------------------------------------------------------


def plan_method(options: TrainOptions, config: Any, plan: PlanOptions, best_of: BestOfOptions | None = None) -> int:
    """Print the plan of one run. best_of: for sft, how answers are sampled to be imitated, if they are."""
    from accord.planning.here import planned, rows_of_data
    from accord.recipes.train import check_options, kinds_of

    chosen = best_of is not None and best_of.best_of and (options.reward or options.reward_model)  # a plan needs no reward yet
    check_options(options, config, best_of if chosen else None)
    data, notes = rows_of_data(options, config, plan, kinds_of(config.method))
    sampled = (best_of.best_of, best_of.sample_tokens) if best_of is not None else (0, 0)
    found = planned(options, config, data, sampled=sampled, hardware=plan.hardware, memory_gb=plan.memory_gb, notes=notes)
    print(found)
    return 0 if found.fits else 4


# -- a situation --------------------------------------------------------------------------------------------------------------------


def asked_for(options: AdviseOptions, ask: Callable[[str], str] | None = None) -> AdviseOptions:
    """The options, with what is missing asked on the terminal.

    Raises:
        ConfigError: if something is missing and there is no terminal.
    """
    if options.feedback is not None and (options.labels is not None or options.feedback in COUNTLESS):
        return options
    if ask is None:
        if not (sys.stdin and sys.stdin.isatty()):
            raise ConfigError(
                f"accord plan needs --feedback ({', '.join(FEEDBACK)}) and --labels N, or a terminal to ask on. Or plan a run: accord plan dpo."
            )
        ask = _typed
    feedback = options.feedback or _pick(ask, "What do you have?", FEEDBACK)
    labels = options.labels
    if labels is None and feedback not in COUNTLESS:
        labels = int(_number(ask, "How many of them (rows)?", whole=True))
    if options != AdviseOptions(feedback=options.feedback, labels=options.labels):
        return replace(options, feedback=feedback, labels=labels)
    goal = _pick(ask, "What should change?", GOALS)
    hardware = _pick(ask, "Where will it run?", {HERE: HERE_TITLE, **{name: known.title for name, known in HARDWARE.items()}})
    return replace(
        options,
        feedback=feedback,
        labels=labels,
        goal=goal,
        hardware=hardware,
        base=_yes(ask, "Is the model a base model, which only continues text?"),
        online=_yes(ask, "May it sample while it trains, and be judged again?"),
        people=int(_number(ask, "How many people can judge answers?", whole=True)),
        hours=_number(ask, "How many hours may training take?", least=0.01),
    )


def _typed(question: str) -> str:
    try:
        return input(question)
    except EOFError as error:
        print()
        raise ConfigError("accord plan: the questions end here. Ask it with flags: accord plan pairs --labels 300 --hours 2.") from error


def _pick(ask: Callable[[str], str], question: str, choices: dict[str, str]) -> str:
    print(question)
    names = list(choices)
    for number, name in enumerate(names, 1):
        print(f"  {number:>2} {name:<15} {choices[name]}")
    while True:
        said = ask("> ").strip().lower()
        if said in choices:
            return said
        if said.isdecimal() and 1 <= int(said) <= len(names):
            return names[int(said) - 1]
        print(f"1 to {len(names)}, or a name.")


def _number(ask: Callable[[str], str], question: str, *, whole: bool = False, least: float = 0) -> float:
    while True:
        said = ask(f"{question} ").strip().replace(",", "")
        try:
            number = float(said)
        except ValueError:
            number = math.nan
        if least <= number < 1e9 and (not whole or number.is_integer()):
            return number
        print(f"A {'whole ' * whole}number, {least:g} or more.")


def _yes(ask: Callable[[str], str], question: str) -> bool:
    while True:
        said = ask(f"{question} [y/n] ").strip().lower()
        if said in ("y", "yes", "n", "no"):
            return said.startswith("y")
        print("y or n.")


def plan_situation(asked: AdviseOptions) -> int:
    """Print method, reasons, labels, commands and plans, and write the recipes."""
    from accord.planning.time import roughly

    advice, plans = decide(asked)
    written = asked.recipe.lower() != "none"
    files = write_recipes(advice, asked.recipe, overwrite=asked.overwrite) if written else []
    print(f"Method: {advice.title}\nWhy:")
    for reason in advice.reasons:
        print(f"  - {reason}")
    print(f"Labels: {advice.labels}")
    for caution in advice.cautions:
        print(f"Mind: {caution}")
    if not advice.stages:
        return 0
    print("Then:")
    told: set[str] = set()
    for index, (stage, found) in enumerate(zip(advice.stages, plans, strict=True)):
        print(f"  {command_line(stage, files[index]) if written else 'accord ' + stage.command}")
        if written and stage.placeholders():
            print(f"    {put_in(stage)}")
        for one in found:
            print("    " + str(one.without(told)).replace("\n", "\n    "))
            told.update(one.plan.notes)
    hours = hours_of(plans)
    if hours > asked.hours:
        print(
            f"Mind: that is {roughly(3600 * hours)}, and you have {asked.hours:g} hour{'s' * (asked.hours != 1)}. A smaller --model or fewer rows take less."
        )
    return 0 if _fit(plans) else 4


def decide(asked: AdviseOptions) -> tuple[Advice, list[list[Planned]]]:
    """The advice, with the model chosen and the hours kept where either is possible, and the plans of each stage (none where nothing is trained)."""
    from accord.recipes.stage_plans import stage_plans

    asked = asked if asked.model else replace(asked, model=_largest(asked))
    advice = advise(asked)
    plans = stage_plans(advice.stages, asked)
    if advice.method in SLOWER and hours_of(plans) > asked.hours:
        advice = advise(asked, instead_of=advice.method)
        plans = stage_plans(advice.stages, asked)
    return advice, plans


def _largest(asked: AdviseOptions) -> str:
    """The largest known model whose stages fit memory and hours; the smallest where none does."""
    from accord.planning.shapes import CANDIDATES, SHAPES
    from accord.recipes.stage_plans import stage_plans

    names = [SHAPES[name].base if asked.base else SHAPES[name].hub for name in CANDIDATES]
    for name in reversed(names):
        print(f"Does {name} fit? ...", file=sys.stderr)
        trial = replace(asked, model=name)
        stages: list[Stage] = advise(trial).stages
        plans = stage_plans(stages, trial, quick=True)
        if _fit(plans) and hours_of(plans) <= asked.hours:
            return name
    return names[0]


def _fit(plans: Sequence[Sequence[Planned]]) -> bool:
    return all(one.plan.fits for found in plans for one in found)


def hours_of(plans: Sequence[Sequence[Planned]]) -> float:
    """Hours of all runs of all stages."""
    return sum(one.hours for found in plans for one in found)


__all__ = ["METHODS", "asked_for", "decide", "hours_of", "plan_method", "plan_situation", "run"]
