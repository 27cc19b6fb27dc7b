"""A judge's model in this process: options are read from its own log-probabilities, all of them from one forward pass over the question."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from accord.ai_feedback.asking import Answer, Keep, Question
from accord.ai_feedback.reading import stated_option
from accord.ai_feedback.store import Spent
from accord.data.packing import Branch, Unit, pack, shared_prefix
from accord.errors import DataError
from accord.models.adapters import Want
from accord.models.fingerprint import model_fingerprint
from accord.models.opened import Opened
from accord.objectives.segments import segment_sum
from accord.rollouts.collect import prompt_limit
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.types import Rollout, content_hash

Ids = tuple[int, ...]
_WRITTEN_TOGETHER = 16
"""Questions whose text is written side by side: what a killed run may lose."""


@dataclass(frozen=True)
class _Asked:
    """A question in tokens."""

    index: int
    prompt: Ids
    spelled: dict[str, list[Ids]]
    """Ids of each option's spellings, each once and none the beginning of another of the same option."""

    @property
    def unit(self) -> Unit:
        return Unit(self.prompt, tuple(Branch(ids) for spellings in self.spelled.values() for ids in spellings))


@dataclass(frozen=True)
class Said:
    """How an answer has begun."""

    text: str = ""
    ids: Ids = ()
    """Of the question and the text, as they were sampled; empty where nothing has been said."""


class LocalModel:
    """Answers questions with an opened model; a `LanguageModel`.

    Args:
        opened: the model with its adapters and tokenizer.
        name: what people call it.
        token_budget: tokens that go through the model at once.
    """

    def __init__(self, opened: Opened, name: str, *, token_budget: int = 2048) -> None:
        self.opened, self.name, self.token_budget = opened, name, token_budget

    @cached_property
    def _identity(self) -> str:
        tokenizer = self.opened.tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        words = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
        return content_hash(
            [
                model_fingerprint(self.opened.policy, self.opened.stack),
                words,
                getattr(tokenizer, "chat_template", None),
                self.opened.renderer.end_ids,
            ]
        )

    def key(self, question: Question) -> str:
        """Hash of the weights, the tokenizer and its template, and the question."""
        return content_hash([self._identity, dataclasses.asdict(question)], 32)

    @torch.no_grad()
    def answer(self, questions: Sequence[Question], keep: Keep, spent: Spent) -> list[Answer]:
        """An answer to each; what a budget says is for servers."""
        found: dict[int, Answer] = {}

        def note(index: int, answer: Answer) -> None:
            found[index] = answer
            if answer.error is None:
                keep(index, answer)

        with self.opened.policy.gathered():
            direct = [index for index, question in enumerate(questions) if not question.max_new_tokens]
            for index, masses, tokens in self._masses(questions, {index: Said() for index in direct}, note):
                note(index, Answer(masses=masses, model=self.name, prompt_tokens=tokens))
            written = [index for index, question in enumerate(questions) if question.max_new_tokens]
            for start in range(0, len(written), _WRITTEN_TOGETHER):
                self._write(questions, written[start : start + _WRITTEN_TOGETHER], note)
        return [found[index] for index in range(len(questions))]

    # -- probabilities of options -------------------------------------------------------------------------------------------------

    def _masses(self, questions: Sequence[Question], asked: Mapping[int, Said], note: Keep) -> Iterator[tuple[int, dict[str, float], int]]:
        """Index, masses of the options and length of each question, given what has been said; questions that cannot be asked are noted."""
        ready: list[_Asked] = []
        for index, said in asked.items():
            one = self._asked(index, questions[index], said)
            if isinstance(one, str):
                note(index, Answer(error=one))
            else:
                ready.append(one)
        policy = self.opened.policy
        for part in _batches(ready, self.token_budget):
            batch = pack([one.unit for one in part], policy.device)
            logprobs = policy.forward(batch, self.opened.stack, Want()).logprobs
            assert logprobs is not None
            sums = iter(segment_sum(logprobs, batch.completion, batch.num_completions).tolist())
            for one in part:
                known = {name: {ids: math.exp(next(sums)) for ids in spellings} for name, spellings in one.spelled.items()}
                yield one.index, exclusive(known), len(one.prompt)

    def _asked(self, index: int, question: Question, said: Said) -> _Asked | str:
        """A question in tokens, or why the model cannot be asked it."""
        spellings = [spelling for some in question.options.values() for spelling in some]
        try:
            prompt, ids = self.opened.renderer.beginnings(question.messages, spellings, said=said.text)
        except DataError as error:
            return f"the model cannot be asked: {error}"
        prompt = said.ids or prompt
        by_text = dict(zip(spellings, map(tuple, ids), strict=True))
        limit = prompt_limit(self.opened.policy, max(map(len, by_text.values()), default=1))
        if limit is not None and len(prompt) > limit:
            return f"the question has {len(prompt)} tokens and the model reads {limit}"
        unknown = self.opened.tokenizer.unk_token_id
        spelled: dict[str, list[Ids]] = {}
        for name, some in question.options.items():
            written = {by_text[spelling] for spelling in some if by_text[spelling] and unknown not in by_text[spelling]}
            shortest = [one for one in sorted(written) if not any(one != other and one[: len(other)] == other for other in written)]
            if shortest:
                spelled[name] = shortest
        taken = [one for some in spelled.values() for one in some]
        if len(set(taken)) < len(taken):
            return "two options are spelled by the same tokens"
        return _Asked(index, tuple(prompt), spelled) if taken else "the model's tokens spell none of the options"

    # -- text -----------------------------------------------------------------------------------------------------------------------

    def _write(self, questions: Sequence[Question], indices: Sequence[int], note: Keep) -> None:
        """Texts, and where they state an option the probabilities of all options in its place."""
        prompts: dict[int, Prompt] = {}
        for index in indices:
            question = questions[index]
            try:
                ids = tuple(self.opened.renderer.beginnings(question.messages, ())[0])
            except DataError as error:
                note(index, Answer(error=f"the model cannot be asked: {error}"))
                continue
            limit = prompt_limit(self.opened.policy, question.max_new_tokens)
            if limit is not None and len(ids) > limit:
                note(index, Answer(error=f"the question has {len(ids)} tokens and the model reads {limit} before such an answer"))
                continue
            prompts[index] = Prompt(question.hash, ids, question.messages)
        sampler = LocalSampler(self.opened.policy, self.opened.renderer, self.opened.stack)
        stated: dict[int, Said] = {}
        texts: dict[int, Answer] = {}
        for settings in dict.fromkeys(_settings(questions[index]) for index in prompts):
            mine = [index for index in prompts if _settings(questions[index]) == settings]
            for index, rollout in zip(mine, sampler.sample([prompts[index] for index in mine], settings), strict=True):
                texts[index] = self._written(rollout)
                said = self._before_verdict(questions[index], texts[index].text, rollout)
                if said is None:
                    note(index, texts[index])
                else:
                    stated[index] = said
        for index, masses, _ in self._masses(questions, stated, note):
            note(index, dataclasses.replace(texts[index], masses=masses))

    def _written(self, rollout: Rollout) -> Answer:
        text, count = self._decoded(rollout.completion_ids), len(rollout.completion_ids)
        return Answer(text, None, None, rollout.finish_reason, self.name, len(rollout.prompt_ids), count)

    def _before_verdict(self, question: Question, text: str, rollout: Rollout) -> Said | None:
        """What a text says before the option that it states; None where it states none, or where a token holds both."""
        verdict = stated_option(text, question.verdict, question.options)[0] if question.options else None
        if verdict is None:
            return None
        before = text[: verdict[1]]
        for count in range(1, len(rollout.completion_ids)):
            if self._decoded(rollout.completion_ids[:count]) == before:
                return Said(before, (*rollout.prompt_ids, *rollout.completion_ids[:count]))
        return None

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self.opened.tokenizer.decode(list(ids), skip_special_tokens=True))


def exclusive(known: Mapping[str, Mapping[Ids, float]]) -> dict[str, float]:
    """Probability of each option from those of its spellings: what goes on into another option's spelling belongs to that one.

    Where "1" and "10" begin with the same token, the first is everything behind it but the second.

    Args:
        known: for each option the probability of each of its spellings, as token ids.
    """
    found: dict[str, float] = {}
    for name, spellings in known.items():
        others = {ids: mass for other, some in known.items() if other != name for ids, mass in some.items()}
        total = 0.0
        for ids, mass in spellings.items():
            longer = {other: part for other, part in others.items() if len(other) > len(ids) and other[: len(ids)] == ids}
            nearest = {o: part for o, part in longer.items() if not any(o != p and o[: len(p)] == p for p in longer)}
            total += mass - sum(nearest.values())
        found[name] = max(0.0, total)
    return found


def _settings(question: Question) -> SamplingConfig:
    return SamplingConfig(question.max_new_tokens, temperature=question.temperature, seed=question.seed, max_batch=_WRITTEN_TOGETHER)


def _batches(asked: Sequence[_Asked], budget: int) -> Iterator[list[_Asked]]:
    """In order, as many as fit into the budget; one joins only where the tokens that the others share stay shared.

    The two orders of a comparison, and the items of a checklist, share the conversation: it is read once for all of them.
    """
    part: list[_Asked] = []
    size = 0
    for one in asked:
        joined = _packed_size([*part, one])
        if part and (joined > budget or joined > size + one.unit.num_tokens):
            yield part
            part, joined = [], one.unit.num_tokens
        part.append(one)
        size = joined
    if part:
        yield part


def _packed_size(asked: Sequence[_Asked]) -> int:
    units = [one.unit for one in asked]
    return sum(unit.num_tokens for unit in units) - (len(units) - 1) * shared_prefix(units)
