"""Losses that learn preferences without a reward model. Each takes summed log-probs of pairs and returns one loss a pair.

h = (chosen - ref_chosen) - (rejected - ref_rejected) is the margin; larger is better. To add one: a function here and a line in
`PREFERENCE_LOSSES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from accord.errors import ShapeError
from accord.objectives.ranking import robust_bradley_terry


@dataclass(frozen=True)
class PairLogprobs:
    """Log-probs of P pairs, summed over counted tokens (end token included), in nats."""

    chosen: Tensor
    """(P,) under the policy, with gradient."""
    rejected: Tensor
    """(P,)"""
    ref_chosen: Tensor
    """(P,) under the reference."""
    ref_rejected: Tensor
    """(P,)"""
    chosen_tokens: Tensor
    """(P,) counted tokens."""
    rejected_tokens: Tensor
    """(P,)"""

    @property
    def chosen_gain(self) -> Tensor:
        """(P,) log-ratio of the chosen answers."""
        return self.chosen - self.ref_chosen

    @property
    def rejected_gain(self) -> Tensor:
        return self.rejected - self.ref_rejected

    @property
    def margin(self) -> Tensor:
        """h (P,)"""
        return self.chosen_gain - self.rejected_gain


def sigmoid(pair: PairLogprobs, *, beta: float, label_smoothing: float = 0.0, probability: Tensor | None = None) -> Tensor:
    """DPO: -log sigmoid(beta h) (Rafailov et al. 2023, Eq. 7, arXiv:2305.18290). With label_smoothing e: -(1 - e) ls(beta h) - e ls(-beta h).

    Use it when: you have pairs and no special reason for another.

    Args:
        label_smoothing: share of labels taken to be flipped (conservative DPO, Mitchell 2023); bounds h at logit(1 - e) / beta.
        probability: soft label of each pair; None is 1. (P,)
    """
    target = torch.ones_like(pair.margin) if probability is None else probability
    target = target * (1 - label_smoothing) + (1 - target) * label_smoothing
    logits = beta * pair.margin
    return -target * F.logsigmoid(logits) - (1 - target) * F.logsigmoid(-logits)


def ipo(pair: PairLogprobs, *, beta: float) -> Tensor:
    """(h - 1 / (2 beta))^2 (Azar et al. 2023, Eq. 17, arXiv:2310.12036), on log-probs averaged over tokens, as the authors' results use them.

    Use it when: labels are nearly deterministic and DPO drives the margin without bound.
    """
    return (pair.chosen_gain / pair.chosen_tokens - pair.rejected_gain / pair.rejected_tokens - 1 / (2 * beta)) ** 2


def hinge(pair: PairLogprobs, *, beta: float) -> Tensor:
    """max(0, 1 - beta h) (SLiC, Zhao et al. 2023, arXiv:2305.10425).

    Use it when: pairs that are already ranked clearly should stop pulling.
    """
    return torch.relu(1 - beta * pair.margin)


def robust(pair: PairLogprobs, *, beta: float, label_smoothing: float, probability: Tensor | None = None) -> Tensor:
    """[(1 - e) l(beta h) - e l(-beta h)] / (1 - 2 e) (Chowdhury et al. 2024, arXiv:2403.00409): the clean risk in expectation.

    Unbounded below on a single pair: keep weight decay or stop early. Use it when: a known share e of labels is flipped.

    Args:
        label_smoothing: e, 0 up to (not including) 0.5.
        probability: soft label p of each pair: p times the loss above + (1 - p) times that of the opposite label; None is 1. (P,)
    """
    return robust_bradley_terry(beta * pair.margin, flip_rate=label_smoothing, probability=probability)


def simpo(pair: PairLogprobs, *, beta: float, gamma: float) -> Tensor:
    """-log sigmoid(beta (lp_w / n_w - lp_l / n_l) - gamma) (Meng et al. 2024, Eq. 6, arXiv:2405.14734). No reference.

    Use it when: memory or time for a reference is short, and length bias is the problem. beta 2 to 10, gamma / beta 0.3 to 0.8.
    """
    return -F.logsigmoid(beta * (pair.chosen / pair.chosen_tokens - pair.rejected / pair.rejected_tokens) - gamma)


def orpo(pair: PairLogprobs, *, beta: float) -> Tensor:
    """NLL a token of chosen - beta log sigmoid(log odds ratio), odds from mean log-probs (Hong et al. 2024, Eq. 6-7, arXiv:2403.07691). No reference.

    Use it when: starting from a base model, SFT and preferences in one go.
    """
    chosen, rejected = pair.chosen / pair.chosen_tokens, pair.rejected / pair.rejected_tokens
    log_odds = (chosen - rejected) - (log1mexp(chosen) - log1mexp(rejected))
    return -chosen - beta * F.logsigmoid(log_odds)


def apo_zero(pair: PairLogprobs, *, beta: float) -> Tensor:
    """1 - sigmoid(beta D_w) + sigmoid(beta D_l) (D'Oosterlinck et al. 2024, arXiv:2408.06266).

    Use it when: chosen answers are better than what the model writes now, and their likelihood should rise.
    """
    return 1 - torch.sigmoid(beta * pair.chosen_gain) + torch.sigmoid(beta * pair.rejected_gain)


def sigmoid_norm(pair: PairLogprobs, *, beta: float) -> Tensor:
    """-log sigmoid(beta (D_w / n_w - D_l / n_l)): length-normalised DPO (Lambert et al. 2024, Tulu 3). beta about 5.

    Use it when: chosen answers are systematically longer and the policy starts to ramble.
    """
    return -F.logsigmoid(beta * (pair.chosen_gain / pair.chosen_tokens - pair.rejected_gain / pair.rejected_tokens))


PREFERENCE_LOSSES: dict[str, Callable[..., Tensor]] = {
    "sigmoid": sigmoid,
    "ipo": ipo,
    "hinge": hinge,
    "robust": robust,
    "simpo": simpo,
    "orpo": orpo,
    "apo_zero": apo_zero,
    "sigmoid_norm": sigmoid_norm,
}
REFERENCE_FREE = frozenset({"simpo", "orpo"})
"""Losses that never look at the reference."""


def kto(
    logratio: Tensor, desirable: Tensor, baseline: Tensor, *, beta: float, desirable_weight: float = 1.0, undesirable_weight: float = 1.0
) -> Tensor:
    """w (1 - sigmoid(beta (D - z0))) for desirable answers, w (1 - sigmoid(beta (z0 - D))) for others (Ethayarajh et al. 2024, Eq. 8, arXiv:2402.01306).

    Use it when: answers were judged alone (thumbs up or down), not in pairs.

    Args:
        logratio: D = log pi - log ref, summed over each answer. (C,)
        desirable: (C,), bool
        baseline: z0 >= 0, the KL estimate over the batch; detached here. Scalar.
    Returns:
        (C,)
    Raises:
        ShapeError: if logratio and desirable differ in shape.
    """
    if logratio.shape != desirable.shape:
        raise ShapeError(f"logratio {tuple(logratio.shape)} and desirable {tuple(desirable.shape)} must have the same shape (C,).")
    gap = torch.where(desirable, logratio - baseline.detach(), baseline.detach() - logratio)
    weight = torch.where(desirable, desirable_weight, undesirable_weight).to(gap.dtype)
    return weight * (1 - torch.sigmoid(beta * gap))


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0 without cancellation (Maechler 2012); x is kept below -1e-7 so that certainty stays finite."""
    x = x.clamp_max(-1e-7)
    return torch.where(x > -0.6931472, torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))
