"""Several turns: an environment answers what the policy wrote (a tool's output, a checker's complaint), and the policy goes on.

What the environment appends is read by the policy and never learned from (`Rollout.sampled_mask`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from accord.data.render import Renderer
from accord.rollouts.sampler import Prompt, Sampler, SamplingConfig
from accord.types import Rollout

Environment = Callable[[str, Prompt], "str | None"]
"""From all that an answer says so far, and its prompt, to the text that is put after it; None: the answer is over."""


@dataclass
class TurnSampler:
    """A sampler whose answers an environment may interrupt.

    Each turn is sampled to its end token, or to the tokens that are left. The environment sees the whole answer so far; what it returns is
    appended as tokens, end token of the turn included before it, and the next turn is sampled from there. A rollout is one answer: its
    `text` holds the environment's words too, `sampled_mask` says which tokens the policy wrote.

    Args:
        sampler: draws each turn.
        renderer: makes tokens of what the environment says, and text of tokens.
        environment: sees an answer, returns text or None.
        max_turns: turns of the policy at most. 1 never asks the environment.
    """

    sampler: Sampler
    renderer: Renderer
    environment: Environment
    max_turns: int = 4

    def sample(self, prompts: Sequence[Prompt], config: SamplingConfig) -> list[Rollout]:
        """`num_samples` rollouts for each prompt, siblings next to each other, in the order of the prompts."""
        first = self.sampler.sample(prompts, config)
        owners = {prompt.id: prompt for prompt in prompts}
        answers = [_Answer(owners[rollout.prompt_id], rollout) for rollout in first]
        for turn in range(1, self.max_turns):
            waiting = [answer for answer in answers if self._goes_on(answer, config.max_new_tokens)]
            if not waiting:
                break
            # Each answer is a prompt of its own now; its name keeps its draws apart from those of siblings and of other turns.
            rooms = {id(answer): config.max_new_tokens - len(answer.ids) for answer in waiting}
            for room in sorted(set(rooms.values())):
                group = [answer for answer in waiting if rooms[id(answer)] == room]
                asked = [answer.as_prompt(turn) for answer in group]
                found = self.sampler.sample(asked, replace(config, num_samples=1, max_new_tokens=room))
                for answer, rollout in zip(group, found, strict=True):
                    answer.extend(rollout.completion_ids, rollout.sampler_logprobs, sampled=True, finish=rollout.finish_reason)
        return [answer.rollout(self.renderer) for answer in answers]

    def _goes_on(self, answer: _Answer, longest: int) -> bool:
        """Ask the environment about an answer whose turn has ended, and append what it says where there is room for more after it."""
        if answer.over or answer.finish != "stop":
            return False
        said = self.environment(answer.text(self.renderer), answer.prompt)
        ids = [] if said is None else self.renderer.tokenizer(said, add_special_tokens=False)["input_ids"]
        if said is None or len(answer.ids) + len(ids) >= longest:
            answer.over = True
            return False
        answer.extend(ids, [0.0] * len(ids), sampled=False, finish="stop")
        return True


@dataclass
class _Answer:
    """One answer being written in turns."""

    prompt: Prompt
    start: Rollout
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    finish: str = "stop"
    over: bool = False

    def __post_init__(self) -> None:
        self.extend(self.start.completion_ids, self.start.sampler_logprobs, sampled=True, finish=self.start.finish_reason)

    def extend(self, ids: Sequence[int], logprobs: Sequence[float], *, sampled: bool, finish: str) -> None:
        """Append tokens. sampled: True for the policy's own, False for the environment's."""
        self.ids += ids
        self.logprobs += logprobs
        self.mask += [sampled] * len(ids)
        self.finish = finish

    def as_prompt(self, turn: int) -> Prompt:
        """What the next turn is sampled after."""
        name = f"{self.prompt.id}/{self.start.sample_index}/{turn}"
        return Prompt(name, (*self.prompt.ids, *self.ids), self.prompt.messages, self.prompt.columns)

    def text(self, renderer: Renderer) -> str:
        """All of it in words, without the last end token."""
        ids = self.ids[:-1] if self.ids and self.ids[-1] in renderer.end_ids else self.ids
        return renderer.decode(ids)

    def rollout(self, renderer: Renderer) -> Rollout:
        return replace(
            self.start,
            completion_ids=tuple(self.ids),
            sampler_logprobs=tuple(self.logprobs),
            text=self.text(renderer),
            finish_reason="stop" if self.finish == "stop" else "length",
            sampled_mask=None if all(self.mask) else tuple(self.mask),
        )
