"""Several rewards as one: each source scores, the weighted sum is the reward, every part is kept and logged by name."""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from accord.errors import ConfigError
from accord.rewards.learned import RewardModel
from accord.types import Rollout, Score


class RewardSource(Protocol):
    """Anything that scores rollouts. A failure is a `Score` with an `error`, never a 0."""

    name: str
    weight: float

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]: ...


@dataclass
class LearnedReward:
    """A reward model: the mean of its heads; their standard deviation is the part `disagreement`."""

    model: RewardModel
    weight: float = 1.0
    name: str = "reward_model"

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        return self.scores_of(self.model.score_rollouts(rollouts))

    @staticmethod
    def scores_of(scores: Tensor) -> list[Score]:
        """(R, K) scores of the heads as one score a rollout."""
        spread = scores.std(1) if scores.shape[1] > 1 else scores[:, 0] * 0
        return [Score(value, {"disagreement": doubt}) for value, doubt in zip(scores.mean(1).tolist(), spread.tolist(), strict=True)]


@dataclass
class FunctionReward:
    """Any function with TRL's contract: `f(prompts, completions, **columns) -> list[float | None | Score]`.

    For chat prompts `prompts` are message lists and `completions` are lists with one assistant message. None means not scored.
    """

    function: Callable[..., Any]
    weight: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        self.name = self.name or getattr(self.function, "__name__", "reward")

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        prompts = [[{"role": m.role, "content": m.content} for m in rollout.prompt] for rollout in rollouts]
        completions = [[{"role": "assistant", "content": rollout.text}] for rollout in rollouts]
        columns = {
            key: [rollout.columns.get(key) for rollout in rollouts]
            for key in sorted({key for rollout in rollouts for key in rollout.columns})
        }
        offered: dict[str, Any] = {"completion_ids": [list(rollout.completion_ids) for rollout in rollouts], **columns}
        parameters = inspect.signature(self.function).parameters
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            offered = {key: value for key, value in offered.items() if key in parameters}
        if "prompts" in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            offered["prompts"] = prompts
        try:
            values = list(self.function(completions=completions, **offered))
        except Exception as error:
            raise ConfigError(
                f"Reward function {self.name} raised {type(error).__name__}: {_first_line(error)}. Mend it and resume; None means that an answer is not scored."
            ) from error
        if len(values) != len(rollouts):
            raise ConfigError(
                f"Reward function {self.name} returned {len(values)} values for {len(rollouts)} completions. Return one value (or None) each."
            )
        return [self._as_score(value) for value in values]

    def _as_score(self, value: Any) -> Score:
        if isinstance(value, Score):
            return value
        if value is None:
            return Score(None, error=f"{self.name} returned None (not scored)")
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"Reward function {self.name} returned {value!r}, which is no number. Return a number, or None for not scored."
            ) from error
        if not math.isfinite(number):
            return Score(None, error=f"{self.name} returned {number}")
        return Score(number)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else "no message"


def combined(sources: Sequence[RewardSource], rollouts: Sequence[Rollout], known: Mapping[int, list[Score]] | None = None) -> list[Score]:
    """Weighted sum of all sources for each rollout, parts kept by name. One source's failure makes the whole score a failure, with its reason.

    Args:
        known: scores that somebody has already, by the source's position.
    """
    if not sources:
        raise ConfigError("No reward: give a reward model (--reward_model runs/...) or a function (--reward file.py:function).")
    table = [known[index] if known and index in known else source.score(rollouts) for index, source in enumerate(sources)]
    found: list[Score] = []
    for row in zip(*table, strict=True):
        parts: dict[str, float] = {}
        total, error = 0.0, None
        for source, score in zip(sources, row, strict=True):
            parts |= {f"{source.name}/{name}" if name != "disagreement" else name: value for name, value in score.parts.items()}
            if score.value is None:
                error = error or score.error or f"{source.name} gave no score"
                continue
            parts[source.name] = score.value
            total += source.weight * score.value
        found.append(Score(None if error else total, parts, error=error))
    return found


def weighted(spec: str) -> tuple[str, float]:
    """`name*0.5` as name and weight; without a weight it is 1.

    Raises:
        ConfigError: if the weight is no finite number.
    """
    name, star, weight = spec.rpartition("*")
    if not star:
        return spec, 1.0
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"Reward {spec!r}: {weight!r} is not a weight. Write {name}*0.5.")
    return name, number


def load_function(spec: str) -> FunctionReward:
    """`file.py:function` or `file.py:function*0.5` as a reward source.

    Raises:
        ConfigError: if the file or the function is not there.
    """
    spec, number = weighted(spec)
    path, _, name = spec.rpartition(":")
    if not path or not name:
        raise ConfigError(f"Reward {spec!r} is not of the form file.py:function.")
    if not Path(path).is_file():
        raise ConfigError(f"Reward file {path} does not exist.")
    module_spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    if not callable(getattr(module, name, None)):
        raise ConfigError(f"{path} has no function {name!r}.")
    return FunctionReward(getattr(module, name), number, name)


def as_source(item: Any, tokenizer: Any = None) -> RewardSource:
    """A reward model, a sequence classifier, a function or a source as a source. tokenizer: a classifier's; None loads its own."""
    if isinstance(item, RewardModel):
        return LearnedReward(item)
    if hasattr(item, "score") and hasattr(item, "weight"):
        return item
    if isinstance(item, (str, nn.Module)):
        from accord.rewards.classifier import ClassifierReward

        return ClassifierReward.load(item, tokenizer) if isinstance(item, str) else ClassifierReward(item, tokenizer)
    return FunctionReward(item)


def as_sources(items: Any, tokenizers: Any = None) -> list[RewardSource]:
    """One or several of them; tokenizers in the same order, or one for all, or None."""
    found = list(items) if isinstance(items, (list, tuple)) else [items]
    theirs = list(tokenizers) if isinstance(tokenizers, (list, tuple)) else [tokenizers] * len(found)
    if len(theirs) != len(found):
        raise ConfigError(
            f"There are {len(theirs)} reward_processing_classes for {len(found)} rewards. Give one each; None for a function."
        )
    return [as_source(item, tokenizer) for item, tokenizer in zip(found, theirs, strict=True)]
