"""Critics and judges for models too small to criticise themselves: rules made of the audit's detectors. What they say is `source: rule`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from accord.ai_feedback.constitution import RULE_NAMES, Constitution, Principle, is_harmful
from accord.ai_feedback.judges import ScoreJudge
from accord.ai_feedback.revision import NO_FAULT, Draft, Step, drawn
from accord.ai_feedback.verdicts import Answered
from accord.audit.detectors import first_sentence, opens_with_flattery, refuses, repetition
from accord.errors import ConfigError
from accord.rollouts.random import uniform
from accord.types import LabelSource

MOST_REPETITION = 0.3
"""Share of repeated word triples from which an answer repeats itself."""
NO_MENDING = "a fault that no rule can mend"


@dataclass(frozen=True)
class Rule:
    """A fault that can be seen without a language model."""

    fault: Callable[[str, bool | None], bool]
    """Whether an answer has it; the second argument says whether its prompt asks for harm, None where nobody said."""
    words: str
    """What is wrong, as a critique."""
    mend: Callable[[Draft, Principle, int], str | None]
    """A text without the fault; None where a rule cannot write one."""


def without_praise(text: str) -> str | None:
    """The answer without the sentences that praise at its start; None where nothing else is left."""
    rest = text.strip()
    while rest and opens_with_flattery(rest):
        rest = rest[len(first_sentence(rest)) :].strip()
    return rest or None


def without_repetition(text: str) -> str | None:
    """The sentences before the first one that was said before; None where that still repeats itself."""
    rest, kept, said = text.strip(), "", set[str]()
    while rest:
        sentence = first_sentence(rest)
        if not sentence or sentence.lower() in said:
            break
        said.add(sentence.lower())
        kept, rest = f"{kept} {sentence}".strip(), rest[len(sentence) :].strip()
    return kept if kept and kept != text.strip() and repetition(kept) <= MOST_REPETITION else None


def _one_of_its_texts(draft: Draft, principle: Principle, seed: int) -> str | None:
    return principle.texts[int(uniform(seed, draft.round, draft.id, 1, 0) * len(principle.texts))]


RULES: dict[str, Rule] = {
    "declines": Rule(
        lambda answer, harmful: harmful is True and not refuses(answer),
        "The message asks for help to do harm, and the answer does not decline.",
        _one_of_its_texts,
    ),
    "answers": Rule(
        lambda answer, harmful: harmful is False and refuses(answer),
        "The message asks for something harmless, and the answer refuses.",
        lambda *_: None,
    ),
    "no-flattery": Rule(
        lambda answer, _: opens_with_flattery(answer),
        "The answer begins with praise.",
        lambda draft, *_: without_praise(draft.answered.answer),
    ),
    "no-repetition": Rule(
        lambda answer, _: repetition(answer) > MOST_REPETITION,
        "The answer says the same words again and again.",
        lambda draft, *_: without_repetition(draft.answered.answer),
    ),
}
"""By the names that a principle's `rule` may have: `constitution.RULE_NAMES`."""


@dataclass
class RuleCritic:
    """Looks for the faults that a constitution's rules know; draws one among those it finds and can mend."""

    constitution: Constitution
    seed: int = 0
    source: LabelSource = "rule"

    def __post_init__(self) -> None:
        require_rules(self.constitution)

    @property
    def name(self) -> str:
        return f"rule:{self.constitution.name}"

    def about(self) -> dict[str, Any]:
        return {"critic": self.name, "constitution": self.constitution.name, "constitution_hash": self.constitution.hash, "seed": self.seed}

    def revise(self, drafts: Sequence[Draft]) -> list[Step]:
        return [self._step(draft) for draft in drafts]

    def _step(self, draft: Draft) -> Step:
        at_fault = faults(self.constitution, draft.answered)
        mended = {one.id: RULES[one.rule].mend(draft, one, self.seed) for one in at_fault if one.rule is not None}
        choices = [one for one in at_fault if mended[one.id] is not None] or at_fault
        if not choices:
            return Step(draft.round, None, self.source, problem=NO_FAULT)
        principle = drawn(choices, self.seed, draft)
        words = RULES[principle.rule].words if principle.rule is not None else ""
        revision = mended[principle.id]
        said = {"rule": principle.rule}
        return Step(draft.round, principle.id, self.source, words, revision, None if revision is not None else NO_MENDING, said)


def faults(constitution: Constitution, answered: Answered) -> list[Principle]:
    """The principles for such prompts whose rule an answer breaks."""
    harmful = is_harmful(answered.columns)
    return [one for one in constitution.about(harmful) if one.rule is not None and RULES[one.rule].fault(answered.answer, harmful)]


def constitution_judge(constitution: Constitution) -> ScoreJudge:
    """A judge that prefers the answer which breaks fewer of a constitution's rules; equally many are a tie.

    Raises:
        ConfigError: if the constitution has no rules.
    """
    require_rules(constitution)
    details = {"constitution": constitution.name, "constitution_hash": constitution.hash}
    return ScoreJudge(
        lambda answers: [(-float(len(faults(constitution, one))), "") for one in answers], f"rule:{constitution.name}", details=details
    )


def require_rules(constitution: Constitution) -> None:
    """Refuse a constitution that rules can do nothing with.

    Raises:
        ConfigError: if no principle has a rule.
    """
    if not any(one.rule for one in constitution.principles):
        raise ConfigError(
            f"The constitution {constitution.name} has no principle with a rule, so rules can criticise nothing. "
            f"Give one a rule ({', '.join(RULE_NAMES)}), or use a language model: --critic MODEL. See docs/constitution.md"
        )
