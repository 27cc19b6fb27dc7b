"""Process rewards: the loss on a step's classes, one number for a whole solution from those of its steps, and what each step earns in RL.

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

    With a probability a class, -sum_k p_k log softmax(logits)[k] (soft labels; Wang et al. 2023). Not reduced: steps that are not
    judged must not be passed in.

    Args:
        logits: one a class. (S, K)
        targets: the class of each step. (S,), int64; or the probability of each class. (S, K), adding up to 1 a step
    Returns:
        (S,)
    Raises:
        ShapeError: if the two differ in length.
    """
    if targets.shape not in (logits.shape[:1], logits.shape):
        raise ShapeError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must have the same number of steps.")
    logits = at_least_fp32(logits)
    return F.cross_entropy(logits, targets.to(logits.dtype) if targets.dim() == 2 else targets, reduction="none")


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


def softmin_return(rewards: Tensor, solution: Tensor, *, temperature: float) -> Tensor:
    """Sum of w_i r_i: the minimum, smoothed (PURE). Arguments as `softmin_weights`. (S,) to (C,).

    At least the minimum and at most the mean. K steps that are added raise it by at most T W(K / e), where W(x) e^W(x) = x, however good
    they look: 0.28 T for one, 1.2 T for ten, 2.6 T for a hundred. The sum of rewards they raise without bound.

    Proof: with x_k = (r_k - min) / T of an added step, the gain is at most T sum x_k exp(-x_k) / (1 + sum exp(-x_k)). For equal x it is
    highest where x = 1 + K exp(-x), and is then T (x - 1); unequal x with the same sum of exp(-x) give less, as -y log y is concave.
    """
    weights = softmin_weights(rewards, solution, temperature=temperature)
    return segment_sum(weights * at_least_fp32(rewards), solution, int(solution[-1]) + 1)


def soft_minimum(rewards: Tensor, solution: Tensor, *, temperature: float) -> Tensor:
    """-T log sum_i exp(-r_i / T) of each solution: at most its worst step's reward, and at least that minus T log K for K steps.

    Its gradient in r_i is w_i of `softmin_weights`. A step more, whatever its score and wherever it stands, can only lower it.
    Arguments as `softmin_weights`. (S,) to (C,)
    """
    rewards, count = _checked(rewards, solution)
    worst = minimum(rewards, solution)
    return worst - temperature * segment_sum(((worst[solution] - rewards) / temperature).exp(), solution, count).log()


def soft_minimum_credits(rewards: Tensor, solution: Tensor, *, temperature: float) -> Tensor:
    """By how much each step changes the soft minimum F of the steps so far: F(r_1 .. r_i) - F(r_1 .. r_(i-1)), F of no step being 0.

    They add up to F(r_1 .. r_K), and what is still to come at a step differs from that by the past alone, so that rewards-to-go have the
    gradient of the whole return. PURE's w_i r_i add up to nearly the same and do not: a step that follows lowers the credits before it, so
    that filler would be paid with what it takes from the others. Arguments as `softmin_weights`. (S,)
    """
    rewards, count = _checked(rewards, solution)
    steps = segment_count(solution, count)
    place = torch.arange(len(solution), device=solution.device) - (steps.cumsum(0) - steps)[solution]
    table = torch.full((count, int(steps.max())), -torch.inf, dtype=rewards.dtype, device=rewards.device)
    table[solution, place] = -rewards / temperature
    so_far = -temperature * table.logcumsumexp(1)
    return (so_far - F.pad(so_far, (1, 0))[:, :-1])[solution, place]


def step_credit_rewards(
    scores: Tensor,
    solution: Tensor,
    step_ends: Tensor,
    outcome: Tensor,
    completion: Tensor,
    *,
    temperature: float,
    verifiable_share: float,
) -> Tensor:
    """Rewards a token for RL on process rewards: `soft_minimum_credits` where steps end, and a verifiable reward where the answer ends.

    With share s an answer earns (1 - s) F(scores) + s outcome in all, F the soft minimum. Min-form rewards alone were still gamed in
    PURE's runs; a tenth of verifiable rewards prevented it (Cheng et al. 2025, arXiv:2504.15275). Filler steps raise neither what an
    answer earns nor what is to come from where they begin; an outcome that they spoil costs s.

    Args:
        scores: what the process reward model says of each step, larger is better. (S,)
        solution: which completion each step belongs to, non-decreasing, each at least once. (S,), int64
        step_ends: index on the axis (M,) of each step's last token. (S,), int64
        outcome: the verifiable reward of each completion, on the scale of `scores`. (C,)
        completion: which completion each counted token belongs to, non-decreasing, each at least once. (M,), int64
        temperature: T of the soft minimum, above 0, in the scores' unit.
        verifiable_share: s, 0 to 1. 0 leaves the outcome out, 1 the steps.
    Returns:
        reward for emitting each counted token. (M,)
    Raises:
        ShapeError: if shapes do not fit, a completion has no step, or a step ends in another completion than its own.
    """
    credits = soft_minimum_credits(scores, solution, temperature=temperature)
    outcome = at_least_fp32(outcome)
    count = int(solution[-1]) + 1
    if step_ends.shape != solution.shape or outcome.shape != (count,):
        raise ShapeError(
            f"{len(solution)} steps of {count} solutions need as many ends and outcomes, not {tuple(step_ends.shape)} and {tuple(outcome.shape)}."
        )
    last_tokens = segment_count(completion, count).cumsum(0) - 1
    if int(completion[-1]) + 1 != count or not torch.equal(completion[step_ends], solution):
        raise ShapeError("A step ends in another completion than its own, or a completion has no step.")
    rewards = torch.zeros(len(completion), dtype=credits.dtype, device=credits.device)
    rewards = rewards.index_add(0, step_ends, (1.0 - verifiable_share) * credits)
    return rewards.index_add(0, last_tokens, verifiable_share * outcome.to(credits.dtype))


def _checked(values: Tensor, solution: Tensor) -> tuple[Tensor, int]:
    """The values in at least fp32, and the number of solutions C."""
    if values.shape != solution.shape or values.dim() != 1:
        raise ShapeError(f"values {tuple(values.shape)} and solution {tuple(solution.shape)} must have the same shape (S,).")
    if len(solution) == 0 or bool((segment_count(solution, 0) == 0).any()):
        raise ShapeError("A solution without steps has no score: leave it out before.")
    return at_least_fp32(values), int(solution[-1]) + 1
