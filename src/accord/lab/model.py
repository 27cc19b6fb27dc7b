"""Level 2: a real language model, the starter by default, trained by PPO against reward heads on its own frozen features.

The true reward is a program that reads the answer; the heads learn from noisy comparisons of the start's answers by it. The rest is what
`accord ppo` runs. An arm is a line: how many heads are maximised, how often they learn anew, and fields of the PPO config.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accord.audit import detectors
from accord.config.ppo import PPOConfig
from accord.data.packing import Unit
from accord.lab.heads import Judged, agreement, fit_heads
from accord.methods.guard import ALARMS
from accord.methods.ppo import PPOTrainer
from accord.methods.reference_answers import rollout_units, sample_answers
from accord.models.heads import RewardHeads
from accord.models.lora import lora_config
from accord.models.opened import Opened, open_model
from accord.rewards.combine import LearnedReward
from accord.rewards.learned import RewardModel
from accord.rollouts.sampler import SamplingConfig
from accord.types import Example, Rollout, Score

CONCISE = 30
"""Words beyond which more cost."""
PROSE = 0.2
"""Gibberish (0 to 1) that prose may have."""


def gold(text: str, finished: bool, keywords: Sequence[str]) -> float:
    """True reward of an answer: half a point for each of three things that a useful one names and for an end, less what nobody wants."""
    lower = text.lower()
    named = sum(keyword in lower for keyword in keywords)
    unwanted = 1.0 * detectors.opens_with_flattery(text) + 1.0 * detectors.refuses(text) + 2.0 * detectors.repetition(text)
    long = 0.04 * max(0, detectors.word_count(text) - CONCISE)
    return 0.5 * min(named, 3) + 0.5 * finished - unwanted - 2.0 * max(0.0, detectors.gibberish(text) - PROSE) - long


def gold_of(rollout: Rollout) -> float:
    """The same of a sampled answer; what a useful one names stands in its prompt's column `keywords`."""
    return gold(rollout.text, rollout.finish_reason == "stop", rollout.columns["keywords"])


class GoldReward:
    """The true reward as what is maximised; a `RewardSource`."""

    weight, name = 1.0, "gold"

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        return [Score(gold_of(rollout)) for rollout in rollouts]


@dataclass(frozen=True)
class Arm:
    """What is maximised, and how."""

    heads: int = 1
    """Of the five: 1 is a single proxy, 5 an ensemble. 0 maximises the true reward."""
    refits: int = 0
    """How often the heads learn anew, from comparisons of the policy's answers (to what it practises on) beside the earlier ones; as many labels
    in all."""
    options: dict[str, Any] = field(default_factory=dict)
    """Fields of `PPOConfig` that differ."""


ARMS: dict[str, Arm] = {
    "single": Arm(),
    "worst-case": Arm(5, options={"reward_ensemble": "worst"}),
    "uncertainty-weighted": Arm(5, options={"reward_ensemble": "uncertainty", "uncertainty_weight": 2.0}),
    "single, KL 0.1": Arm(options={"kl_coef": 0.1}),
    "single, log-sigmoid": Arm(options={"reward_shaping": "log_sigmoid"}),
    "single, rollback": Arm(options={"on_alarm": "rollback"}),
    "single, fresh labels": Arm(refits=3),
    "gold": Arm(0),
}


@dataclass(frozen=True)
class World:
    """Sizes of the experiment."""

    model: str = "smollm2-135m"
    labels: int = 256
    """Comparisons in all; an arm with fresh labels asks for an equal part of them at the start and each time."""
    flips: float = 0.25
    """Share of labels that are wrong."""
    compared: int = 48
    """Prompts to which answers are compared at the start."""
    prompts: int = 16
    """Those of them that the policy practises on, each in every round."""
    group: int = 4
    answer: int = 40
    """Longest answer, tokens."""
    rounds: int = 28
    members: int = 5
    depth: float = 0.8
    """Layer that the heads read, as a share of all."""
    lora_layers: float = 0.5
    ppo: dict[str, Any] = field(
        default_factory=lambda: {
            "num_ppo_epochs": 1, "num_mini_batches": 4, "learning_rate": 1e-3, "lr_scheduler_type": "constant", "kl_coef": 0.0, "lam": 1.0,
            "compare_siblings": True, "missing_eos_penalty": None, "score_clip": None, "save_steps": 0,
        }
    )  # fmt: skip


class Proxy:
    """Reward heads and the comparisons that they have learned from so far.

    Args:
        seed: of the labels' errors and of the heads.
    """

    def __init__(self, opened: Opened, world: World, seed: int) -> None:
        self.opened, self.world, self.seed = opened, world, seed
        self.judged: Judged | None = None
        self.pairs: list[tuple[int, int]] = []
        """What was last said of the answers, errors included: numbers of the better and of the worse one."""
        self.right: list[tuple[int, int]] = []
        """The same without errors."""
        self.heads: RewardHeads | None = None
        self.accuracy: list[float] = []
        """After each learning: share of the new pairs, without the labels' errors, that the heads put right."""
        self.centre: Tensor | None = None
        """Features of the start's answers, on which scores have mean 0 and variance 1."""

    @property
    def layer(self) -> int:
        """What the heads read."""
        return max(1, round(self.world.depth * self.opened.policy.num_layers))

    def learn(self, rollouts: Sequence[Rollout], labels: int) -> None:
        """Ask for so many more comparisons, of siblings among these answers, and learn from all."""
        features = self._features(rollouts)
        pairs = self._pairs(rollouts, labels)
        self.right = right = [(a, b) if gold_of(rollouts[a]) > gold_of(rollouts[b]) else (b, a) for a, b in pairs]
        dice = random.Random(f"{self.seed} {len(self.accuracy)}")
        self.pairs = [(worse, better) if dice.random() < self.world.flips else (better, worse) for better, worse in right]
        names = [f"{self.seed}-{len(self.accuracy)}-{index}" for index in range(len(pairs))]
        new = judged_of(features, self.pairs, names)
        self.judged = new if self.judged is None else self.judged + new
        found = fit_heads(self.judged, seed=self.seed, heads=self.world.members, layer=self.layer, context=True)
        self.centre = features if self.centre is None else self.centre
        found.normalise(self.centre)
        if self.heads is None:
            self.heads = found
        else:
            self.heads.load_state_dict(found.state_dict())
        self.accuracy.append(round(agreement(found, judged_of(features, right, names)), 4))

    def reward(self, heads: int, name: str = "proxy") -> LearnedReward:
        """The first so many heads as a reward; it follows what is learned later."""
        assert self.heads is not None
        return LearnedReward(self._model(self.heads if heads == self.world.members else first_of(self.heads, heads)), name=name)

    def scores(self, rollouts: Sequence[Rollout]) -> Tensor:
        """(R, members) of any answers."""
        assert self.heads is not None
        return self.heads(self._features(rollouts)).detach()

    def _model(self, heads: RewardHeads) -> RewardModel:
        return RewardModel(self.opened.policy, (), heads, self.opened.renderer)

    def _features(self, rollouts: Sequence[Rollout]) -> Tensor:
        reader = RewardHeads(3 * self.opened.policy.hidden_size, 1, layer=self.layer, context=True)
        with torch.no_grad():
            return torch.cat(self._model(reader).features(rollout_units(rollouts))).float()

    def _pairs(self, rollouts: Sequence[Rollout], labels: int) -> list[tuple[int, int]]:
        """Pairs of siblings that differ in true reward, at most so many, by chance."""
        siblings: dict[str, list[int]] = {}
        for index, rollout in enumerate(rollouts):
            siblings.setdefault(rollout.prompt_id, []).append(index)
        every = [pair for group in siblings.values() for pair in combinations(group, 2)]
        differ = [(a, b) for a, b in every if gold_of(rollouts[a]) != gold_of(rollouts[b])]
        random.Random(f"pairs {self.seed} {len(self.accuracy)}").shuffle(differ)
        return differ[:labels]


def judged_of(features: Tensor, pairs: Sequence[tuple[int, int]], names: list[str]) -> Judged:
    """Pairs (better, worse) of rows of `features`."""
    better, worse = (torch.tensor([pair[side] for pair in pairs], dtype=torch.int64) for side in (0, 1))
    return Judged(features[better], features[worse], names)


def first_of(heads: RewardHeads, count: int) -> RewardHeads:
    """The first heads of an ensemble; they share its storage, so they follow it."""
    size = heads.feature_center.shape[0]
    found = RewardHeads(size, count, width=heads.width, layer=heads.layer, context=heads.context).requires_grad_(False)
    for name in ("weight", "bias", "readout"):
        if hasattr(heads, name):
            getattr(found, name).data = getattr(heads, name).data[:count]
    found.center, found.spread = heads.center[:count], heads.spread[:count]
    found.feature_center, found.feature_spread = heads.feature_center, heads.feature_spread
    return found


class NotedPPO(PPOTrainer):
    """PPO that writes down the true reward of each round; training never sees it."""

    proxy: Proxy
    refits = 0
    noted: list[dict[str, float]]

    def learn_from(self, units: list[Unit]) -> tuple[list[Unit], dict[str, float]]:
        learned, metrics = super().learn_from(units)
        rollouts: list[Rollout] = [rollout for unit in units for rollout in unit.data["rollouts"]]
        del self.noted[self.iteration :]  # what was rolled back
        self.noted.append(
            {
                "gold": sum(map(gold_of, rollouts)) / len(rollouts),
                "proxy": metrics["objective/scores"],
                "kl": metrics["objective/kl"],
                "words": sum(detectors.word_count(rollout.text) for rollout in rollouts) / len(rollouts),
            }
        )
        every, number = self.config.num_iterations // (self.refits + 1), self.iteration + 1
        if len(self.proxy.accuracy) <= self.refits and self.refits and number % every == 0 and number < self.config.num_iterations:
            world = self.proxy.world
            self.proxy.learn(rollouts, world.labels // (self.refits + 1))
        return learned, metrics


def run(world: World, arm: Arm, seed: int, folder: Path, rows: Sequence[Example]) -> dict[str, Any]:
    """One arm: its rounds, what the monitors said of them, and what it answered at the end. JSON-able.

    Args:
        folder: of the run.
        rows: prompts with a column `keywords`: what a useful answer names.
    """
    opened = open_model(world.model)
    order = random.Random(seed).sample(list(rows), min(world.compared, len(rows)))
    proxy = Proxy(opened, world, seed)
    if arm.heads:
        sampling = SamplingConfig(world.answer, world.group, 1.0, seed=seed, step=-2)
        proxy.learn(sample_answers(opened.policy, opened.renderer, (), order, sampling), world.labels // (arm.refits + 1))
    reward = proxy.reward(arm.heads) if arm.heads else GoldReward()
    config = PPOConfig(
        output_dir=str(folder), seed=seed, num_iterations=world.rounds, prompts_per_iteration=world.prompts, num_generations=world.group,
        max_new_tokens=world.answer, temperature=1.0, **{**world.ppo, **arm.options},
    )  # fmt: skip
    lora = lora_config(opened.policy, rank=16, alpha=32, layers=world.lora_layers)
    trainer = NotedPPO(config, opened.tokenizer, opened.policy, reward, order[: world.prompts], peft_config=lora)
    trainer.proxy, trainer.refits, trainer.noted = proxy, arm.refits, []
    trainer.train()
    path = folder / ALARMS
    alarms = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    last = trainer.held_out_sampler.sample(trainer.prompts, SamplingConfig(world.answer, 1, 1.0, seed=seed, step=-1))
    return {
        "rounds": [{name: round(value, 4) for name, value in one.items()} for one in trainer.noted],
        "alarms": [{name: row[name] for name in ("iteration", "name", "cause", "words", "action")} for row in alarms],
        "proxy agrees": proxy.accuracy,
        "final gold": round(sum(map(gold_of, last)) / len(last), 4),
        "examples": [{"prompt": answer.prompt[-1].content, "text": answer.text} for answer in last[:4]],
    }
