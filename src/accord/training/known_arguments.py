"""Arguments that users bring from TRL's trainers: empty ones are taken, the others refused with what to use instead."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from accord.config.known_names import ALIASES, HARMLESS, REPLACED, notice
from accord.errors import ConfigError

F = TypeVar("F", bound=Callable[..., None])

NEEDLESS = "nothing: "
"""How an explanation begins that has no replacement."""
INSTEAD = {
    "data_collator": "nothing: rows are packed without padding, and completion tokens alone are learned. What it does to rows, do to them before",
    "compute_loss_func": "a subclass whose loss(units, totals) returns the loss (of DPO, pair_losses(pair, units))",
    "compute_metrics": "callbacks: on_evaluate gets the metrics of docs/metrics.md. For other ones, a subclass whose evaluate() adds them",
    "preprocess_logits_for_metrics": "nothing: logits are made in chunks and never kept. The metrics of docs/metrics.md come from log-probs",
    "optimizers": "optim, learning_rate, lr_scheduler_type, weight_decay and adam_* of the config: the optimizer is AdamW, its moments in float32 or eight bits",
    "optimizer_cls_and_kwargs": "optim, learning_rate, lr_scheduler_type, weight_decay and adam_* of the config: the optimizer is AdamW, its moments in float32 or eight bits",
    "formatting_func": 'rows that are formatted before: [{"text": formatting_func(row)} for row in rows]. Columns of other names: columns={"text": "body"}',
    "dataset_text_field": 'columns={"text": "its name"}',
    "model_init": "model=model_init()",
    "model_init_kwargs": "a model that you loaded with them",
    "ref_model_init_kwargs": "ref_model=, a model that you loaded with them",
    "ref_model": "nothing: where a reference is needed, it is the model before its first step",
    "value_model": "nothing: the critic is a head on the same base, and with PPOConfig(value='adapter') an adapter of its own",
    "reward_model": "reward=",
    "reward_funcs": "reward=",
    "judge": "reward=, a function that asks it",
    "reward_processing_classes": "nothing: a reward model brings its tokenizer",
    "rollout_func": "sampler=",
    "tools": "a column tools in the rows",
}


def explains_arguments(init: F) -> F:
    """Decorator of a trainer's constructor: a name that it does not have is refused with an explanation, not with a bare TypeError."""
    own = set(inspect.signature(init).parameters)

    @functools.wraps(init)
    def explained(self: Any, *args: Any, **values: Any) -> None:
        for name in [name for name in values if name not in own]:
            value = values.pop(name)
            if value is None or (isinstance(value, tuple) and all(part is None for part in value)):
                continue
            if name in HARMLESS:
                notice(f"{type(self).__name__}: {name}={value!r} is not needed: {HARMLESS[name]}.")
                continue
            raise ConfigError(_explanation(type(self), name))
        init(self, *args, **values)

    return explained  # type: ignore[return-value]


def _explanation(trainer: Any, name: str) -> str:
    """One line: what to use instead, or the nearest argument."""
    no_such = f"{trainer.__name__} has no {name}"
    known = _arguments(trainer)
    instead = INSTEAD.get(name, REPLACED.get(name, ""))
    argument, is_one, _ = instead.partition("=")
    if instead and not (is_one and argument.isidentifier() and argument not in known):
        needless = instead.startswith(NEEDLESS)
        return f"{no_such} and needs none: {instead.removeprefix(NEEDLESS)}." if needless else f"{no_such}. Use instead: {instead}."
    config = trainer.config_class
    fields = {field.name for field in dataclasses.fields(config)}
    field = name if name in fields else ALIASES.get(name)
    if field in fields:
        return f"{no_such}: it goes into the config, args={config.__name__}({field}=...)."
    near = difflib.get_close_matches(name, known, 1)
    return f"{no_such}. " + (f"Did you mean {near[0]}?" if near else f"It takes {', '.join(known)}.")


def _arguments(trainer: type) -> list[str]:
    """What the constructor takes by name, and where it passes others on, those of its base."""
    found: list[str] = []
    for owner in trainer.__mro__:
        init = vars(owner).get("__init__")
        if init is not None:
            named = [parameter for parameter in inspect.signature(init).parameters.values() if parameter.name not in ("self", *found)]
            found += [parameter.name for parameter in named if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)]
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in named):
                break
    return found
