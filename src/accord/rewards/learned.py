"""The reward model as an object: the same one trains, serves PPO and is loaded from a run folder, so it always reads the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accord.data.packing import Branch, Unit
from accord.data.render import Renderer
from accord.models.adapters import PolicyModel
from accord.models.heads import RewardHeads
from accord.models.save import REWARD
from accord.rewards.laplace import LaplaceUncertainty
from accord.rewards.scorer import Scorer
from accord.types import Rollout


class RewardModel(Scorer[RewardHeads, Renderer]):
    """Scores completions with K heads on hidden states of the model under `stack`: of the last token, or of the prompt and answer too.

    `accord export --sequence-classification` turns a saved one into a transformers classifier.
    """

    record = REWARD
    tensors = "reward_heads.safetensors"
    missing = f"reward model (no {REWARD}). Train one with: accord reward --data pairs.jsonl"
    laplace: LaplaceUncertainty | None = None
    """How sure the last layer is of a score. None: not asked for when it was trained."""

    @torch.no_grad()
    def score(self, units: Sequence[Unit], token_budget: int = 2048) -> Tensor:
        """(C, K) normalised scores of all completions of these units, larger is better."""
        return self.heads(torch.cat(self.features(units, token_budget)))

    def score_rollouts(self, rollouts: Sequence[Rollout], token_budget: int = 2048) -> Tensor:
        """(R, K) normalised scores of sampled answers, on the sampled ids themselves."""
        units = [Unit(rollout.prompt_ids, (Branch(rollout.completion_ids),)) for rollout in rollouts]
        return self.score(units, token_budget)

    def save(self, folder: Path, tokenizer: Any, *, full: bool = False) -> None:
        """As `Scorer.save`, with the last layer's uncertainty where there is one."""
        super().save(folder, tokenizer, full=full)
        if self.laplace is not None:
            self.laplace.save(folder)

    def about(self) -> dict[str, Any]:
        return {"num_heads": self.heads.num_heads, "width": self.heads.width, "context": self.heads.context}

    @classmethod
    def load(cls, policy: PolicyModel, folder: Path, renderer: Renderer) -> RewardModel:
        """Load a reward run onto a base model; adapters the base already carries are shared. More in `Scorer.open_run`."""
        policy, stack, info, tensors = cls.open_run(policy, folder)
        size, context = tensors["feature_center"].shape[0], info.get("context", False)
        heads = RewardHeads(size, info["num_heads"], width=info.get("width", 0), layer=info["layer"], context=context)
        heads.load_state_dict(tensors)
        model = cls(policy, stack, heads.to(policy.device), renderer)
        model.laplace = LaplaceUncertainty.load(folder)
        return model
