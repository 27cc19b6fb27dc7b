"""Level 0: over-optimisation without any sampling of policies. Answers are atoms, so every policy is a distribution that can be written down.

An answer has six qualities, a level of detail (good up to a point, geometric), an exploit (always bad, rare) and six features that mean
nothing. Reward models learn from noisy comparisons of reference answers; best-of-n and the tilt `reference * exp(strength * proxy)` (the
optimum of a KL-regularised objective, Rafailov et al. 2023, Eq. 4) are then exact, and so are their KL and their true reward.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from accord.lab.proxies import PROXIES, Comparisons, Proxy, RewardModel, fit_members, noisy_labels, scores
from accord.objectives.mitigation import disagreement

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 16384, 65536)
STRENGTHS = (0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)


@dataclass(frozen=True)
class World:
    """Constants of the world and of its labels."""

    qualities: tuple[float, ...] = (0.5, 0.4, 0.3, 0.3, 0.2, 0.2)
    """What each quality is worth."""
    detail: tuple[float, float, float] = (0.5, -0.08, 0.45)
    """Worth of the detail and of its square, and the chance of one more."""
    exploit: tuple[float, float] = (-0.6, 0.12)
    """Worth of the exploit, and the chance of one more."""
    noise_features: int = 6
    most: tuple[int, int] = (30, 10)
    """Levels of detail and of the exploit."""
    contexts: int = 120
    """Draws of the qualities in the pool of atoms."""
    labels: int = 800
    flips: float = 0.25
    members: int = 5
    hidden: int = 48
    ridge: float = 2.0

    def gold(self, features: Tensor) -> Tensor:
        """True reward of answers. (C, F) to (C,)"""
        count = len(self.qualities)
        quality, detail, exploit = features[:, :count], features[:, count], features[:, count + 1]
        worth = torch.tensor(self.qualities, dtype=torch.float64)
        return quality @ worth + self.detail[0] * detail + self.detail[1] * detail.square() + self.exploit[0] * exploit

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Answers of the reference. (count, F)"""
        levels = [_geometric(count, rate, most, generator) for rate, most in zip((self.detail[2], self.exploit[1]), self.most, strict=True)]
        normal = torch.randn(count, len(self.qualities) + self.noise_features, generator=generator, dtype=torch.float64)
        first = len(self.qualities)
        return torch.cat([normal[:, :first], torch.stack(levels, 1), normal[:, first:]], 1)

    def compare(self, count: int, generator: torch.Generator) -> Comparisons:
        """Noisy comparisons of the reference's answers."""
        first, second = self.draw(count, generator), self.draw(count, generator)
        return Comparisons(first, second, noisy_labels(self.gold(first), self.gold(second), self.flips, generator))

    def pool(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """All atoms (A, F) and their probability under the reference (A,): contexts drawn, detail and exploit enumerated."""
        normal = torch.randn(self.contexts, len(self.qualities) + self.noise_features, generator=generator, dtype=torch.float64)
        detail, exploit = (torch.arange(most, dtype=torch.float64) for most in self.most)
        grid = torch.cartesian_prod(detail, exploit)
        weight = self.detail[2] ** grid[:, 0] * self.exploit[1] ** grid[:, 1]
        first = len(self.qualities)
        rows, levels = normal.repeat_interleave(len(grid), 0), grid.repeat(self.contexts, 1)
        features = torch.cat([rows[:, :first], levels, rows[:, first:]], 1)
        probability = weight.repeat(self.contexts)
        return features, probability / probability.sum()


def _geometric(count: int, rate: float, most: int, generator: torch.Generator) -> Tensor:
    """0, 1, 2, ... with P(k) proportional to rate^k; what lies beyond the last level is the last."""
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    return (uniform.log() / torch.tensor(rate, dtype=torch.float64).log()).floor().clamp(max=most - 1)


@dataclass(frozen=True)
class Curve:
    """What a family of policies gets, one point for each."""

    kl: list[float]
    """Nats from the reference."""
    gold: list[float]
    """True reward minus the reference's."""
    proxy: list[float]
    """The reward maximised."""
    disagreement: list[float] = field(default_factory=list)
    """Mean standard deviation over the members."""
    length: list[float] = field(default_factory=list)
    """Mean level of detail: what a reader would see as length."""


def best_of_n(probability: Tensor, chosen_by: Tensor, n: int) -> Tensor:
    """The exact distribution of the best of n by `chosen_by`: F(value)^n - F(before it)^n, shared among equals by their probability. (A,)"""
    values, place = chosen_by.unique(return_inverse=True)
    mass = torch.zeros_like(values, dtype=probability.dtype).index_add_(0, place, probability)
    powers = mass.cumsum(0).clamp(max=1.0) ** n
    found = torch.diff(powers, prepend=powers.new_zeros(1))[place] * probability / mass[place]
    return found / found.sum()


def tilted(probability: Tensor, proxy: Tensor, strength: float) -> Tensor:
    """reference * exp(strength * proxy), normalised: the optimum of E[proxy] - KL / strength. (A,)"""
    return torch.softmax(probability.log() + strength * proxy, 0)


def kl(policy: Tensor, reference: Tensor) -> float:
    """KL(policy || reference), nats."""
    some = policy > 0
    return float((policy[some] * (policy[some].log() - reference[some].log())).sum())


@dataclass
class Seed:
    """One world with its labels: atoms, members, and what each atom is worth."""

    world: World
    features: Tensor
    probability: Tensor
    gold: Tensor
    members: list[RewardModel]

    @classmethod
    def make(cls, world: World, seed: int, labels: int | None = None) -> Seed:
        generator = torch.Generator().manual_seed(seed)
        data = world.compare(labels or world.labels, generator)
        features, probability = world.pool(generator)
        members = fit_members(data, world.members, world.hidden, world.ridge, generator)
        for member in members:
            member.normalise(features, probability)
        gold = world.gold(features)
        return cls(world, features, probability, gold - (probability * gold).sum(), members)

    def curve(self, policies: list[Tensor], proxy: Tensor, table: Tensor) -> Curve:
        spread, detail = disagreement(table), self.features[:, len(self.world.qualities)]
        found = [[float((policy * values).sum()) for values in (self.gold, proxy, spread, detail)] for policy in policies]
        gold, reached, doubt, length = (list(column) for column in zip(*found, strict=True))
        return Curve([kl(policy, self.probability) for policy in policies], gold, reached, doubt, length)


def run(
    world: World | None = None, *, seeds: int = 6, proxies: dict[str, Proxy] | None = None, first_seed: int = 0
) -> dict[str, dict[str, list[Curve]]]:
    """Curves of every arm by both ways to optimise it: arm -> {"best-of-n", "tilt"} -> one curve a seed.

    The arm `gold` is the control: the true reward itself, which nothing can over-optimise.
    """
    world = world or World()
    found: dict[str, dict[str, list[Curve]]] = {}
    for number in range(first_seed, first_seed + seeds):
        seed = Seed.make(world, number)
        table = scores(seed.members, seed.features)
        arms = {name: proxy(table) for name, proxy in (PROXIES if proxies is None else proxies).items()} | {"gold": seed.gold}
        for name, proxy in arms.items():
            curves = found.setdefault(name, {"best-of-n": [], "tilt": []})
            curves["best-of-n"].append(seed.curve([best_of_n(seed.probability, proxy, n) for n in SIZES], proxy, table))
            curves["tilt"].append(seed.curve([tilted(seed.probability, proxy, s) for s in STRENGTHS], proxy, table))
    return found
