"""Heads on the language model's hidden states: reward heads at the end of an answer, a step head at the end of each of its steps, a value
head before every token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accord.errors import ConfigError
from accord.types import content_hash

SURPRISE = 6
"""Numbers that say how likely a text was: sum, least and mean of its tokens' log-probabilities, of the part and of the completion up to its end."""


@dataclass(frozen=True)
class Reading:
    """What a head reads of a forward pass."""

    layer: int | None = None
    """Layer whose output is read: 1..L, None is the last."""
    context: bool = False
    """Put the state of the prompt's last token and the mean over the completion beside the state of its last token, in that order."""
    surprise: bool = False
    """Put `SURPRISE` numbers behind the states: how likely the model found the tokens of the part that ends here, and all up to here."""


class FeatureHeads(nn.Module):
    """What heads that read the end of an answer, or of its steps, share: what they read, and constants that standardise it.

    Args:
        hidden_size: width d of the features.
        reading: what they read of a forward pass (`Want.ends`).
    """

    feature_center: Tensor
    feature_spread: Tensor

    def __init__(self, hidden_size: int, reading: Reading) -> None:
        super().__init__()
        self.reading = reading
        self.register_buffer("feature_center", torch.zeros(hidden_size))
        self.register_buffer("feature_spread", torch.ones(hidden_size))

    @property
    def layer(self) -> int | None:
        return self.reading.layer

    @property
    def context(self) -> bool:
        return self.reading.context

    def raw(self, ends: Tensor) -> Tensor:
        """What training sees of features (C, d), before anything is made of it. (C, outputs)"""
        raise NotImplementedError

    def standardised(self, ends: Tensor) -> Tensor:
        return (ends.float() - self.feature_center) / self.feature_spread

    @torch.no_grad()
    def standardise(self, ends: Tensor) -> None:
        """Give each feature mean 0 and variance 1 on these training features (C, d): for frozen backbones, so that one learning rate
        suits every feature. Folded into the weights when exported."""
        self.feature_center.copy_(ends.float().mean(0))
        self.feature_spread.copy_(ends.float().std(0, unbiased=False).clamp_min(1e-4))


class RewardHeads(FeatureHeads):
    """K independent heads on the hidden state of a completion's last token. The score is their mean; their spread is doubt.

    A head is linear, or with `width` one hidden layer, which can say "refuse this, but not that" where a sum over features cannot.
    Heads share a backbone and its errors: their disagreement says how far the data pin the head down, no more.

    Args:
        hidden_size: width d of the features.
        num_heads: K. Each is seeded on its own and sees its own Poisson(1) weight per pair (`pair_weights`), or all become one.
        width: hidden units W of each head (GELU); 0 is linear.
        layer: layer the features come from, 1..L; None is the last.
        context: also read the prompt's last token and the mean over the completion (d is then three times the model's width): without
            them a head has only what the last token still knows of the question.
        seed: seeds the initial weights on the features, N(0, 1/(d + 1)) (Ziegler et al. 2019). Weights after a hidden layer start at 0.
    """

    center: Tensor
    spread: Tensor

    def __init__(
        self, hidden_size: int, num_heads: int = 5, *, width: int = 0, layer: int | None = None, context: bool = False, seed: int = 0
    ) -> None:
        super().__init__(hidden_size, Reading(layer, context))
        first = torch.stack([_initial(max(width, 1), hidden_size, "reward head", seed, head) for head in range(num_heads)])
        self.width, self.num_heads = width, num_heads
        self.weight = nn.Parameter(first if width else first[:, 0])
        if width:
            self.bias = nn.Parameter(torch.zeros(num_heads, width))
            self.readout = nn.Parameter(torch.zeros(num_heads, width))
        self.register_buffer("center", torch.zeros(num_heads))
        self.register_buffer("spread", torch.ones(num_heads))

    def forward(self, ends: Tensor) -> Tensor:
        """Normalised score of each head, larger is better: (C, d) to (C, K)."""
        return (self.raw(ends) - self.center) / self.spread

    def raw(self, ends: Tensor) -> Tensor:
        """Scores before normalisation: what the reward loss trains. (C, d) to (C, K)."""
        features = self.standardised(ends)
        if not self.width:
            return features @ self.weight.float().T
        hidden = F.gelu(torch.einsum("cd,kwd->ckw", features, self.weight) + self.bias)
        return (hidden * self.readout).sum(-1)

    @torch.no_grad()
    def normalise(self, ends: Tensor) -> None:
        """Fix centre and spread so that each head has mean 0 and variance 1 on these reference samples (C, d)."""
        scores = self.raw(ends)
        self.center.copy_(scores.mean(0))
        self.spread.copy_(scores.std(0, unbiased=False).clamp_min(1e-6))

    def folded(self) -> tuple[Tensor, float]:
        """One weight vector (d,) and one constant: score = weight . features + constant, equal to the mean of the normalised heads.

        Raises:
            ConfigError: if the heads have a hidden layer or read more than the last token.
        """
        if self.width:
            raise ConfigError(
                f"Reward heads with a hidden layer (head_width={self.width}) are no linear classifier. Train with head_width=0 to export one, or use the run folder with accord."
            )
        if self.context:
            raise ConfigError(
                "Reward heads that also read the prompt are no classifier of the last token. Train with head_context=False to export one, or use the run folder with accord."
            )
        weight = (self.weight / self.spread[:, None]).mean(0).detach() / self.feature_spread
        return weight, float(-(self.center / self.spread).mean() - weight @ self.feature_center)


def pair_weights(pair_ids: list[str], num_heads: int, *, seed: int = 0) -> Tensor:
    """(P, K) Poisson(1) weights from a hash of the pair's id: the bootstrap that keeps heads apart, the same in every epoch."""
    weights = torch.empty(len(pair_ids), num_heads)
    for row, pair_id in enumerate(pair_ids):
        for head in range(num_heads):
            weights[row, head] = _poisson(int(content_hash(["pair weight", seed, pair_id, head], 13), 16) / 16**13)
    return weights


def _poisson(uniform: float) -> int:
    """Poisson(1) by inverse transform."""
    count, probability = 0, 0.36787944117144233
    total = probability
    while uniform > total and count < 30:
        count += 1
        probability /= count
        total += probability
    return count


def _initial(rows: int, columns: int, *seeds: object) -> Tensor:
    """(rows, columns) weights from N(0, 1 / (columns + 1)) (Ziegler et al. 2019), a function of what they are for."""
    generator = torch.Generator().manual_seed(int(content_hash(list(seeds), 15), 16))
    return torch.randn(rows, columns, generator=generator) / (columns + 1) ** 0.5


class StepHead(FeatureHeads):
    """Class probabilities of each step of a solution, from the hidden state of the step's last token.

    Args:
        hidden_size: width d of the features.
        classes: their names; the first one means that the step is wrong.
        width: hidden units W (GELU) before the classes; 0 is linear.
        layer: layer the features come from, 1..L; None is the last.
        surprise: also read how likely the model found the step (d is then the model's width and `SURPRISE`).
        seed: seeds the initial weights, N(0, 1 / (inputs + 1)); biases start at 0.
    """

    def __init__(
        self,
        hidden_size: int,
        classes: Sequence[str],
        *,
        width: int = 0,
        layer: int | None = None,
        surprise: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(hidden_size, Reading(layer, surprise=surprise))
        self.classes, self.width = tuple(classes), width
        self.hidden = nn.Parameter(_initial(width, hidden_size, "step head", seed, "hidden")) if width else None
        self.hidden_bias = nn.Parameter(torch.zeros(width)) if width else None
        self.weight = nn.Parameter(_initial(len(self.classes), width or hidden_size, "step head", seed, "classes"))
        self.bias = nn.Parameter(torch.zeros(len(self.classes)))

    def forward(self, ends: Tensor) -> Tensor:
        """Probability of each class, (S, d) to (S, classes)."""
        return self.raw(ends).softmax(-1)

    def raw(self, ends: Tensor) -> Tensor:
        """Logits of the classes: what the step loss trains. (S, d) to (S, classes)."""
        features = self.standardised(ends)
        if self.hidden is not None:
            features = F.gelu(F.linear(features, self.hidden, self.hidden_bias))
        return F.linear(features, self.weight, self.bias)

    def right(self, ends: Tensor) -> Tensor:
        """Probability that each step is not wrong, larger is better. (S, d) to (S,)."""
        return self.raw(ends).log_softmax(-1)[:, 1:].exp().sum(-1)


class ValueHead(nn.Module):
    """The critic: expected return before each token, a linear map of its state. Starts at zero (Ziegler et al. 2019).

    Features are standardised by constants set once, on the first rollouts, so that the learning rate means the same for any model.
    """

    center: Tensor
    spread: Tensor
    ready: Tensor

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(hidden_size))
        self.bias = nn.Parameter(torch.zeros(()))
        self.register_buffer("center", torch.zeros(hidden_size))
        self.register_buffer("spread", torch.ones(hidden_size))
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def standardise(self, states: Tensor) -> None:
        """Set the constants from states (M, d), the first time only."""
        if not bool(self.ready):
            self.center.copy_(states.float().mean(0))
            self.spread.copy_(states.float().std(0, unbiased=False).clamp_min(1e-4))
            self.ready.fill_(True)

    def forward(self, states: Tensor) -> Tensor:
        """(M, d) to (M,)."""
        features = (states.float() - self.center) / self.spread
        return features @ self.weight / self.weight.shape[0] ** 0.5 + self.bias
