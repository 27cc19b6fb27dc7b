"""Proximal policy optimisation: its fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from accord.config.known_names import accepts_known_names
from accord.config.online import OnlineConfig

NOT_OURS = {
    "num_train_epochs": "num_iterations (rounds of sampling) and num_ppo_epochs (passes over a round's answers)",
    "per_device_train_batch_size": "prompts_per_iteration and num_generations (their product is learned from in a round)",
    "gradient_accumulation_steps": "num_mini_batches (optimizer steps in a pass)",
}
"""Shared fields that PPO does not use, and what it has in their place."""


@accepts_known_names
@dataclass
class PPOConfig(OnlineConfig):
    """Maximise a reward near the reference. An iteration samples, scores and updates; there is no data epoch to set."""

    num_iterations: int = 12
    """Rounds of sampling and updating."""
    prompts_per_iteration: int = 8
    """Prompts answered each round."""
    num_generations: int = 4
    """Answers to each prompt; the prompt is encoded once for all of them."""
    max_new_tokens: int = 48
    """Longest answer in tokens, the end token included."""
    num_ppo_epochs: int = 2
    """Passes over each round's answers. 1 to 4."""
    num_mini_batches: int = 1
    """Optimizer steps a pass is cut into."""
    kl_coef: float = 0.05
    """beta, how strongly the policy is held to where it started: reward (of variance 1) paid for a nat of KL. 0.01 to 0.2."""
    kl_controller: str = "fixed"
    """fixed keeps kl_coef. adaptive steers it towards kl_target (Ziegler et al. 2019)."""
    kl_target: float = 6.0
    """KL in nats an answer that the adaptive controller aims for."""
    kl_horizon: int = 10000
    """Answers over which the adaptive controller reacts."""
    stop_kl: float | None = None
    """Stop after a round whose KL is above this many nats an answer. None never stops."""
    cliprange: float = 0.2
    """The policy ratio is clipped to 1 +- this."""
    cliprange_value: float | None = 0.2
    """New value estimates are clipped to the old ones +- this. None does not clip."""
    dual_clip: float | None = None
    """Bounds the loss for bad answers at this times the advantage; 3 is usual. None is off."""
    vf_coef: float = 0.1
    """Weight of the value loss."""
    gamma: float = 1.0
    """Discount a token, 0 to 1. RLHF uses 1."""
    lam: float = 0.95
    """GAE's lambda, 0 (one step) to 1 (Monte Carlo)."""
    whiten_advantages: bool = True
    """True gives advantages mean 0 and variance 1 over the round. False leaves them in reward units."""
    whiten_rewards: bool = False
    """True scales token rewards to variance 1 over the round, mean kept. False leaves them."""
    score_clip: float | None = None
    """Scores are clipped to +- this before penalties: one answer that a reward model never saw the like of (cut off, say) must not outweigh a round. 3 suits a normalised reward model. None does not clip."""
    compare_siblings: bool = False
    """True subtracts from each score the mean score of the other answers to its prompt (leave-one-out, unbiased): how hard a prompt is no longer is noise while
    the critic still learns it. False leaves that to the critic. Needs num_generations of 2 or more."""
    missing_eos_penalty: float | None = 1.0
    """Subtracted from the score of an answer that did not end by itself. None is off."""
    value: str = "head"
    """head: the critic is a head on the reference's features (cheap). adapter: it has its own adapter (about twice the update time)."""
    value_learning_rate_scale: float = 10.0
    """Multiplies the learning rate for the value head, which starts at zero and has few weights."""
    ptx_coef: float = 0.0
    """Weight of the likelihood of demonstrations (ptx_dataset, --ptx_data) mixed into each step (InstructGPT's PTX). 0 is off."""
    adam_epsilon: float = 1e-5
    """Added to AdamW's denominator: 1e-5 keeps early steps small (Huang et al. 2024)."""

    method: ClassVar[str] = "ppo"
    full_learning_rate: ClassVar[float] = 3e-6
    lora_learning_rate: ClassVar[float] = 5e-5

    @property
    def prompts_a_round(self) -> int:
        return self.prompts_per_iteration

    @property
    def passes(self) -> int:
        return self.num_ppo_epochs

    @property
    def steps_a_pass(self) -> int:
        return self.num_mini_batches

    def validate(self) -> None:
        super().validate()
        self.refuse(NOT_OURS, "PPO, which samples what it learns from")
        for name in ("num_iterations", "prompts_per_iteration", "num_generations", "max_new_tokens", "num_ppo_epochs", "num_mini_batches"):
            self.require(name, getattr(self, name) >= 1, "1 or more")
        self.require("ptx_coef", self.ptx_coef >= 0, "0 or more")
        self.require(
            "fully_shard",
            not (self.fully_shard and self.ptx_coef),
            "False with ptx_coef: processes that mix demonstrations in would pass through the model a different number of times",
        )
        self.check_answer_length()
        for name in ("kl_coef", "vf_coef", "value_learning_rate_scale"):
            self.require(name, getattr(self, name) >= 0, "0 or more")
        for name in ("kl_target", "kl_horizon"):
            self.require(name, getattr(self, name) > 0, "above 0")
        for name in ("stop_kl", "cliprange_value"):
            self.require(name, getattr(self, name) is None or getattr(self, name) > 0, "above 0, or None")
        self.require("missing_eos_penalty", self.missing_eos_penalty is None or self.missing_eos_penalty >= 0, "0 or more, or None")
        self.require("gamma", 0 <= self.gamma <= 1, "0 to 1")
        self.require("lam", 0 <= self.lam <= 1, "0 to 1")
        self.require("cliprange", self.cliprange > 0, "above 0")
        self.require("score_clip", self.score_clip is None or self.score_clip > 0, "above 0, or None")
        self.require(
            "compare_siblings",
            not self.compare_siblings or self.num_generations >= 2,
            "False with num_generations=1: there are no siblings",
        )
        self.require("dual_clip", self.dual_clip is None or self.dual_clip > 1, "above 1, or None")
        self.choice("kl_controller", ("fixed", "adaptive"))
        self.choice("value", ("head", "adapter"))
