"""Critic-free policy gradients (GRPO and its family): four choices that make the methods, and the fields around them.

| method | advantage | scale_rewards | loss_type | clip | KL |
|---|---|---|---|---|---|
| GRPO | group_mean | group | sequence_mean | ppo | loss_k3 |
| Dr. GRPO (the defaults) | group_mean | none | constant | ppo | none |
| RLOO | leave_one_out | none | constant | ppo | reward |
| REINFORCE++ | batch_mean | batch | token_mean | ppo | reward |
| DAPO | group_mean | group | token_mean | ppo, epsilon_high | none |
| GSPO | group_mean | group | sequence_mean | ppo, sequence level | none |
| CISPO | group_mean | batch | token_mean | cispo | none |

`accord grpo --config NAME` takes a row of it as a file: `config/files/NAME.yaml`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from accord.config.known_names import accepts_known_names, notice
from accord.config.online import OnlineConfig
from accord.errors import ConfigError

LOSS_TYPES = {"grpo": "sequence_mean", "dapo": "token_mean", "bnpo": "token_mean", "dr_grpo": "constant"}
"""TRL's names of how token losses are added up, and ours."""
SCALES = {True: "group", False: "none", "True": "group", "False": "none", "true": "group", "false": "none"}


@accepts_known_names
@dataclass
class GRPOConfig(OnlineConfig):
    """Sample a group of answers to each prompt; their rewards, compared with each other, are the signal. There is no critic."""

    num_generations: int = 8
    """Answers to each prompt, compared with each other; the prompt is encoded once for all of them. 2 or more."""
    per_device_train_batch_size: int = 8
    """Answers an optimizer step learns from (times gradient_accumulation_steps), made up to whole groups. Memory does not depend on it: see tokens_per_microbatch."""
    max_completion_length: int = 256
    """Longest answer in tokens, the end token included."""
    num_iterations: int = 1
    """Passes over each round's answers (mu). 1 is on-policy: ratios are 1 and nothing is clipped."""
    steps_per_generation: int | None = None
    """Batches of per_device_train_batch_size answers sampled at once. None is gradient_accumulation_steps: one optimizer step a round."""
    advantage: str = "group_mean"
    """What an answer is compared with. group_mean: the mean of its group. leave_one_out: the mean of the others (RLOO, unbiased). batch_mean: the mean over the round,
    token by token, KL to come included (REINFORCE++)."""
    scale_rewards: str = "none"
    """none leaves advantages in reward units. group divides by the group's standard deviation: as a prompt is mastered this goes to 0, and the price of KL, beta, with it.
    batch divides by that of the round. True and False are TRL's group and none."""
    loss_type: str = "constant"
    """How token losses are added up. token_mean (DAPO): all tokens of the step count the same. sequence_mean (GRPO): all answers, so a token of a long one less. constant
    (Dr. GRPO): divided by max_completion_length, which no answer's length changes. TRL's names are taken."""
    clip: str = "ppo"
    """ppo clips the ratio to 1 - epsilon .. 1 + epsilon_high. cispo bounds the weight of each token at epsilon_high and clips no gradient away. none leaves the ratio."""
    importance_sampling_level: str = "token"
    """token: each token has its own ratio. sequence: an answer has one, the geometric mean (GSPO; epsilon is then about 3e-4)."""
    epsilon: float = 0.2
    """Ratios are clipped to 1 - epsilon below, and above where epsilon_high is None."""
    epsilon_high: float | None = None
    """Ratios are clipped to 1 + epsilon_high above (DAPO: 0.28); with clip cispo the largest weight (5). None is epsilon."""
    delta: float | None = None
    """Bounds the ratio of bad answers too, above 1 (dual clip; 3 is usual). None is off."""
    beta: float = 0.0
    """Price of a nat of KL from the start, in reward units. 0 reads no reference: KL is then measured in evaluations only."""
    kl_in: str = "reward"
    """reward subtracts beta times the answer's k1 from its reward: the gradient of the KL itself. loss_k2 and loss_k3 add the estimator to the loss token by token; loss_k3, as
    in GRPO's paper, optimises the forward KL."""
    reward_weights: list[float] | None = None
    """One weight a reward, in their order. None weighs each as it says itself (file.py:function*0.5), else 1."""
    mask_truncated_completions: bool = False
    """True learns nothing from answers that did not end by themselves (overlong filtering); they still count in the group's mean. False learns from them."""
    overlong_buffer: int = 0
    """The reward falls from 0 to -1 over this many last tokens before max_completion_length (DAPO's soft overlong penalty). 0 is off."""
    dynamic_sampling: int = 0
    """Times more prompts may be asked in a round to replace groups whose answers all earned the same, which teach nothing (DAPO). 0 keeps them."""
    curriculum: bool = False
    """True asks prompts in proportion to p (1 - p) of their last mean reward p, which must be 0 to 1; unseen ones count as p = 0.5. False asks each once an epoch."""
    verifiable_share: float | None = None
    """With a process reward model among the rewards: tokens that end a step earn what it changes of the softmin of the steps so far, times 1 - this, the last token this times the
    other rewards (0.1 and more keep the model from being gamed: PURE). Needs advantage leave_one_out. None: the model gives one number for a whole answer, as any reward."""
    softmin_temperature: float = 0.02
    """T of the softmin -T log sum exp(-p / T), in the process rewards' unit: K equally good steps are worth T log K less than one, 0.05 for ten at 0.02; towards 0 the worst step
    alone counts."""
    control: str = "none"
    """A control arm instead of the reward: random, format-only, inverted or shuffled. A gain that a control shows too is not owed to the reward. none is the reward itself."""

    method: ClassVar[str] = "grpo"
    answer_field: ClassVar[str] = "max_completion_length"
    full_learning_rate: ClassVar[float] = 1e-6
    lora_learning_rate: ClassVar[float] = 5e-5

    @property
    def answers_a_step(self) -> int:
        """What an optimizer step learns from."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    @property
    def steps_a_pass(self) -> int:
        if self.steps_per_generation is None:
            return 1
        return max(1, round(self.steps_per_generation / self.gradient_accumulation_steps))

    @property
    def prompts_a_round(self) -> int:
        """Whole groups: as many prompts as the asked number of answers needs, and one a step at least."""
        return self.steps_a_pass * math.ceil(self.answers_a_step / self.num_generations)

    @property
    def passes(self) -> int:
        return self.num_iterations

    def validate(self) -> None:
        self.loss_type = LOSS_TYPES.get(self.loss_type, self.loss_type)
        self.scale_rewards = SCALES.get(self.scale_rewards, self.scale_rewards)
        super().validate()
        if self.loss_type == "cispo":
            raise ConfigError(
                f"{type(self).__name__} has no loss_type='cispo'. Use instead: clip='cispo', epsilon_high=5, loss_type='token_mean'."
            )
        self.choice("advantage", ("group_mean", "leave_one_out", "batch_mean"))
        self.choice("scale_rewards", ("none", "batch", "group"))
        self.choice("loss_type", ("token_mean", "sequence_mean", "constant"))
        self.choice("clip", ("ppo", "cispo", "none"))
        self.choice("importance_sampling_level", ("token", "sequence"))
        self.choice("kl_in", ("reward", "loss_k2", "loss_k3"))
        self.choice("control", ("none", "random", "format-only", "inverted", "shuffled"))
        for name in ("max_completion_length", "num_iterations"):
            self.require(name, getattr(self, name) >= 1, "1 or more")
        self.require("steps_per_generation", self.steps_per_generation is None or self.steps_per_generation >= 1, "1 or more, or None")
        self.require("num_generations", self.num_generations >= 2, "2 or more: an answer is compared with its siblings")
        self.check_answer_length()
        self.require("epsilon", self.epsilon > 0, "above 0")
        self.require("epsilon_high", self.epsilon_high is None or self.epsilon_high > 0, "above 0, or None")
        self.require("delta", self.delta is None or self.delta > 1 + (self.epsilon_high or self.epsilon), "above 1 + epsilon_high, or None")
        for name in ("beta", "dynamic_sampling"):
            self.require(name, getattr(self, name) >= 0, "0 or more")
        self.require("verifiable_share", self.verifiable_share is None or 0 <= self.verifiable_share <= 1, "0 to 1, or None")
        self.require("softmin_temperature", self.softmin_temperature > 0, "above 0")
        self.require("overlong_buffer", 0 <= self.overlong_buffer < self.max_completion_length, "0 or more, below max_completion_length")
        self._check_together()
        if self.scale_rewards == "group" and self.beta and self.kl_in == "reward":
            notice(
                "scale_rewards='group' divides beta with the rewards: a nat of KL costs beta / (the group's standard deviation), "
                "and a group that agrees nearly nothing of its reward. scale_rewards='none' keeps the price.",
            )
        whole = self.prompts_a_round * self.num_generations // self.steps_a_pass
        if whole != self.answers_a_step:
            notice(
                f"An optimizer step learns from {whole} answers: whole groups of {self.num_generations}, where {self.answers_a_step} were asked for."
            )

    def _check_together(self) -> None:
        """Combinations that have no meaning, or that no test covers."""
        together = (
            (
                "clip",
                "cispo",
                self.importance_sampling_level == "sequence",
                "importance_sampling_level='sequence', which it has no use for",
            ),
            ("clip", "cispo", self.delta is not None, "delta: its weights are bounded by epsilon_high"),
            ("clip", "none", self.delta is not None, "delta: nothing is clipped"),
            ("clip", "none", self.epsilon_high is not None, "epsilon_high: nothing is clipped"),
            ("clip", "none", self.num_iterations > 1, "num_iterations above 1: unbounded ratios diverge"),
            (
                "advantage",
                "batch_mean",
                self.scale_rewards == "group",
                "scale_rewards='group': it compares with the round, so batch or none",
            ),
            ("advantage", "leave_one_out", self.scale_rewards == "group", "scale_rewards='group', which would undo it: none or batch"),
            ("advantage", "batch_mean", self.dynamic_sampling > 0, "dynamic_sampling: groups that agree are compared with the round too"),
            (
                "reward_shaping",
                self.reward_shaping,
                self.reward_shaping != "none" and self.verifiable_share is not None,
                "verifiable_share: steps are paid, not whole answers",
            ),
            (
                "control",
                self.control,
                self.control != "none" and self.verifiable_share is not None,
                "verifiable_share: credits of steps would stay true",
            ),
        )
        if self.verifiable_share is not None and self.advantage != "leave_one_out":
            raise ConfigError(
                f"{type(self).__name__}: verifiable_share needs advantage='leave_one_out': tokens are compared with siblings' at the same place."
            )
        for name, value, met, other in together:
            if getattr(self, name) == value and met:
                raise ConfigError(f"{type(self).__name__}: {name}={value!r} does not go with {other}.")
        if self.clip == "cispo" and self.epsilon_high is None:
            raise ConfigError(f"{type(self).__name__}: clip='cispo' needs epsilon_high, the largest weight of a token. 5 is usual.")


@accepts_known_names
@dataclass
class RLOOConfig(GRPOConfig):
    """REINFORCE with the mean of the other answers as the baseline, and KL in the reward (Ahmadian et al. 2024, arXiv:2402.14740)."""

    num_generations: int = 2
    """Answers to each prompt, compared with each other. 2 or more."""
    advantage: str = "leave_one_out"
    """leave_one_out: the mean of the other answers is the baseline. The others are GRPO's."""
    beta: float = 0.05
    """Price of a nat of KL from the start, in reward units. 0 reads no reference."""

    method: ClassVar[str] = "rloo"
