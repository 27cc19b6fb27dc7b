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
from accord.models.folders import read_json
from accord.models.heads import RewardHeads
from accord.models.load import load_model, resolve
from accord.models.save import REWARD, base_hash, check_base, load_stack, load_tensors, save_policy
from accord.types import Rollout
from accord.writing import whole_folder

HEADS = "reward_heads.safetensors"


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
        want = Want(logprobs=False, ends=(self.heads.reading,))
        merged = distinct(units)
        read: dict[tuple[tuple[int, ...], tuple[int, ...]], Tensor] = {}
        for part in split_by_budget(merged, token_budget):
            (ends,) = self.policy.forward(pack(part, self.policy.device), self.stack, want).ends
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

    def save(self, folder: Path, tokenizer: Any, *, full: bool = False) -> None:
        """Adapters, heads and normalisation; `accord export --sequence-classification` turns it into a transformers classifier.

        Args:
            full: True writes all weights of the model too, because the heads were trained together with them. False writes adapters
                only: the base is the one that was loaded.
        Raises:
            MachineError: if it cannot be written; the folder is then as it was.
        """
        with whole_folder(folder) as target:
            save_policy(self.policy, self.stack, tokenizer, target) if self.stack or full else tokenizer.save_pretrained(target)
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in self.heads.state_dict().items()}, target / HEADS)
            (target / REWARD).write_text(json.dumps(self._info(full), indent=1), encoding="utf-8")

    def _info(self, full: bool) -> dict[str, Any]:
        return {
            "schema": 1,
            "base": getattr(self.policy.model.config, "_name_or_path", ""),
            "base_hash": base_hash(self.policy),
            "full": full,
            "stack": list(self.stack),
            "num_heads": self.heads.num_heads,
            "width": self.heads.width,
            "layer": self.heads.layer,
            "context": self.heads.context,
        }

    @classmethod
    def load(cls, policy: PolicyModel, folder: Path, renderer: Renderer) -> RewardModel:
        """Load a reward run onto a base model; adapters the base already carries are shared.

        A run whose own weights were all trained brings them: it is a second model in memory, unless `policy` was loaded from its folder.

        Raises:
            DataError: if the folder holds no reward model, is damaged, or its model was trained on another base.
            MachineError: if a second model cannot be loaded.
        """
        path = folder / REWARD
        if not path.exists():
            raise DataError(f"{folder} holds no reward model (no {REWARD}). Train one with: accord reward --data pairs.jsonl")
        info = read_json(path)
        if info.get("full") and not _loaded_from(policy, folder):
            kind = str(policy.model.dtype).removeprefix("torch.")
            policy = PolicyModel(load_model(resolve(folder), dtype=kind, device=str(policy.device)))
        check_base(policy, info, folder)
        stack = load_stack(policy, folder, prefix="reward") if info["stack"] else ()
        tensors, context = load_tensors(folder / HEADS), info.get("context", False)
        heads = RewardHeads(
            tensors["feature_center"].shape[0], info["num_heads"], width=info.get("width", 0), layer=info["layer"], context=context
        )
        heads.load_state_dict(tensors)
        return cls(policy, stack, heads.to(policy.device), renderer)


def _loaded_from(policy: PolicyModel, folder: Path) -> bool:
    name = getattr(policy.model.config, "_name_or_path", "")
    return bool(name) and Path(name).resolve() == folder.resolve()


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
