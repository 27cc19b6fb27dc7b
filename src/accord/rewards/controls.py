"""Control arms: rewards that carry no or the opposite information, to compare a true reward's gain with.

A gain that a random reward also gives is not learned from the reward (Qwen2.5-Math gained 21.4 points on MATH-500 from random rewards
and 29.1 from true ones: Shao et al. 2025, arXiv:2506.10947). The true score is computed and logged as the part `true` all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from accord.errors import ConfigError
from accord.rewards.combine import RewardSource, combined
from accord.rollouts.random import shuffled, uniform
from accord.types import Rollout, Score

CONTROLS = ("random", "format-only", "inverted", "shuffled")
_POSITION = -2
"""Where the draw of a control stands among a rollout's draws: before every token's."""
Outcome = tuple[str, int, "float | None", "str | None"]
"""Prompt, sample index, true reward and failure of an answer: what `shuffled` deals."""


def control(
    name: str,
    sources: RewardSource | Sequence[RewardSource],
    *,
    seed: int = 0,
    format_name: str = "format",
    gather: Callable[[list[Outcome]], list[Outcome]] = list,
) -> ControlReward:
    """One source in place of several.

    | name | reward |
    |---|---|
    | random | 0 or 1, each half of the time, a function of seed, policy step, prompt and sample index alone |
    | format-only | the weighted part of the source called `format_name`, nothing else |
    | inverted | minus the true reward |
    | shuffled | the true rewards of all answers scored together (an iteration), dealt out again at random among them |

    Args:
        sources: what the true reward is the weighted sum of.
        seed: the run's; draws depend on it and on nothing that was drawn before, so that a resumed run draws the same.
        format_name: the source that is kept by format-only.
        gather: from the outcomes of the answers scored here to those of all that are scored at the same time, other processes' too, in any
            order: `shuffled` deals among all of them.
    Raises:
        ConfigError: if there is no such control, no source, or no format source for format-only.
    """
    return ControlReward(name, sources if isinstance(sources, Sequence) else [sources], seed, format_name, gather)


class ControlReward:
    """What `control` makes; a `RewardSource` whose name is the control's."""

    weight = 1.0

    def __init__(
        self, name: str, sources: Sequence[RewardSource], seed: int, format_name: str, gather: Callable[[list[Outcome]], list[Outcome]]
    ) -> None:
        if name not in CONTROLS:
            raise ConfigError(f"There is no control {name!r}. Controls: {', '.join(CONTROLS)}.")
        if not sources:
            raise ConfigError(f"Control {name} needs the rewards it stands in for: give --reward or --reward_model too.")
        if name == "format-only" and not any(source.name == format_name for source in sources):
            given = ", ".join(source.name for source in sources)
            raise ConfigError(
                f"Control format-only needs a reward called {format_name!r} among the rewards ({given}). Add one, or use random."
            )
        self.name, self.sources, self.seed, self.format_name, self.gather = name, list(sources), seed, format_name, gather

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        true = combined(self.sources, rollouts)
        logged = [replace(score, parts={**score.parts, **({} if score.value is None else {"true": score.value})}) for score in true]
        if self.name == "random":
            return [replace(score, value=self._coin(rollout), error=None) for score, rollout in zip(logged, rollouts, strict=True)]
        if self.name == "inverted":
            return [score if score.value is None else replace(score, value=-score.value) for score in logged]
        if self.name == "format-only":
            source = next(source for source in self.sources if source.name == self.format_name)
            return [self._kept(score, source) for score in logged]
        dealt = self._dealt(rollouts, true)
        return [
            replace(score, value=dealt[r.prompt_id, r.sample_index][0], error=dealt[r.prompt_id, r.sample_index][1])
            for score, r in zip(logged, rollouts, strict=True)
        ]

    def _coin(self, rollout: Rollout) -> float:
        return float(uniform(self.seed, rollout.policy_step, rollout.prompt_id, rollout.sample_index, _POSITION) < 0.5)

    def _kept(self, score: Score, source: RewardSource) -> Score:
        part = score.parts.get(source.name)
        if part is None:
            return replace(score, value=None, error=score.error or f"{source.name} gave no score")
        return replace(score, value=source.weight * part, error=None)

    def _dealt(self, rollouts: Sequence[Rollout], true: Sequence[Score]) -> dict[tuple[str, int], tuple[float | None, str | None]]:
        """The reward and failure that each answer gets, by prompt and sample index: a permutation that depends on who is there, not on the
        order they came in nor on which process scored them."""
        mine = [(r.prompt_id, r.sample_index, score.value, score.error) for r, score in zip(rollouts, true, strict=True)]
        everyone = sorted(self.gather(mine), key=lambda outcome: outcome[:2])
        order = shuffled(len(everyone), self.seed, rollouts[0].policy_step if rollouts else 0, "control")
        return {to[:2]: everyone[other][2:] for to, other in zip(everyone, order, strict=True)}
