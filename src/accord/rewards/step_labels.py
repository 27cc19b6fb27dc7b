"""Labels of steps without a person: complete a solution after each step several times, and see how often the end is right.

Math-Shepherd (Wang et al. 2023, arXiv:2312.08935). Such a label is the value of a step under the model that completes, not its truth: a
wrong step from which right answers are still reached is called right, and a right step that the model cannot finish is called wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from accord.data.render_steps import StepRenderer
from accord.rewards.combine import RewardSource, combined
from accord.rollouts.sampler import Prompt
from accord.types import Rollout, content_hash


@dataclass(frozen=True)
class Solution:
    """A solution whose steps are to be labelled."""

    rollout: Rollout
    """The whole of it; what a reward says of it is the value of its last step, where it has ended."""
    steps: tuple[str, ...]
    ended: bool
    """True: the last step is its end. False: it was cut off after its last step."""


@dataclass(frozen=True)
class StepValue:
    """What completions after a step came to."""

    right: int
    scored: int
    """Completions whose reward is known; 0: nothing is known of the step."""

    @property
    def hard(self) -> int | None:
        """1 if any completion is right, -1 if none is, None if nothing is known (hard estimation)."""
        return None if not self.scored else 1 if self.right else -1

    @property
    def soft(self) -> float | None:
        """The share of right completions (soft estimation)."""
        return self.right / self.scored if self.scored else None


def solution_of(rollout: Rollout, renderer: StepRenderer) -> Solution | None:
    """A sampled answer as a solution. Where it was cut off, the last piece is no whole step and is left away; None: no step is left."""
    steps = renderer.split(rollout.text)
    ended = rollout.finish_reason == "stop"
    if not ended and not rollout.text.endswith(renderer.separator):
        steps = steps[:-1]
    return Solution(rollout, tuple(steps), ended) if steps else None


def label_by_rollouts(
    solutions: Sequence[Solution],
    rewards: Sequence[RewardSource],
    renderer: StepRenderer,
    draw: Callable[[list[Prompt]], list[list[Rollout]]],
    *,
    threshold: float = 1.0,
    room: int | None = None,
) -> list[list[StepValue]]:
    """The value of each step of each solution.

    Beginnings that several solutions to a prompt share are completed once. A last step that ends its solution has one completion, the
    solution itself.

    Args:
        rewards: their weighted sum says whether a whole answer is right.
        draw: completions of each prompt, in order; a prompt is what was asked and the beginning of a solution.
        threshold: lowest reward of a right answer.
        room: tokens that a prompt with its beginning may have; steps beyond it stay unknown. None: no limit.
    """
    begun: dict[str, tuple[Prompt, str, Solution]] = {}
    keys: list[list[str]] = []
    for solution in solutions:
        open_steps = len(solution.steps) - solution.ended
        keys.append([])
        for count in range(1, open_steps + 1):
            text = "".join(step + renderer.separator for step in solution.steps[:count])
            asked = solution.rollout
            ids = (*asked.prompt_ids, *_ids(text, renderer))
            key = f"{asked.prompt_id}:{content_hash(text)}"
            keys[-1].append(key)
            if room is None or len(ids) <= room:
                begun.setdefault(key, (Prompt(key, ids, asked.prompt, asked.columns), text, solution))
    values = _values(begun, rewards, draw, threshold)
    ends = [solution for solution in solutions if solution.ended]
    outcomes = iter(combined(rewards, [solution.rollout for solution in ends]) if ends else [])
    found: list[list[StepValue]] = []
    for solution, mine in zip(solutions, keys, strict=True):
        steps = [values.get(key, StepValue(0, 0)) for key in mine]
        if solution.ended:
            outcome = next(outcomes).value
            steps.append(StepValue(0, 0) if outcome is None else StepValue(int(outcome >= threshold), 1))
        found.append(steps)
    return found


def _values(
    begun: dict[str, tuple[Prompt, str, Solution]],
    rewards: Sequence[RewardSource],
    draw: Callable[[list[Prompt]], list[list[Rollout]]],
    threshold: float,
) -> dict[str, StepValue]:
    if not begun:
        return {}
    whole: list[Rollout] = []
    owner: list[str] = []
    for (key, (prompt, text, solution)), group in zip(begun.items(), draw([prompt for prompt, _, _ in begun.values()]), strict=True):
        asked = solution.rollout
        beginning = prompt.ids[len(asked.prompt_ids) :]
        for rollout in group:
            answer = replace(
                rollout,
                prompt_id=asked.prompt_id,
                prompt_ids=asked.prompt_ids,
                completion_ids=(*beginning, *rollout.completion_ids),
                text=text + rollout.text,
                sampler_logprobs=(),
                sampled_mask=None,
            )
            whole.append(answer)
            owner.append(key)
    right = dict.fromkeys(begun, 0)
    scored = dict.fromkeys(begun, 0)
    for key, score in zip(owner, combined(rewards, whole), strict=True):
        if score.value is not None:
            scored[key] += 1
            right[key] += score.value >= threshold
    return {key: StepValue(right[key], scored[key]) for key in begun}


def _ids(text: str, renderer: StepRenderer) -> list[int]:
    # As one text: what the completer would have written itself, rather than how a process reward model reads it step by step.
    return list(renderer.renderer.tokenizer(text, add_special_tokens=False)["input_ids"])
