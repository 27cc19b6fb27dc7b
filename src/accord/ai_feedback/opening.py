"""From what a user names as a judge to the judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from accord.ai_feedback.asking import LanguageModel
from accord.ai_feedback.judge_prompts import JudgePrompt, load_prompt
from accord.ai_feedback.judges import Judge, judge_of
from accord.ai_feedback.local import LocalModel
from accord.ai_feedback.scoring import reward_model_judge, rule_judge
from accord.ai_feedback.server import ServedModel, ServerSettings
from accord.ai_feedback.store import AnswerStore
from accord.config.judge import AskingOptions, JudgingOptions
from accord.errors import ConfigError
from accord.models.opened import open_model
from accord.models.save import REWARD

RULE = "rule:"


def open_judge(options: JudgingOptions, store: AnswerStore, *, usual_prompt: str | JudgePrompt = "pairwise") -> Judge:
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
    if isinstance(usual_prompt, JudgePrompt) and options.prompt is None and options.principles is None:
        prompt = usual_prompt
    else:
        usual = "principle" if options.principles or not isinstance(usual_prompt, str) else usual_prompt
        prompt = load_prompt(options.prompt or usual, options.principles)
    return judge_of(open_language_model(options), prompt, store, seed=options.seed)


def open_language_model(options: JudgingOptions) -> LanguageModel:
    """The model behind a judge. Raises as `open_judge` does."""
    return language_model(options.judge, options)


def language_model(named: str, options: AskingOptions) -> LanguageModel:
    """A model to ask, by name, folder, hub id or a server's address: what judges, critics and debaters are. Raises as `open_judge` does."""
    if "://" in named:
        url, _, model = named.partition("#")
        return ServedModel(url, model or None, server_settings(options))
    opened = open_model(named, accept_licence=options.accept_licence, force=options.force)
    return LocalModel(opened, Path(named).name, token_budget=options.token_budget)


def server_settings(options: AskingOptions) -> ServerSettings:
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
