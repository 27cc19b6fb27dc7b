"""Every combination of GRPO's choices that is not refused, against a second derivation in loops: the loss and its gradient in the weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from accord import GRPOConfig, GRPOTrainer
from accord.data.packing import Unit, pack
from accord.errors import ConfigError
from accord.methods.group_rewards import compared

LONGEST, BETA, CAP = 6, 0.3, 1.03
SIZES: dict[str, Any] = {"max_completion_length": LONGEST, "epsilon": 0.02, "skip_step0_checks": True, "learning_rate": 1e-3}
CHOICES: dict[str, tuple[Any, ...]] = {
    "advantage": ("group_mean", "leave_one_out", "batch_mean"),
    "scale_rewards": ("none", "batch", "group"),
    "loss_type": ("token_mean", "sequence_mean", "constant"),
    "clip": ("ppo", "cispo", "none"),
    "importance_sampling_level": ("token", "sequence"),
    "kl_in": (None, "reward", "loss_k2", "loss_k3"),
}
"""kl_in None: beta is 0."""


def combinations() -> Iterator[dict[str, Any]]:
    """All of them, as arguments of the config."""
    for values in itertools.product(*CHOICES.values()):
        options = dict(zip(CHOICES, values, strict=True))
        kl = options.pop("kl_in")
        more = {"beta": BETA, "kl_in": kl} if kl else {}
        yield {**options, **more, **({"epsilon_high": CAP} if options["clip"] == "cispo" else {})}


def advantages(groups: list[list[tuple[float, Tensor]]], options: dict[str, Any]) -> list[list[Tensor]]:
    """The advantage of each token of each answer, from rewards and the nats of KL of its tokens."""
    price = options["beta"] if options.get("kl_in") == "reward" else 0.0
    if options["advantage"] == "batch_mean":
        returns = [[torch.stack([r - price * kl[t:].sum() for t in range(len(kl))]) for r, kl in group] for group in groups]
        every = torch.cat([answer for group in returns for answer in group])
        spread = every.std(unbiased=False) + 1e-8 if options["scale_rewards"] == "batch" else 1.0
        return [[(answer - every.mean()) / spread for answer in group] for group in returns]
    charged = [torch.stack([r - price * kl.sum() for r, kl in group]) for group in groups]
    found = []
    for values, group in zip(charged, groups, strict=True):
        count = len(values)
        mine = []
        for i, (_, kl) in enumerate(group):
            others = [float(values[j]) for j in range(count) if j != i or options["advantage"] == "group_mean"]
            spread = {"none": 1.0, "group": float(values.std()) + 1e-4, "batch": float(torch.cat(charged).std()) + 1e-4}
            mine.append((values[i] - sum(others) / len(others)) / spread[options["scale_rewards"]] * torch.ones(len(kl)))
        found.append(mine)
    return found


def by_hand(units: list[Unit], logprobs: list[Tensor], options: dict[str, Any]) -> Tensor:
    """The loss of a step over these units; `logprobs` of each answer, one after the other."""
    lengths = [branch.num_counted for unit in units for branch in unit.branches]
    old, ref = (torch.cat([unit.data[name] for unit in units]).split(lengths) for name in ("old_logprobs", "ref_logprobs"))
    nats = iter([o - r for o, r in zip(old, ref, strict=True)])
    groups = [[(score.value, next(nats)) for score in unit.data["scores"]] for unit in units]
    signals = [answer for group in advantages(groups, options) for answer in group]
    answers: list[Tensor] = []
    for now, before, base, signal in zip(logprobs, old, ref, signals, strict=True):
        log_ratio = now - before
        ratio = (log_ratio.mean() if options["importance_sampling_level"] == "sequence" else log_ratio).exp() * torch.ones(len(now))
        clip = options["clip"]
        if clip == "cispo":
            loss = -ratio.detach().clamp(max=CAP) * signal * now
        elif clip == "ppo":
            loss = -torch.minimum(ratio * signal, ratio.clamp(1 - SIZES["epsilon"], 1 + SIZES["epsilon"]) * signal)
        else:
            loss = -ratio * signal
        gap = now - base
        kl = {"loss_k2": gap**2 / 2, "loss_k3": torch.exp(-gap) - 1 + gap}.get(options.get("kl_in", ""), torch.zeros(len(now)))
        answers.append(loss + options.get("beta", 0.0) * kl)
    if options["loss_type"] == "token_mean":
        return torch.cat(answers).mean()
    if options["loss_type"] == "sequence_mean":
        return torch.stack([answer.mean() for answer in answers]).mean()
    return torch.stack([answer.sum() for answer in answers]).sum() / (len(answers) * LONGEST)


def sevenths(completions: list[Any], completion_ids: list[list[int]]) -> list[float]:
    """Any number that differs within groups."""
    return [float(sum(ids) % 7) for ids in completion_ids]


def test_every_combination_is_refused_or_what_it_says(tmp_path: Path) -> None:
    """One round of real answers, the policy moved since; no two combinations have the same gradient."""
    policy = tiny.policy()
    policy.model.generation_config.eos_token_id = list(range(2, 60))  # lengths differ
    args = GRPOConfig(output_dir=str(tmp_path), num_generations=3, per_device_train_batch_size=12, beta=BETA, **SIZES)
    trainer = GRPOTrainer(policy, sevenths, args, tiny.prompts(4), processing_class=tiny.tokenizer(), peft_config=tiny.lora())
    tiny.shake(policy, "grpo", seed=3, scale=0.05)  # the reference is another policy
    units = trainer._answer(trainer.prompts, trainer._sampling(0))
    tiny.shake(policy, "grpo", seed=3, scale=0.06)  # and so is the old one
    lengths = [branch.num_counted for unit in units for branch in unit.branches]
    assert len(set(lengths)) > 2
    now = policy.forward(pack(units), trainer.stack).logprobs
    assert now is not None
    parameters = list(trainer.parameters().values())
    found: dict[str, float] = {}
    refused = 0
    for options in combinations():
        try:
            trainer.config = GRPOConfig(**SIZES, **options)
        except ConfigError:
            refused += 1
            continue
        signals = compared(units, trainer.config).split([unit.num_counted for unit in units])
        learned = [replace(unit, data={**unit.data, "advantages": own}) for unit, own in zip(units, signals, strict=True)]
        loss, _ = trainer.loss(learned, trainer.totals(learned))
        expected = by_hand(units, list(now.split(lengths)), options)
        assert float(loss) == pytest.approx(float(expected), rel=1e-4, abs=1e-6), options
        ours, theirs = (
            torch.cat([gradient.flatten() for gradient in torch.autograd.grad(value, parameters, retain_graph=True)])
            for value in (loss, expected)
        )
        assert float(theirs.norm()) > 0 and float((ours - theirs).norm() / theirs.norm()) < 1e-4, options
        found[str(options)] = float(theirs.norm())
    assert refused == 3 * 4 * 6 * 2 + 7 * 3 * 4  # two advantages scaled by the group; cispo of a sequence
    assert len(found) == 7 * 3 * 5 * 4 and len({round(value, 7) for value in found.values()}) == len(found)
