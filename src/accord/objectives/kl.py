"""KL estimators from log-probs, and controllers of its price. d = logprobs - ref_logprobs, in nats a token."""

from __future__ import annotations

from torch import Tensor

from accord.errors import ShapeError
from accord.objectives.segments import at_least_fp32


def _difference(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    if logprobs.shape != ref_logprobs.shape:
        raise ShapeError(f"logprobs {tuple(logprobs.shape)} and ref_logprobs {tuple(ref_logprobs.shape)} must have the same shape.")
    return at_least_fp32(logprobs) - at_least_fp32(ref_logprobs)


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """d: unbiased for KL(policy || reference) on the policy's own samples, sometimes negative.

    In the reward (summed to the end of the answer) its policy gradient is exactly that of the KL. As a differentiated loss its
    expected gradient is zero: it regularises nothing. (M,)
    """
    return _difference(logprobs, ref_logprobs)


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """d^2 / 2: biased as an estimate; as a loss on whole-sequence d its gradient is exactly that of the KL, token by token it is myopic. (M,)"""
    return 0.5 * _difference(logprobs, ref_logprobs) ** 2


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """exp(-d) - 1 + d: unbiased, never negative, low variance (Schulman 2020, "Approximating KL divergence").

    As a loss its gradient is that of the FORWARD KL(reference || policy). (M,)
    """
    difference = _difference(logprobs, ref_logprobs)
    return (-difference).expm1() + difference


class FixedKLController:
    """A constant price."""

    def __init__(self, value: float) -> None:
        self.value = value

    def update(self, kl_nats: float, episodes: int) -> None:
        """Nothing moves."""

    def state_dict(self) -> dict[str, float]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.value = float(state["value"])


class AdaptiveKLController(FixedKLController):
    """Steers the price so that the KL of an answer goes to `target` (Ziegler et al. 2019, section 2.2).

    error = clip(kl / target - 1, -0.2, 0.2); value *= 1 + error * episodes / horizon.

    Args:
        value: initial price.
        target: nats an answer.
        horizon: answers over which it reacts.
        clip: bound of the proportional error.
    """

    def __init__(self, value: float, target: float, horizon: int, *, clip: float = 0.2) -> None:
        super().__init__(value)
        self.target, self.horizon, self.clip = target, horizon, clip

    def update(self, kl_nats: float, episodes: int) -> None:
        """One batch of `episodes` answers had mean KL `kl_nats`."""
        error = max(-self.clip, min(self.clip, kl_nats / self.target - 1.0))
        self.value *= 1.0 + error * episodes / self.horizon
