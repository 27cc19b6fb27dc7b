"""The reward model as an object: the same one trains, serves PPO and is loaded from a run folder, so it always reads the same tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from accord.data.packing import Branch, Unit, pack, split_by_budget
from accord.data.render import Renderer
from accord.errors import DataError
from accord.models.adapters import PolicyModel, Stack, Want
from accord.models.heads import RewardHeads
from accord.models.save import load_stack, load_tensors, save_policy
from accord.types import Rollout

HEADS = "reward_heads.safetensors"
CONFIG = "reward.json"


class RewardModel:
    """Scores completions with K heads on hidden states of the model under `stack`: of the last token, or of the prompt and answer too.

    Args:
        policy: the shared base with its adapters.
        stack: adapters the heads were trained on.
        heads: the scalar heads.
        renderer: turns prompts and answers into the tokens the heads were trained on.
    """

    def __init__(self, policy: PolicyModel, stack: Stack, heads: RewardHeads, renderer: Renderer) -> None:
        self.policy, self.stack, self.heads, self.renderer = policy, stack, heads, renderer

    @torch.no_grad()
    def features(self, units: Sequence[Unit], token_budget: int = 2048) -> list[Tensor]:
        """What the heads read: one (branches, d) tensor a unit. An answer that several units share is read once."""
        want = Want(logprobs=False, **self.heads.reading)
        merged = distinct(units)
        read: dict[tuple[tuple[int, ...], tuple[int, ...]], Tensor] = {}
        for part in split_by_budget(merged, token_budget):
            ends = self.policy.forward(pack(part, self.policy.device), self.stack, want).ends
            assert ends is not None
            answers = [(unit.prompt_ids, branch.ids) for unit in part for branch in unit.branches]
            read |= dict(zip(answers, ends.float(), strict=True))
        return [torch.stack([read[unit.prompt_ids, branch.ids] for branch in unit.branches]) for unit in units]

    def remember(self, units: Sequence[Unit], known: dict[str, Tensor], token_budget: int = 2048) -> None:
        """Add the features of these units to `known`, by id, running the backbone for those that are missing only."""
        missing = list({unit.id: unit for unit in units if unit.id not in known}.values())
        known |= dict(zip((unit.id for unit in missing), self.features(missing, token_budget), strict=True))

    @torch.no_grad()
    def score(self, units: Sequence[Unit], token_budget: int = 2048) -> Tensor:
        """(C, K) normalised scores of all completions of these units, larger is better."""
        return self.heads(torch.cat(self.features(units, token_budget)))

    def score_rollouts(self, rollouts: Sequence[Rollout], token_budget: int = 2048) -> Tensor:
        """(R, K) normalised scores of sampled answers, on the sampled ids themselves."""
        units = [Unit(rollout.prompt_ids, (Branch(rollout.completion_ids),)) for rollout in rollouts]
        return self.score(units, token_budget)

    def save(self, folder: Path, tokenizer: Any) -> None:
        """Adapters, heads and normalisation; `accord export --sequence-classification` turns it into a transformers classifier."""
        save_policy(self.policy, self.stack, tokenizer, folder) if self.stack else tokenizer.save_pretrained(folder)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in self.heads.state_dict().items()}, folder / HEADS)
        base = getattr(self.policy.model.config, "_name_or_path", "")
        info = {
            "schema": 1,
            "base": base,
            "stack": list(self.stack),
            "num_heads": self.heads.num_heads,
            "width": self.heads.width,
            "layer": self.heads.layer,
            "context": self.heads.context,
        }
        (folder / CONFIG).write_text(json.dumps(info, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, policy: PolicyModel, folder: Path, renderer: Renderer) -> RewardModel:
        """Load a reward run onto a base model; adapters the base already carries are shared.

        Raises:
            DataError: if the folder holds no reward model.
        """
        path = folder / CONFIG
        if not path.exists():
            raise DataError(f"{folder} holds no reward model (no {CONFIG}). Train one with: accord reward --data pairs.jsonl")
        info = json.loads(path.read_text(encoding="utf-8"))
        stack = load_stack(policy, folder, prefix="reward") if info["stack"] else ()
        tensors, context = load_tensors(folder / HEADS), info.get("context", False)
        heads = RewardHeads(
            tensors["feature_center"].shape[0], info["num_heads"], width=info.get("width", 0), layer=info["layer"], context=context
        )
        heads.load_state_dict(tensors)
        return cls(policy, stack, heads.to(policy.device), renderer)


def distinct(units: Sequence[Unit]) -> list[Unit]:
    """Each different prompt once, with each different answer to it once. Kept lower states come along where every answer has them."""
    found: dict[tuple[int, ...], dict[tuple[int, ...], tuple[Branch, Unit, int]]] = {}
    for unit in units:
        known = found.setdefault(unit.prompt_ids, {})
        start = len(unit.prompt_ids)
        for branch in unit.branches:
            known.setdefault(branch.ids, (Branch(branch.ids), unit, start))
            start += len(branch.ids)
    merged = []
    for prompt, answers in found.items():
        branches, sources, starts = zip(*answers.values(), strict=True)
        merged.append(Unit(prompt, branches, data=_kept(prompt, branches, sources, starts)))
    return merged


def _kept(prompt: tuple[int, ...], branches: Sequence[Branch], sources: Sequence[Unit], starts: Sequence[int]) -> dict[str, Any]:
    """The kept states of a merged unit, put together from those of the units its answers came from."""
    lower = [source.data.get("lower") for source in sources]
    first = lower[0]
    kept = [one for one in lower if one is not None]
    if first is None or len(kept) < len(lower) or any((one.layer, one.adapters) != (first.layer, first.adapters) for one in kept):
        return {}
    parts = [one.states[start : start + len(branch.ids)] for one, branch, start in zip(kept, branches, starts, strict=True)]
    return {"lower": replace(first, states=torch.cat([first.states[: len(prompt)], *parts]))}
