"""From what a user names as a judge to the judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from accord.ai_feedback.asking import LanguageModel
from accord.ai_feedback.judge_prompts import load_prompt
from accord.ai_feedback.judges import Judge, judge_of
from accord.ai_feedback.local import LocalModel
from accord.ai_feedback.scoring import reward_model_judge, rule_judge
from accord.ai_feedback.server import ServedModel, ServerSettings
from accord.ai_feedback.store import AnswerStore
from accord.config.judge import JudgingOptions
from accord.errors import ConfigError
from accord.models.opened import open_model
from accord.models.save import REWARD

RULE = "rule:"


def open_judge(options: JudgingOptions, store: AnswerStore, *, usual_prompt: str = "pairwise") -> Judge:
    """The judge that the options name: rule:NAME, file.py:function, the folder of a reward model, the address of a server (with #MODEL
    behind it), or a model by name, folder or hub id.

    Args:
        store: where answers of language models are kept.
        usual_prompt: what language models are asked where no option says it.
    Raises:
        ConfigError: if there is none, or an option does not belong to it.
        MachineError: if it cannot be loaded or reached.
    """
    named = options.judge
    is_rule = named.startswith(RULE) or (".py:" in named and "://" not in named)
    if is_rule or (Path(named) / REWARD).is_file():
        if options.prompt is not None or options.principles is not None:
            raise ConfigError(f"{named} is asked no question: --prompt and --principles belong to language models.")
        return rule_judge(named.removeprefix(RULE)) if is_rule else reward_model_judge(named, force=options.force)
    prompt = load_prompt(options.prompt or ("principle" if options.principles else usual_prompt), options.principles)
    return judge_of(open_language_model(options), prompt, store, seed=options.seed)


def open_language_model(options: JudgingOptions) -> LanguageModel:
    """The model behind a judge, which critics and debaters ask too. Raises as `open_judge` does."""
    if "://" in options.judge:
        url, _, model = options.judge.partition("#")
        return ServedModel(url, model or None, server_settings(options))
    opened = open_model(options.judge, accept_licence=options.accept_licence, force=options.force)
    return LocalModel(opened, Path(options.judge).name, token_budget=options.token_budget)


def server_settings(options: JudgingOptions) -> ServerSettings:
    """The options that say how a server is used."""
    return ServerSettings(**{item.name: getattr(options, item.name) for item in dataclasses.fields(ServerSettings)})


def options_from(named: str) -> JudgingOptions:
    """A judge in one word, as rewards are named: anything `--judge` takes, or a YAML file with options of `accord judge`.

    Raises:
        ConfigError: if the file holds something else.
    """
    if not named.endswith((".yaml", ".yml")):
        return JudgingOptions(judge=named)
    import yaml

    try:
        loaded = yaml.safe_load(Path(named).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{named} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{named} is not YAML: {str(error).splitlines()[0]}.") from error
    known = {item.name for item in dataclasses.fields(JudgingOptions)}
    fields = cast("Mapping[str, Any]", loaded) if isinstance(loaded, dict) else {}
    if not fields or set(fields) - known:
        strange = ", ".join(sorted(set(map(str, fields)) - known)) or "no options"
        raise ConfigError(f"{named} holds {strange}; a judge's file holds options of accord judge: {', '.join(sorted(known))}.")
    return JudgingOptions(**fields)
