"""Critique and revision: an answer, what a critic says of it by a principle, and the answer that the critic writes in its place, round by round."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from accord.ai_feedback.asking import OUT_OF_BUDGET, Answer, LanguageModel, Question, ask
from accord.ai_feedback.constitution import Constitution, Principle, Worked, is_harmful
from accord.ai_feedback.store import AnswerStore
from accord.ai_feedback.verdicts import Answered, conversation_text
from accord.errors import DataError
from accord.rollouts.random import uniform
from accord.types import LabelSource, Message, content_hash

CRITIQUE = (
    "[Message]\n{conversation}\n[End of message]\n\n[Answer]\n{answer}\n[End of answer]\n\n"
    "{request}\nWrite the critique in one or two sentences.\nCritique:"
)
"""What a critic is asked first; in its own turn it answers with the critique."""
REVISION = "{request}\nWrite the new answer and nothing else.\nRevision:"
"""What it is asked then."""
_LABEL = re.compile(r"^\s*(?:Critique|Revision)\s*:\s*", re.IGNORECASE)
_NEXT = re.compile(r"^\s*(?:\[(?:Message|Answer|End of \w+)\]|(?:Critique|Revision)(?: request)?\s*:)", re.IGNORECASE | re.MULTILINE)
"""Where a critic has gone on with the next question by itself."""
Shown = tuple[Worked, Principle]
"""A worked example, and the principle that it is about."""
NO_FAULT = "no fault found"
"""Why a chain has no revision: nothing to mend."""


@dataclass(frozen=True)
class Draft:
    """An answer as it stands before a round."""

    answered: Answered
    round: int = 0

    @property
    def id(self) -> str:
        """Of the prompt: what is drawn for an answer depends on it (16 hex digits)."""
        return content_hash([[message.role, message.content] for message in self.answered.prompt])


@dataclass(frozen=True)
class Step:
    """What a critic made of one draft."""

    round: int
    principle: str | None
    source: LabelSource
    critique: str = ""
    revision: str | None = None
    problem: str | None = None
    """Why there is no revision."""
    said: dict[str, Any] = field(default_factory=dict[str, Any])
    """What it came from: models, hashes of the questions, raw texts, examples shown, tokens, cost."""


@dataclass(frozen=True)
class Chain:
    """An answer and the steps after it; the revision of each round is the draft of the next."""

    start: Answered
    steps: tuple[Step, ...] = ()
    cut_off: bool = False
    """True: the answer it began with did not end by itself."""

    @property
    def id(self) -> str:
        """Of the prompt (16 hex digits)."""
        return Draft(self.start).id

    @property
    def last(self) -> Step | None:
        """The last step that has a revision."""
        return next((step for step in reversed(self.steps) if step.revision is not None), None)

    @property
    def draft(self) -> Draft:
        """What the next round begins with."""
        last = self.last
        answered = self.start if last is None or last.revision is None else replace(self.start, answer=last.revision)
        return Draft(answered, len(self.steps))


class Critic(Protocol):
    """Something that criticises answers by a constitution, and writes better ones."""

    @property
    def name(self) -> str:
        """Short and without blanks."""
        ...

    @property
    def source(self) -> LabelSource:
        """ai, or rule: what a rule wrote is never counted as AI feedback."""
        ...

    def revise(self, drafts: Sequence[Draft]) -> list[Step]:
        """A step for each draft."""
        ...

    def about(self) -> dict[str, Any]:
        """What its steps depend on, JSON-able: model, constitution and its hash, seed."""
        ...


def chains(
    answers: Sequence[Chain], critic: Critic, *, rounds: int = 1, together: int = 32, tell: Callable[[str], None] | None = None
) -> list[Chain]:
    """The chains after so many rounds of critique and revision; one whose draft got no revision ends there.

    Args:
        answers: chains without steps.
        together: drafts that a critic gets at a time.
        tell: called with a line on how far it is.
    """
    found: list[Chain] = []
    for start in range(0, len(answers), together):
        part = list(answers[start : start + together])
        for _ in range(rounds):
            going = [index for index, chain in enumerate(part) if not chain.steps or chain.steps[-1].revision is not None]
            steps = critic.revise([part[index].draft for index in going])
            for index, step in zip(going, steps, strict=True):
                part[index] = replace(part[index], steps=(*part[index].steps, step))
        found += part
        if tell is not None:
            tell(f"{len(found)} of {len(answers)} answers criticised, {sum(chain.last is not None for chain in found)} revised.")
    return found


@dataclass
class ModelCritic:
    """A language model, in this process or behind a server.

    Each round draws one principle for an answer, by seed, round and prompt alone. The model is shown worked examples of the constitution, then
    the answer; it writes a critique, and in its next turn a revision.
    """

    model: LanguageModel
    constitution: Constitution
    store: AnswerStore = field(default_factory=AnswerStore)
    seed: int = 0
    shots: int = 2
    """Worked examples before the question."""
    critique_tokens: int = 80
    revision_tokens: int = 96
    temperature: float = 0.0
    """0 takes the most likely token."""
    source: LabelSource = "ai"

    @property
    def name(self) -> str:
        return self.model.name

    def about(self) -> dict[str, Any]:
        asked = {"shots": self.shots, "critique_tokens": self.critique_tokens, "revision_tokens": self.revision_tokens}
        frame = content_hash([CRITIQUE, REVISION])
        named = {"critic": self.name, "constitution": self.constitution.name, "constitution_hash": self.constitution.hash, "frame": frame}
        return {**named, **asked, "temperature": self.temperature, "seed": self.seed}

    def principle(self, draft: Draft) -> Principle:
        """The principle of a round, each that is for such prompts as likely as any other.

        Raises:
            DataError: if none is.
        """
        harmful = is_harmful(draft.answered.columns)
        choices = self.constitution.about(harmful)
        if not choices:
            what = "harmful" if harmful else "harmless"
            raise DataError(f"The constitution {self.constitution.name} has no principle for {what} prompts. See docs/constitution.md")
        return drawn(choices, self.seed, draft)

    def revise(self, drafts: Sequence[Draft]) -> list[Step]:
        principles = [self.principle(draft) for draft in drafts]
        shown = [self._examples(principle) for principle in principles]
        first = [
            self._question(critique_turns(draft.answered, principle, examples), self.critique_tokens)
            for draft, principle, examples in zip(drafts, principles, shown, strict=True)
        ]
        critiques = ask(self.model, first, self.store)
        parsed = [parsed_text(answer.text) for answer in critiques]
        second = [
            self._question(revision_turns(question.messages, critique, principle), self.revision_tokens)
            for question, critique, principle in zip(first, parsed, principles, strict=True)
        ]
        wanted = [index for index, critique in enumerate(parsed) if critique and critiques[index].error is None]
        revisions = dict(zip(wanted, ask(self.model, [second[index] for index in wanted], self.store), strict=True))
        return [
            self._step(draft, principles[index], shown[index], (first[index], critiques[index]), (second[index], revisions.get(index)))
            for index, draft in enumerate(drafts)
        ]

    def _examples(self, principle: Principle) -> list[Shown]:
        found = self.constitution.examples_for(principle, self.shots)
        return [(one, self.constitution.principle(one.principle)) for one in found]

    def _question(self, messages: tuple[Message, ...], tokens: int) -> Question:
        return Question(messages, max_new_tokens=tokens, temperature=self.temperature, seed=self.seed if self.temperature else 0)

    def _step(
        self,
        draft: Draft,
        principle: Principle,
        examples: Sequence[Shown],
        critique: tuple[Question, Answer],
        revision: tuple[Question, Answer | None],
    ) -> Step:
        said = {"examples": [content_hash([one.prompt, one.answer]) for one, _ in examples], "critique": written(*critique)}
        words = parsed_text(critique[1].text)
        answer = revision[1]
        if answer is None:
            problem = critique[1].error or "the critique is empty"
            return Step(draft.round, principle.id, self.source, words, None, problem, said)
        said["revision"] = written(revision[0], answer)
        text = parsed_text(answer.text)
        problem = answer.error or (None if text else "the revision is empty")
        return Step(draft.round, principle.id, self.source, words, None if problem else text, problem, said)


def drawn(principles: Sequence[Principle], seed: int, draft: Draft) -> Principle:
    """One of the principles, each as likely, by seed, round and prompt alone."""
    return principles[int(uniform(seed, draft.round, draft.id, 0, 0) * len(principles))]


def critique_turns(answered: Answered, principle: Principle, examples: Sequence[Shown]) -> tuple[Message, ...]:
    """The conversation with a critic up to where it writes its critique."""
    return (*(turn for shown in examples for turn in _worked_turns(*shown)), _critique_turn(answered, principle.critique))


def revision_turns(asked: Sequence[Message], critique: str, principle: Principle) -> tuple[Message, ...]:
    """The same, up to where it writes its revision."""
    return (*asked, Message("assistant", critique), Message("user", REVISION.format(request=principle.revision)))


def parsed_text(text: str) -> str:
    """What a critic wrote, without the label it may have repeated and without further questions that it made up itself."""
    text = _LABEL.sub("", text)
    more = _NEXT.search(text)
    return (text if more is None else text[: more.start()]).strip()


def written(question: Question, answer: Answer) -> dict[str, Any]:
    """A question's hash and what was written in answer to it, raw."""
    record = {"prompt_hash": question.hash, "text": answer.text, "finish": answer.finish, "model": answer.model}
    spent = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens, "cost": answer.cost}
    return {**record, **spent, **({} if answer.error is None else {"error": answer.error})}


def unasked(found: Sequence[Chain]) -> int:
    """Chains that a budget ended."""
    return sum(bool(chain.steps) and chain.steps[-1].problem == OUT_OF_BUDGET for chain in found)


def _worked_turns(one: Worked, principle: Principle) -> tuple[Message, ...]:
    asked = _critique_turn(Answered((Message("user", one.prompt),), one.answer), principle.critique)
    return (*revision_turns((asked,), one.critique, principle), Message("assistant", one.revision))


def _critique_turn(answered: Answered, request: str) -> Message:
    return Message("user", CRITIQUE.format(conversation=conversation_text(answered.prompt), answer=answered.answer, request=request))
