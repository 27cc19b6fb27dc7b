"""The process reward model as an object: the same one trains, scores and is loaded from a run folder, so it always reads the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accord.data.packing import Unit
from accord.data.render import Renderer
from accord.data.render_steps import StepRenderer
from accord.models.adapters import PolicyModel
from accord.models.heads import StepHead
from accord.models.save import PROCESS
from accord.objectives.process import AGGREGATIONS
from accord.rewards.scorer import Scorer
from accord.types import Message, Rollout, Score


class ProcessRewardModel(Scorer[StepHead, StepRenderer]):
    """Judges each step of a solution from the hidden state of its last token, under the adapters of `stack`.

    One number for a whole solution: `objectives.process.AGGREGATIONS`.
    """

    record = PROCESS
    tensors = "step_head.safetensors"
    missing = f"process reward model (no {PROCESS}). Train one with: accord prm --data steps.jsonl"

    @torch.no_grad()
    def probabilities(self, units: Sequence[Unit], token_budget: int = 2048) -> list[Tensor]:
        """Probability of each class (`heads.classes`) of each step: (steps, classes) a unit."""
        return [self.heads(features) for features in self.features(units, token_budget)]

    @torch.no_grad()
    def score(self, units: Sequence[Unit], token_budget: int = 2048) -> list[Tensor]:
        """Probability that each step is not wrong, larger is better: (steps,) a unit."""
        return [self.heads.right(features) for features in self.features(units, token_budget)]

    def score_solutions(
        self, prompts: Sequence[str | Sequence[Message]], solutions: Sequence[str | Sequence[str]], token_budget: int = 2048
    ) -> list[Tensor]:
        """The same of solutions in words, each its steps or a text that the separator splits.

        Raises:
            DataError: if one has no step.
        """
        return self.score([self.renderer.unit(*pair) for pair in zip(prompts, solutions, strict=True)], token_budget)

    def score_rollouts(self, rollouts: Sequence[Rollout], token_budget: int = 2048) -> list[Tensor]:
        """The same of sampled answers, whose text the separator splits.

        Raises:
            DataError: if one has no step.
        """
        return self.score([self.renderer.rollout(rollout) for rollout in rollouts], token_budget)

    def about(self) -> dict[str, Any]:
        return {
            "classes": list(self.heads.classes),
            "width": self.heads.width,
            "surprise": self.heads.reading.surprise,
            "step_separator": self.renderer.separator,
        }

    def score_whole(self, rollouts: Sequence[Rollout], aggregation: str = "min", token_budget: int = 2048) -> list[Score]:
        """One score a sampled answer, with the number of its steps as a part; an answer without a step has an error and no score.

        Args:
            aggregation: a name of `objectives.process.AGGREGATIONS`.
        """
        with_steps = [index for index, rollout in enumerate(rollouts) if self.renderer.split(rollout.text)]
        found = [Score(None, error="it has no step")] * len(rollouts)
        if not with_steps:
            return found
        steps = self.score_rollouts([rollouts[index] for index in with_steps], token_budget)
        counts = torch.tensor([len(scores) for scores in steps])
        solution = torch.repeat_interleave(torch.arange(len(steps)), counts)
        values = AGGREGATIONS[aggregation](torch.cat(steps).cpu(), solution).tolist()
        for index, value, own in zip(with_steps, values, steps, strict=True):
            ends = self.renderer.ends_in(rollouts[index])
            found[index] = Score(value, {"steps": float(len(own))}, steps=tuple(own.tolist()), step_ends=ends)
        return found

    @classmethod
    def load(cls, policy: PolicyModel, folder: Path, renderer: Renderer) -> ProcessRewardModel:
        """Load a run of `accord prm` onto a base model; adapters the base already carries are shared. More in `Scorer.open_run`."""
        policy, stack, info, tensors = cls.open_run(policy, folder)
        size = tensors["feature_center"].shape[0]
        head = StepHead(size, info["classes"], width=info["width"], layer=info["layer"], surprise=info.get("surprise", False))
        head.load_state_dict(tensors)
        return cls(policy, stack, head.to(policy.device), StepRenderer(renderer, info["step_separator"]))


@dataclass
class ProcessReward:
    """A process reward model as a reward of whole answers: one number from those of its steps."""

    model: ProcessRewardModel
    aggregation: str = "min"
    """A name of `objectives.process.AGGREGATIONS`."""
    weight: float = 1.0
    name: str = "process_reward"

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        return self.model.score_whole(rollouts, self.aggregation)
