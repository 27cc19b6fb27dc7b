"""What keeps a learned reward from being exploited, as values that PPO, GRPO and best-of-N share."""

from __future__ import annotations

from dataclasses import dataclass

from accord.errors import ConfigError

ENSEMBLES = ("mean", "worst", "uncertainty", "laplace")
SHAPES = ("none", "sigmoid", "log_sigmoid", "residual")


@dataclass
class MitigationConfig:
    """Fields of whatever optimises a reward."""

    reward_ensemble: str = "mean"
    """What is made of a reward model's heads. mean. worst: the least of them. uncertainty: mean - uncertainty_weight * their variance. laplace: mean - uncertainty_weight * the
    standard deviation of their last layer (accord reward --laplace). Heads on one backbone share its errors; members with adapters of their own: runs/a,runs/b,runs/c; rewards averaged in their weights: runs/a+runs/b."""
    uncertainty_weight: float = 1.0
    """Price of doubt in reward_ensemble uncertainty and laplace, 0 or more. 0 is the mean."""
    reward_shaping: str = "none"
    """none. sigmoid and log_sigmoid bound the reward around the reference's mean, 0: beyond it more earns ever less. residual takes away what length explains among the
    rewards of answers to one prompt, in each round anew."""

    def check_mitigation(self) -> None:
        """Whether the values are known.

        Raises:
            ConfigError: naming the field.
        """
        for name, options in (("reward_ensemble", ENSEMBLES), ("reward_shaping", SHAPES)):
            if getattr(self, name) not in options:
                raise ConfigError(f"{name}={getattr(self, name)!r} must be one of {', '.join(options)}.")
        if not self.uncertainty_weight >= 0:
            raise ConfigError(f"uncertainty_weight={self.uncertainty_weight} must be 0 or more.")
