"""Process rewards: the loss on a step's classes, one number for a whole solution from those of its steps, and PURE's softmin credits.

Steps of several solutions lie end to end on one axis (S,); `solution` says whose each step is, as `completion` does for tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from accord.errors import ShapeError
from accord.objectives.segments import at_least_fp32, segment_count, segment_mean, segment_sum


def step_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(logits)[target] of each step, in nats (Lightman et al. 2023, arXiv:2305.20050; Wang et al. 2023, arXiv:2312.08935).

    Not reduced: steps that are not judged must not be passed in.

    Args:
        logits: one a class. (S, K)
        targets: the class of each step. (S,), int64
    Returns:
        (S,)
    Raises:
        ShapeError: if the two differ in length.
    """
    if logits.shape[:1] != targets.shape:
        raise ShapeError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must have the same number of steps.")
    return F.cross_entropy(at_least_fp32(logits), targets, reduction="none")


def step_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """1 where the target's logit is the highest, 1/n where n classes tie for it, else 0. (S, K), (S,) to (S,), float64."""
    highest = logits == logits.max(1, keepdim=True).values
    return highest.gather(1, targets[:, None])[:, 0].double() / highest.sum(1)


def minimum(values: Tensor, solution: Tensor) -> Tensor:
    """The worst step of each solution (Wang et al. 2023). A right step more cannot raise it. (S,) to (C,)."""
    values, count = _checked(values, solution)
    return values.new_zeros(count).scatter_reduce(0, solution, values, "amin", include_self=False)


def product(probabilities: Tensor, solution: Tensor) -> Tensor:
    """P(every step is right), were they independent (Lightman et al. 2023). Falls with the number of steps. (S,) to (C,)."""
    probabilities, count = _checked(probabilities, solution)
    return probabilities.new_ones(count).scatter_reduce(0, solution, probabilities, "prod")


def last(values: Tensor, solution: Tensor) -> Tensor:
    """The last step of each solution: what an outcome reward model reads. (S,) to (C,)."""
    values, count = _checked(values, solution)
    return values[segment_count(solution, count).cumsum(0) - 1]


def mean(values: Tensor, solution: Tensor) -> Tensor:
    """The mean over the steps of each solution. Right steps more dilute a wrong one. (S,) to (C,)."""
    values, count = _checked(values, solution)
    return segment_mean(values, solution, count)


def log_odds(probabilities: Tensor, solution: Tensor, *, epsilon: float = 1e-6) -> Tensor:
    """Sum of log(p / (1 - p)) over the steps of each solution, in nats. Every likely step more raises it, so it can be padded. (S,) to (C,).

    Args:
        epsilon: probabilities are held this far from 0 and 1.
    """
    probabilities, count = _checked(probabilities, solution)
    return segment_sum(torch.logit(probabilities, eps=epsilon), solution, count)


AGGREGATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "min": minimum,
    "product": product,
    "last": last,
    "mean": mean,
    "log_odds": log_odds,
}
"""How the probabilities that steps are right become one score of a solution, larger is better."""


def softmin_weights(rewards: Tensor, solution: Tensor, *, temperature: float) -> Tensor:
    """w_i = exp(-r_i / T) / sum over the solution's steps of exp(-r_j / T) (PURE; Cheng et al. 2025, arXiv:2504.15275).

    Args:
        rewards: one a step, larger is better. (S,)
        solution: which solution each step belongs to, non-decreasing. (S,), int64
        temperature: T above 0, in the rewards' unit; PURE takes 0.1. Towards 0 the worst step has all the weight, towards infinity all share it.
    Returns:
        (S,), adding up to 1 in each solution.
    Raises:
        ShapeError: if the tensors differ in length, or a solution has no step.
    """
    rewards, _ = _checked(rewards, solution)
    scaled = (minimum(rewards, solution)[solution] - rewards) / temperature
    weights = scaled.exp()
    return weights / segment_sum(weights, solution, int(solution[-1]) + 1)[solution]


def softmin_credits(rewards: Tensor, solution: Tensor, *, temperature: float) -> Tensor:
    """w_i r_i: what each step earns when a solution is worth its worst step (PURE). Arguments as `softmin_weights`. (S,)."""
    return softmin_weights(rewards, solution, temperature=temperature) * at_least_fp32(rewards)


def softmin_return(rewards: Tensor, solution: Tensor, *, temperature: float) -> Tensor:
    """Sum of the softmin credits: the minimum, smoothed. Arguments as `softmin_weights`. (S,) to (C,).

    At least the minimum and at most the mean. Steps that are added raise it by less than T / e each, however good they look; the sum of
    rewards they raise without bound.
    """
    credits = softmin_credits(rewards, solution, temperature=temperature)
    return segment_sum(credits, solution, int(solution[-1]) + 1)


def _checked(values: Tensor, solution: Tensor) -> tuple[Tensor, int]:
    """The values in at least fp32, and the number of solutions C."""
    if values.shape != solution.shape or values.dim() != 1:
        raise ShapeError(f"values {tuple(values.shape)} and solution {tuple(solution.shape)} must have the same shape (S,).")
    if len(solution) == 0 or bool((segment_count(solution, 0) == 0).any()):
        raise ShapeError("A solution without steps has no score: leave it out before.")
    return at_least_fp32(values), int(solution[-1]) + 1
