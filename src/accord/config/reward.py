"""Reward modelling: its fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from accord.config.heads import HeadsConfig
from accord.config.known_names import accepts_known_names


@accepts_known_names
@dataclass
class RewardConfig(HeadsConfig):
    """Learn a score from comparisons."""

    num_heads: int = 5
    """Independent heads; their mean is the score, their spread is doubt. 1 turns the ensemble off."""
    head_context: bool = False
    """True lets heads read the prompt's last token and the mean over the answer beside the answer's last token. False is the last alone."""
    loss: str = "bradley_terry"
    """bradley_terry, plackett_luce (whole rankings), davidson (ties have their own probability), robust (a known share of flipped labels).
    All take soft labels; davidson has no margins."""
    label_smoothing: float = 0.0
    """Share of labels taken to be flipped, 0 to 0.5: softens Bradley-Terry targets, is the flip rate of robust. 0 for the other losses."""
    use_margin: bool = True
    """True subtracts a row's strength (column margin) from the score gap. False ignores it."""
    center_rewards_coefficient: float | None = None
    """Weight of (r_chosen + r_rejected)^2, which keeps scores near 0; 0.01 is usual. None leaves it out."""
    confidence: float = 0.0
    """Weak-to-strong: how far labels are drawn towards what the model itself prefers, 0 up to (not including) 1; 0.5 is usual (Burns et al.
    2023). 0 learns the labels alone."""
    confidence_warmup: float = 0.2
    """Share of all steps in which `confidence` rises from 0, 0 to 1."""
    length_head: bool = False
    """True lets a second head beside each explain what length does for a comparison, so that the first need not, and keeps the first uncorrelated
    with length; the first alone is the score (ODIN, Chen et al. 2024). False trains one."""
    normalise: bool = True
    """True fixes mean 0 and variance 1 of each head afterwards, on what normalise_on says. False leaves raw scores."""
    normalise_on: str | None = None
    """samples: 64 answers of the frozen reference policy to training prompts, so that PPO starts at reward 0 and KL has one price for any
    reward model (Ziegler et al. 2019). training: the answers in the data, without sampling. None: samples, or training where full
    fine-tuning leaves no reference."""
    laplace: bool = False
    """True also keeps how sure the last layer is (Laplace's approximation), for reward_ensemble laplace in ppo, grpo and best-of-N. False does not."""
    max_new_tokens: int = 48
    """Longest answer in tokens that normalise_on="samples" draws: what PPO will draw."""
    max_prompt_length: int | None = None
    """Longest prompt in tokens, cut on the left. None cuts only by max_length."""

    method: ClassVar[str] = "reward"

    def validate(self) -> None:
        super().validate()
        self.choice("loss", ("bradley_terry", "plackett_luce", "davidson", "robust"))
        if self.normalise_on is not None:
            self.choice("normalise_on", ("samples", "training"))
        self.require("max_new_tokens", self.max_new_tokens >= 1, "1 or more")
        self.require("num_heads", self.num_heads >= 1, "1 or more")
        self.require("label_smoothing", 0 <= self.label_smoothing < 0.5, "0 up to (not including) 0.5")
        self.require("confidence", 0 <= self.confidence < 1, "0 up to (not including) 1")
        self.require("confidence_warmup", 0 <= self.confidence_warmup <= 1, "0 to 1")
        if self.loss != "bradley_terry":
            self.require("confidence", self.confidence == 0, f"0 with loss={self.loss!r}: bradley_terry alone uses it")
        if self.length_head:
            self.require("head_width", self.head_width == 0, "0 with length_head: both heads read the same features")
            self.require("laplace", not self.laplace, "False with length_head: a comparison has two heads then")
        if self.loss in ("plackett_luce", "davidson"):
            self.require("label_smoothing", self.label_smoothing == 0, f"0 with loss={self.loss!r}: bradley_terry and robust use it")
