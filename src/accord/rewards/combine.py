"""Several rewards as one: each source scores, the weighted sum is the reward, every part is kept and logged by name."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from accord.data.packing import Branch, Unit
from accord.errors import AccordError, ConfigError
from accord.objectives.mitigation import uncertainty_weighted, worst_case
from accord.rewards.calls import TookTooLong, call, call_together
from accord.rewards.learned import RewardModel
from accord.rewards.notes import current
from accord.types import Rollout, Score


class RewardSource(Protocol):
    """Anything that scores rollouts. A failure is a `Score` with an `error`, never a 0."""

    name: str
    weight: float

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]: ...


@dataclass
class LearnedReward:
    """A reward model: the mean of its heads, or something more careful; their standard deviation is the part `disagreement`.

    Several reward models may be the members of one: the means of their heads then are what heads are otherwise. Heads share a backbone and
    its errors; members with adapters of their own share less.
    """

    model: RewardModel
    weight: float = 1.0
    name: str = "reward_model"
    ensemble: str = "mean"
    """mean, worst, uncertainty or laplace (`config.mitigation`). Other than mean, the mean is the part `mean`."""
    uncertainty_weight: float = 1.0
    """Price of doubt in the last two."""
    watched: bool = False
    """True: it is only watched, beside the reward that is trained on, and says nothing of disagreement. False: it is a reward."""
    others: tuple[RewardModel, ...] = ()
    """More members beside `model`."""

    @property
    def models(self) -> tuple[RewardModel, ...]:
        """All members, or the one model."""
        return (self.model, *self.others)

    @property
    def num_members(self) -> int:
        """How many scores there are of an answer: of heads, or of members."""
        return len(self.models) if self.others else self.model.heads.num_heads

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        units = [Unit(rollout.prompt_ids, (Branch(rollout.completion_ids),)) for rollout in rollouts]
        return self.judged(*(torch.cat(model.features(units)) for model in self.models)) if rollouts else []

    def judged(self, *ends: Tensor) -> list[Score]:
        """Scores of answers from what the heads of each model read of them. (R, d)"""
        scores = [model.heads(read).detach() for model, read in zip(self.models, ends, strict=True)]
        heads = torch.stack([one.mean(1) for one in scores], 1) if self.others else scores[0]
        mean = heads.mean(1)
        values = self._combined(heads, ends[0])
        spread = heads.std(1) if heads.shape[1] > 1 else mean * 0
        found: list[Score] = []
        for value, doubt, middle in zip(values.tolist(), spread.tolist(), mean.tolist(), strict=True):
            parts = {} if self.watched else {"disagreement": doubt}
            found.append(Score(value, parts if self.ensemble == "mean" else {**parts, "mean": middle}))
        return found

    def _combined(self, heads: Tensor, ends: Tensor) -> Tensor:
        if self.ensemble == "worst":
            return worst_case(heads.T)
        if self.ensemble == "uncertainty":
            return uncertainty_weighted(heads.T, weight=self.uncertainty_weight)
        if self.ensemble == "laplace":
            assert self.model.laplace is not None
            return heads.mean(1) - self.uncertainty_weight * self.model.laplace.deviation(self.model.heads, ends).to(heads.device)
        return heads.mean(1)


@dataclass
class FunctionReward:
    """Any function with TRL's contract: `f(prompts, completions, **columns) -> list[float | None | Score]`, plain or `async def`.

    It gets of `completion_ids`, `trainer_state`, `log_extra` and `log_metric` (`rewards.notes`) what it takes. For chat prompts `prompts` are message lists and `completions` are lists with one assistant message. None means not scored:
    where every answer to a prompt gets None, the function has no say about that prompt (see `combined`).
    """

    function: Callable[..., Any]
    weight: float = 1.0
    name: str = ""
    timeout: float | None = None
    """Seconds one call may take for all rollouts together; a longer one is an error. None: no limit."""

    def __post_init__(self) -> None:
        self.name = self.name or getattr(self.function, "__name__", "reward")

    @property
    def not_scored(self) -> str:
        """The error of an answer for which the function returned None."""
        return f"{self.name} returned None (not scored)"

    @property
    def asynchronous(self) -> bool:
        """Whether the function is a coroutine function; several of them run at the same time (see `combined`)."""
        return inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(getattr(self.function, "__call__", None))  # noqa: B004

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        if not rollouts:
            return []
        if self.asynchronous:
            return score_together([self], rollouts)[0]
        arguments = self._arguments(rollouts)
        try:
            values = call(lambda: self.function(**arguments), self.timeout)
        except Exception as error:
            raise self._failure(error) from error
        return self._scores(values, len(rollouts))

    def _arguments(self, rollouts: Sequence[Rollout]) -> dict[str, Any]:
        columns = {
            key: [rollout.columns.get(key) for rollout in rollouts]
            for key in sorted({key for rollout in rollouts for key in rollout.columns})
        }
        offered: dict[str, Any] = {"completion_ids": [list(rollout.completion_ids) for rollout in rollouts], **columns}
        parameters = inspect.signature(self.function).parameters
        anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        if not anything:
            offered = {key: value for key, value in offered.items() if key in parameters}
        offered |= current(len(rollouts)).arguments(lambda name: anything or name in parameters)
        if anything or "prompts" in parameters:
            offered["prompts"] = [[{"role": m.role, "content": m.content} for m in rollout.prompt] for rollout in rollouts]
        return {**offered, "completions": [[{"role": "assistant", "content": rollout.text}] for rollout in rollouts]}

    def _failure(self, error: BaseException) -> AccordError:
        if isinstance(error, AccordError):
            return error
        if isinstance(error, TookTooLong):
            return ConfigError(
                f"Reward function {self.name} did not return within {self.timeout:g} s. Mend it or raise its timeout, and resume."
            )
        return ConfigError(
            f"Reward function {self.name} raised {type(error).__name__}: {_first_line(error)}. Mend it and resume; None means that an answer is not scored."
        )

    def _scores(self, values: Any, count: int) -> list[Score]:
        if values is None or isinstance(values, (str, Mapping)) or not isinstance(values, Iterable):
            raise ConfigError(
                f"Reward function {self.name} returned {values!r:.40} for {count} completions. Return a list with one value (or None) each."
            )
        found = list(values)
        if len(found) != count:
            raise ConfigError(
                f"Reward function {self.name} returned {len(found)} values for {count} completions. Return one value (or None) each."
            )
        return [self._as_score(value) for value in found]

    def _as_score(self, value: Any) -> Score:
        if isinstance(value, Score):
            return value
        if value is None:
            return Score(None, error=self.not_scored)
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"Reward function {self.name} returned {value!r}, which is no number. Return a number, or None for not scored."
            ) from error
        if not math.isfinite(number):
            return Score(None, error=f"{self.name} returned {number}")
        return Score(number)


def score_together(sources: Sequence[FunctionReward], rollouts: Sequence[Rollout]) -> list[list[Score]]:
    """The scores of coroutine functions, which wait at the same time; the first one that failed raises."""
    coroutines = [source.function(**source._arguments(rollouts)) for source in sources]
    found: list[list[Score]] = []
    for source, values in zip(sources, call_together(coroutines, [source.timeout for source in sources]), strict=True):
        if isinstance(values, BaseException):
            raise source._failure(values) from values
        found.append(source._scores(values, len(rollouts)))
    return found


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else "no message"


OUTCOME = "outcome"
"""The part that all rewards but the process reward model's make together."""


def combined(sources: Sequence[RewardSource], rollouts: Sequence[Rollout], known: Mapping[int, list[Score]] | None = None) -> list[Score]:
    """Weighted sum of all sources for each rollout, parts kept by name. One source's failure makes the whole score a failure, with its reason.

    A function that returns None for every answer to a prompt has no say about it, as in TRL, where some rewards are for some rows: the sum is
    of the others. None for some of them only is a failure of these: their sum would not compare with their siblings'. Functions that are
    coroutines wait together.

    Args:
        known: scores that somebody has already, by the source's position.
    """
    if not sources:
        raise ConfigError("No reward: give a reward model (--reward_model runs/...) or a function (--reward file.py:function).")
    ready = dict(known or {})
    waiting = {
        index: source
        for index, source in enumerate(sources)
        if index not in ready and isinstance(source, FunctionReward) and source.asynchronous
    }
    if len(waiting) > 1 and rollouts:
        ready |= dict(zip(waiting, score_together(list(waiting.values()), rollouts), strict=True))
    table = [ready[index] if index in ready else source.score(rollouts) for index, source in enumerate(sources)]
    silent = [_silent(source, scores, rollouts) for source, scores in zip(sources, table, strict=True)]
    found: list[Score] = []
    for rollout, row in zip(rollouts, zip(*table, strict=True), strict=True):
        speaks = [rollout.prompt_id not in prompts for prompts in silent]
        speaks = speaks if any(speaks) else [True] * len(speaks)
        parts: dict[str, float] = {}
        total, error, judged = 0.0, None, None
        said = [f"{source.name}: {score.explanation}" for source, score in zip(sources, row, strict=True) if score.explanation]
        for source, score in itertools.compress(zip(sources, row, strict=True), speaks):
            parts |= {f"{source.name}/{name}" if name != "disagreement" else name: value for name, value in score.parts.items()}
            if score.value is None:
                if not source.weight:  # only watched
                    continue
                error = error or score.error or f"{source.name} gave no score"
                continue
            parts[source.name] = score.value
            total += source.weight * score.value
            if score.steps is not None:
                if judged is not None:
                    raise ConfigError("Two process reward models judge the steps. Give one, or whole-answer rewards beside it.")
                judged = score
                parts[OUTCOME] = -source.weight * score.value
        steps, ends = (judged.steps, judged.step_ends) if judged else (None, None)
        if judged:
            parts[OUTCOME] += total
        found.append(Score(None if error else total, parts, "; ".join(said) or None, error, steps, ends))
    return found


def _silent(source: RewardSource, scores: Sequence[Score], rollouts: Sequence[Rollout]) -> set[str]:
    """The prompts about which a function has no say: it returned None for all of their answers."""
    if not isinstance(source, FunctionReward):
        return set()
    said = {rollout.prompt_id for rollout, score in zip(rollouts, scores, strict=True) if score.error != source.not_scored}
    return {rollout.prompt_id for rollout in rollouts} - said


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
