"""Heads on a model as one object: the same one trains, scores and is loaded from a run folder, so it always reads the same tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from accord.data.packing import Branch, Unit, pack, split_by_budget
from accord.errors import DataError
from accord.models.adapters import PolicyModel, Stack, Want
from accord.models.folders import read_json
from accord.models.heads import FeatureHeads
from accord.models.load import load_model, resolve, say
from accord.models.save import base_hash, check_base, load_stack, load_tensors, save_policy
from accord.writing import whole_folder

H = TypeVar("H", bound=FeatureHeads)
R = TypeVar("R")


class Scorer(Generic[H, R]):
    """What reward models and process reward models share: features, and a run folder of adapters, heads and a record of them.

    Args:
        policy: the shared base with its adapters.
        stack: adapters the heads were trained on.
        heads: what reads the model's hidden states.
        renderer: turns prompts and answers into the tokens the heads were trained on.
    """

    record: ClassVar[str]
    """The file that says what the heads are; a folder with it holds such a model."""
    tensors: ClassVar[str]
    """The file with their weights."""
    missing: ClassVar[str]
    """What a folder without the record lacks, and the command that makes one."""

    def __init__(self, policy: PolicyModel, stack: Stack, heads: H, renderer: R) -> None:
        self.policy, self.stack, self.heads, self.renderer = policy, stack, heads, renderer

    @torch.no_grad()
    def features(self, units: Sequence[Unit], token_budget: int = 2048) -> list[Tensor]:
        """What the heads read: one tensor a unit, a row for each of its branches' `places`. An answer that several units share is read once."""
        want = Want(logprobs=False, ends=(self.heads.reading,))
        merged = distinct(units)
        read: dict[tuple[tuple[int, ...], Branch], Tensor] = {}
        for part in split_by_budget(merged, token_budget):
            (ends,) = self.policy.forward(pack(part, self.policy.device), self.stack, want).ends
            answers = [(unit.prompt_ids, branch) for unit in part for branch in unit.branches]
            rows = ends.float().split([len(branch.places) for _, branch in answers])
            read |= dict(zip(answers, rows, strict=True))
        return [torch.cat([read[unit.prompt_ids, _read(branch)] for branch in unit.branches]) for unit in units]

    def remember(self, units: Sequence[Unit], known: dict[str, Tensor], token_budget: int = 2048) -> None:
        """Add the features of these units to `known`, by id, running the backbone for those that are missing only."""
        missing = list({unit.id: unit for unit in units if unit.id not in known}.values())
        known |= dict(zip((unit.id for unit in missing), self.features(missing, token_budget), strict=True))

    # -- run folders ----------------------------------------------------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """What the record says of the heads, beyond which layer they read."""
        raise NotImplementedError

    def save(self, folder: Path, tokenizer: Any, *, full: bool = False) -> None:
        """Adapters, heads and the record of both.

        Args:
            full: True writes all weights of the model too, because the heads were trained together with them. False writes adapters
                only: the base is the one that was loaded.
        Raises:
            MachineError: if it cannot be written; the folder is then as it was.
        """
        record = {
            "schema": 1,
            "base": getattr(self.policy.model.config, "_name_or_path", ""),
            "base_hash": base_hash(self.policy),
            "weights": self.policy.held,
            "full": full,
            "stack": list(self.stack),
            "layer": self.heads.layer,
            **self.about(),
        }
        with whole_folder(folder) as target:
            save_policy(self.policy, self.stack, tokenizer, target) if self.stack or full else tokenizer.save_pretrained(target)
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in self.heads.state_dict().items()}, target / self.tensors)
            (target / self.record).write_text(json.dumps(record, indent=1), encoding="utf-8")

    @classmethod
    def open_run(cls, policy: PolicyModel, folder: Path) -> tuple[PolicyModel, Stack, dict[str, Any], dict[str, Tensor]]:
        """What `load` needs: the model with the run's adapters on it, their stack, the record, and the heads' tensors.

        A run whose own weights were all trained brings them: it is a second model in memory, unless `policy` was loaded from its folder.

        Raises:
            DataError: if the folder holds no such model, is damaged, or its model was trained on another base.
            MachineError: if a second model cannot be loaded.
        """
        path = folder / cls.record
        if not path.exists():
            raise DataError(f"{folder} holds no {cls.missing}")
        record = read_json(path)
        if record.get("full") and not _loaded_from(policy, folder):
            kind = str(policy.dtype).removeprefix("torch.")
            policy = PolicyModel(load_model(resolve(folder), dtype=kind, device=str(policy.device)))
        check_base(policy, record, folder)
        ways = {record.get("weights", policy.held), policy.held}
        if len(ways) > 1 and ways != {None, "gguf"}:  # blocks of a GGUF file are held as they are
            say(
                f"{folder} was trained on a base held in {record['weights'] or 'full'}, this one is held in {policy.held or 'full'}: scores differ by that rounding."
            )
        stack = load_stack(policy, folder, prefix="reward") if record["stack"] else ()
        return policy, stack, record, load_tensors(folder / cls.tensors)


def _loaded_from(policy: PolicyModel, folder: Path) -> bool:
    name = getattr(policy.model.config, "_name_or_path", "")
    return bool(name) and Path(name).resolve() == folder.resolve()


def _read(branch: Branch) -> Branch:
    """The branch as heads read it: its tokens and where it ends, whatever an objective counts."""
    return Branch(branch.ids, ends=branch.ends)


def distinct(units: Sequence[Unit]) -> list[Unit]:
    """Each different prompt once, with each different answer to it once. Kept lower states come along where every answer has them."""
    found: dict[tuple[int, ...], dict[Branch, tuple[Unit, int]]] = {}
    for unit in units:
        known = found.setdefault(unit.prompt_ids, {})
        start = len(unit.prompt_ids)
        for branch in unit.branches:
            known.setdefault(_read(branch), (unit, start))
            start += len(branch.ids)
    merged = []
    for prompt, answers in found.items():
        branches = tuple(answers)
        sources, starts = zip(*answers.values(), strict=True)
        merged.append(Unit(prompt, branches, data=_kept(prompt, branches, sources, starts)))
    return merged


def _kept(prompt: tuple[int, ...], branches: Sequence[Branch], sources: Sequence[Unit], starts: Sequence[int]) -> dict[str, Any]:
    """The kept states of a merged unit, put together from those of the units its answers came from."""
    lower = [source.data.get("lower") for source in sources]
    first = lower[0]
    kept = [one for one in lower if one is not None]
    if first is None or len(kept) < len(lower) or any(not one.joins(first) for one in kept):
        return {}
    parts = [one.states[start : start + len(branch.ids)] for one, branch, start in zip(kept, branches, starts, strict=True)]
    return {"lower": replace(first, states=torch.cat([first.states[: len(prompt)], *parts]))}
