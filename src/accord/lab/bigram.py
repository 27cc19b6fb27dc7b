"""Level 1: a tiny autoregressive language model, trained by sampled policy gradient against learned rewards; the true reward is a program.

Twelve tokens: an end, six of content, praise, filler, a rare glitch, two hedges. Good text says many different things, praises once, fills
a little, does not repeat itself, and stops. Policies are tables of logits (what comes after what), rewards read counts of tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from accord.lab.proxies import PROXIES, Comparisons, Proxy, RewardModel, fit_members, noisy_labels, scores
from accord.objectives.advantages import rloo_advantages
from accord.objectives.mitigation import disagreement

TOKENS, END, PRAISE, FILLER, GLITCH = 12, 0, 7, 8, 9
CONTENT = slice(1, 7)
LONGEST = 24
CONCISE = 12
"""Tokens beyond which more text costs."""
_SHARES = (0.14, 0.11, 0.11, 0.11, 0.11, 0.11, 0.11, 0.08, 0.08, 0.004, 0.025, 0.025)


@dataclass(frozen=True)
class Texts:
    """Sampled texts, padded with the end token."""

    tokens: Tensor
    """(C, LONGEST), int64"""
    before: Tensor
    """The token before each; TOKENS at the start. (C, LONGEST)"""
    written: Tensor
    """True for tokens the policy wrote, the end included. (C, LONGEST)"""

    def counts(self) -> Tensor:
        """How often each token was written. (C, TOKENS), float64"""
        table = torch.zeros(len(self.tokens), TOKENS, dtype=torch.float64)
        return table.scatter_add_(1, self.tokens, self.written.double())

    def repeats(self) -> Tensor:
        """Tokens that repeat the one before, ends not counted. (C,)"""
        same = (self.tokens[:, 1:] == self.tokens[:, :-1]) & self.written[:, 1:] & (self.tokens[:, 1:] != END)
        return same.sum(1).double()

    def length(self) -> Tensor:
        """(C,)"""
        return self.written.sum(1).double()

    def features(self) -> Tensor:
        """What a reward model reads: counts, a quarter of the length, repeats. (C, TOKENS + 2)"""
        return torch.cat([self.counts(), self.length()[:, None] / 4, self.repeats()[:, None]], 1)

    def gold(self) -> Tensor:
        """True reward. (C,)"""
        counts, length = self.counts(), self.length()
        said = (counts[:, CONTENT] > 0).sum(1).double()
        praise, filler = counts[:, PRAISE], counts[:, FILLER]
        once = 0.5 * praise.clamp(max=1) - 0.5 * (praise - 1).clamp(min=0)
        filled = 0.25 * filler.clamp(max=2) - 0.35 * (filler - 2).clamp(min=0)
        wrong = 0.4 * self.repeats() + counts[:, GLITCH] + 0.25 * (length - CONCISE).clamp(min=0) + 0.6 * (counts[:, END] == 0)
        return 0.6 * said + once + filled - wrong


def reference(generator: torch.Generator) -> Tensor:
    """Logits of the model before any feedback: the row TOKENS is the start. (TOKENS + 1, TOKENS)"""
    shares = torch.tensor(_SHARES, dtype=torch.float64)
    return (shares / shares.sum()).log() + 0.15 * torch.randn(TOKENS + 1, TOKENS, generator=generator, dtype=torch.float64)


def sample(logits: Tensor, count: int, generator: torch.Generator) -> Texts:
    """Texts of a policy."""
    cumulative = logits.softmax(1).cumsum(1)
    uniform = torch.rand(LONGEST, count, 1, generator=generator, dtype=torch.float64)
    last = torch.full((count,), TOKENS)
    alive = torch.ones(count, dtype=torch.bool)
    tokens, before, written = [], [], []
    for step in range(LONGEST):
        drawn = (uniform[step] > cumulative[last]).sum(1).clamp(max=TOKENS - 1)
        drawn = torch.where(alive, drawn, torch.full_like(drawn, END))
        tokens.append(drawn)
        before.append(last)
        written.append(alive)
        alive = alive & (drawn != END)
        last = torch.where(alive, drawn, last)
    return Texts(torch.stack(tokens, 1), torch.stack(before, 1), torch.stack(written, 1))


@dataclass
class Log:
    """A run, every tenth update (and the last): means over its batch."""

    kl: list[float] = field(default_factory=list)
    """Nats a text, estimated by log policy - log reference."""
    proxy: list[float] = field(default_factory=list)
    gold: list[float] = field(default_factory=list)
    length: list[float] = field(default_factory=list)
    doubt: list[float] = field(default_factory=list)
    """Disagreement of the first ensemble."""


Reward = Callable[[Texts], Tensor]


def optimise(
    reward: Reward,
    start: Tensor,
    ref: Tensor,
    generator: torch.Generator,
    *,
    updates: int,
    doubt: Reward,
    log: Log | None = None,
    beta: float = 0.0,
    batch: int = 192,
    rate: float = 0.035,
) -> tuple[Tensor, Log]:
    """Policy gradient with the mean of the other samples as baseline and -beta * KL in the reward (Ahmadian et al. 2024, RLOO).

    Returns:
        the logits after the last update, and the log (`log` goes on when given).
    """
    log = log if log is not None else Log()
    logits = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=rate, betas=(0.9, 0.99), eps=1e-4)
    ref_logprobs, group = ref.log_softmax(1), torch.zeros(batch, dtype=torch.int64)
    for update in range(updates + 1):
        texts = sample(logits.detach(), batch, generator)
        logprobs = logits.log_softmax(1)
        gaps = ((logprobs.detach() - ref_logprobs)[texts.before, texts.tokens] * texts.written).sum(1)
        proxy = reward(texts)
        if update % 10 == 0 or update == updates:
            for values, row in (
                (gaps, log.kl),
                (proxy, log.proxy),
                (texts.gold(), log.gold),
                (texts.length(), log.length),
                (doubt(texts), log.doubt),
            ):
                row.append(float(values.mean()))
        if update == updates:
            break
        advantages = rloo_advantages(proxy - beta * gaps, group)
        loss = -(advantages[:, None] * logprobs[texts.before, texts.tokens] * texts.written).sum() / batch
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return logits.detach(), log


@dataclass(frozen=True)
class World:
    """Sizes of the experiment."""

    labels: int = 500
    flips: float = 0.25
    members: int = 5
    hidden: int = 24
    ridge: float = 1.0
    updates: int = 200
    rounds: int = 4
    """Of fresh labels: the first from the reference, each later from the policy as it is then; as many labels again in each."""
    arms: tuple[tuple[str, str, float], ...] = (
        ("single", "single", 0.0),
        ("single, KL 0.05", "single", 0.05),
        ("single, KL 0.2", "single", 0.2),
        ("mean", "mean", 0.0),
        ("worst-case", "worst-case", 0.0),
        ("uncertainty-weighted", "uncertainty-weighted", 0.0),
        ("log-sigmoid", "log-sigmoid", 0.0),
    )
    """Name, entry of PROXIES, price of KL."""


def compare(logits: Tensor, count: int, flips: float, generator: torch.Generator) -> Comparisons:
    """Noisy comparisons of a policy's texts."""
    first, second = sample(logits, count, generator), sample(logits, count, generator)
    return Comparisons(first.features(), second.features(), noisy_labels(first.gold(), second.gold(), flips, generator))


def run(
    world: World | None = None, *, seeds: int = 4, first_seed: int = 0, proxies: dict[str, Proxy] | None = None
) -> dict[str, list[Log]]:
    """Logs of every arm, one a seed. Beside the arms of `world`: four times the labels at once, rounds of fresh labels, the true reward."""
    world = world or World()
    named = PROXIES if proxies is None else proxies
    found: dict[str, list[Log]] = {}
    for seed in range(first_seed, first_seed + seeds):
        generator = torch.Generator().manual_seed(seed)
        ref = reference(generator)
        labels = compare(ref, world.labels, world.flips, generator)
        members = fit_members(labels, world.members, world.hidden, world.ridge, generator)
        seen = sample(ref, 2000, generator).features()
        for member in members:
            member.normalise(seen)

        def doubt(texts: Texts, members: list[RewardModel] = members) -> Tensor:
            return disagreement(scores(members, texts.features()))

        def one_model(data: Comparisons, generator: torch.Generator = generator, seen: Tensor = seen) -> Reward:
            model = RewardModel(data.first.shape[1], world.hidden, generator).fit(data, ridge=world.ridge).normalise(seen)
            return lambda texts: model(texts.features())

        def learn(reward: Reward, beta: float = 0.0, seed: int = seed, ref: Tensor = ref, doubt: Reward = doubt) -> Log:
            own = torch.Generator().manual_seed(1000 + seed)
            return optimise(reward, ref, ref, own, updates=world.updates, doubt=doubt, beta=beta)[1]

        for name, proxy, beta in world.arms:
            combine = named[proxy]
            found.setdefault(name, []).append(learn(lambda texts, combine=combine, m=members: combine(scores(m, texts.features())), beta))
        more = labels + compare(ref, (world.rounds - 1) * world.labels, world.flips, generator)
        found.setdefault("single, all labels at once", []).append(learn(one_model(more)))
        found.setdefault("single, fresh labels each round", []).append(_rounds(world, ref, labels, one_model, doubt, generator))
        found.setdefault("gold", []).append(learn(Texts.gold))
    return found


def _rounds(
    world: World, ref: Tensor, labels: Comparisons, fit: Callable[[Comparisons], Reward], doubt: Reward, generator: torch.Generator
) -> Log:
    """The same number of updates and labels as the arm with all at once, the labels asked for where the policy is."""
    policy, log = ref, Log()
    for number in range(world.rounds):
        if number:
            labels = labels + compare(policy, world.labels, world.flips, generator)
        policy, log = optimise(fit(labels), policy, ref, generator, updates=world.updates // world.rounds, doubt=doubt, log=log)
    return log
