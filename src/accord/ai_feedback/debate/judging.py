"""Who decides: a language model that reads what is shown, or a rule that counts quotes. Both orders of the answers, always."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from accord.ai_feedback.asking import LanguageModel
from accord.ai_feedback.debate.debater_prompts import FOLDER
from accord.ai_feedback.debate.debaters import RULE, support
from accord.ai_feedback.debate.quotes import plain_line, sentences
from accord.ai_feedback.debate.turns import Shown
from accord.ai_feedback.judge_prompts import load_prompt
from accord.ai_feedback.judges import ORDERS, PairwiseJudge
from accord.ai_feedback.store import AnswerStore
from accord.ai_feedback.verdicts import Comparison, Reading, Verdict, averaged
from accord.errors import ConfigError
from accord.types import LabelSource, Message

USUAL_PROMPT = str(FOLDER / "judge.yaml")


class Overseer(Protocol):
    """Anything that decides between two answers from what it is shown."""

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> LabelSource: ...

    def decide(self, shown: Sequence[tuple[Shown, Shown]]) -> list[Verdict]:
        """A verdict on each, of the answer that the first of the two shows first.

        Args:
            shown: of each question the two orders of its answers, with what was shown in each.
        """
        ...

    def about(self) -> dict[str, Any]:
        """What its verdicts depend on, JSON-able."""
        ...


@dataclass
class ModelOverseer:
    """A language model: a pairwise judge whose question holds all that is shown."""

    judge: PairwiseJudge

    @property
    def name(self) -> str:
        return self.judge.name

    @property
    def source(self) -> LabelSource:
        return self.judge.source

    def decide(self, shown: Sequence[tuple[Shown, Shown]]) -> list[Verdict]:
        return self.judge.compare_shown([(_comparison(first), _comparison(second)) for first, second in shown])

    def about(self) -> dict[str, Any]:
        return self.judge.about()


@dataclass(frozen=True)
class QuoteOverseer:
    """A rule: the answer whose best quote, or best sentence of what may be read, has more of the question's words; equal ones tie.

    A quote counts for an answer if the side that argues for it says it and if it has all of the answer's words.

    Args:
        trusts: True takes every quote for true. False counts verified ones alone.
    """

    trusts: bool = False
    source: LabelSource = "rule"

    @property
    def name(self) -> str:
        return f"{RULE}{'trusting' if self.trusts else 'verified'}"

    def about(self) -> dict[str, Any]:
        return {"judge": self.name}

    def decide(self, shown: Sequence[tuple[Shown, Shown]]) -> list[Verdict]:
        found: list[Verdict] = []
        for both in shown:
            first, second = (Reading(order, None, self.prefers(one)) for order, one in zip(ORDERS, both, strict=True))
            found.append(averaged(first, second, judge=self.name, source=self.source))
        return found

    def prefers(self, shown: Shown) -> float:
        """1.0: the answer shown first; 0.0: the other; 0.5: neither."""
        first, second = (self._support(shown, side) for side in (0, 1))
        return 0.5 if first == second else float(first > second)

    def _support(self, shown: Shown, side: int) -> int:
        """The question's words in the best evidence for an answer, plus 1; 0 without any."""
        quotes = [
            segment.text
            for statement in shown.statements
            if statement.side == side
            for segment in statement.segments
            if segment.quote and (self.trusts or segment.verified)
        ]
        scored = [support(one, shown.question, shown.answers[side]) for one in (*quotes, *sentences(shown.passage))]
        return max((1 + shared for speaks, shared in scored if speaks), default=0)


def model_overseer(model: LanguageModel, prompt: str | None, store: AnswerStore, *, seed: int = 0) -> ModelOverseer:
    """A language model as judge.

    Args:
        prompt: a pairwise prompt, by name or file, whose {conversation} is all that is shown. None: the one that comes with debates.
    Raises:
        ConfigError: if it is no pairwise prompt.
    """
    return ModelOverseer(PairwiseJudge(model, load_prompt(prompt or USUAL_PROMPT), store, seed))


def rule_overseer(named: str) -> QuoteOverseer:
    """`verified` or `trusting`.

    Raises:
        ConfigError: if it is neither.
    """
    name = Path(named).name.removeprefix(RULE)
    if name not in ("verified", "trusting"):
        raise ConfigError(
            f"There is no judge {named!r} of debates. Rules: rule:verified, rule:trusting; else a model, a run, or a server's address."
        )
    return QuoteOverseer(name == "trusting")


def _comparison(shown: Shown) -> Comparison:
    first, second = map(plain_line, shown.answers)
    return Comparison((Message("user", shown.text),), first, second)
