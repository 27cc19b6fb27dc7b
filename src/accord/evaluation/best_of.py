"""What choosing the best of n answers gains: the reward chosen by, the true one, and the KL paid for it, from N answers to each prompt.

Over-optimization shows as a true reward that falls while the one chosen by rises (Gao et al. 2022, arXiv:2210.10760).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from accord.errors import DataError
from accord.evaluation.intervals import Interval, paired_bootstrap
from accord.objectives.selection import best_of_n, best_of_n_kl, best_of_n_weights, majority_vote, pass_at_k, weighted_vote


@dataclass(frozen=True)
class ScoredAnswers:
    """The N answers to one prompt, in the order in which they were drawn."""

    proxy: tuple[float | None, ...]
    """The reward chosen by; None where it gave none: such an answer is chosen only where no other is there."""
    true: tuple[float, ...] | None = None
    """What the answers are worth. None: not known."""
    finals: tuple[Hashable | None, ...] | None = None
    """The final answer of each, for votes; None in it: it has none. None: no votes."""


@dataclass(frozen=True)
class Point:
    """One n of the curve; means over prompts."""

    n: int
    kl_bound: float
    """log n - (n - 1) / n, nats."""
    proxy: float
    """Expected proxy reward of the answer chosen, over choices that have one."""
    true: Interval | None = None
    """Expected true reward of the answer chosen; the interval is a bootstrap over prompts."""
    gain: Interval | None = None
    """The same minus that of a single answer, prompt by prompt."""
    pass_at_n: float | None = None
    """P(one of n answers is right), where true rewards are 0 and 1: what a perfect choice would reach."""
    majority: Interval | None = None
    """True reward of the answer that most of n solutions give: a mean over the N // n blocks of n answers as drawn."""
    weighted: Interval | None = None
    """The same with the proxy rewards as votes."""


def sizes_up_to(count: int) -> list[int]:
    """1, 2, 4, ... and `count` itself."""
    return [*(2**power for power in range((count - 1).bit_length())), count] if count > 1 else [1]


def best_of_curve(prompts: Sequence[ScoredAnswers], *, seed: int = 0) -> list[Point]:
    """The curve over n = 1, 2, 4, ..., N.

    Args:
        prompts: all with the same number of answers, all with true rewards or none, all with final answers or none.
        seed: of the bootstrap.
    Raises:
        DataError: if there are no prompts, or no answer has a reward to be chosen by.
    """
    if not prompts:
        raise DataError("No prompt has answers whose rewards are known: there is nothing to choose from.")
    proxy = torch.tensor([[-math.inf if value is None else value for value in row.proxy] for row in prompts], dtype=torch.float64)
    if bool(proxy.isinf().all()):
        raise DataError("No answer has a reward to be chosen by. Look at the samples, and at what the reward says of them.")
    known = [row.true for row in prompts if row.true is not None]
    true = torch.tensor(known, dtype=torch.float64) if len(known) == len(prompts) else None
    binary = true is not None and bool(((true == 0) | (true == 1)).all())
    single = None if true is None else best_of_n(proxy, true, n=1)
    points: list[Point] = []
    for n in sizes_up_to(proxy.shape[1]):
        weights = best_of_n_weights(proxy, n=n)
        scored = weights * ~proxy.isinf()
        mean_proxy = float((scored * proxy.nan_to_num(neginf=0.0)).sum() / scored.sum())
        if true is None or single is None:
            points.append(Point(n, best_of_n_kl(n), mean_proxy))
            continue
        chosen = best_of_n(proxy, true, n=n)
        voted = [_votes(row, n) for row in prompts if row.finals is not None]
        majority, weighted = zip(*voted, strict=True) if voted else ((), ())
        points.append(
            Point(
                n,
                best_of_n_kl(n),
                mean_proxy,
                paired_bootstrap(chosen.tolist(), seed=seed),
                paired_bootstrap((chosen - single).tolist(), seed=seed),
                float(pass_at_k(true, k=n).mean()) if binary else None,
                paired_bootstrap(majority, seed=seed) if voted else None,
                paired_bootstrap(weighted, seed=seed) if voted else None,
            )
        )
    return points


def _votes(row: ScoredAnswers, n: int) -> tuple[float, float]:
    """True reward of the answers that win by majority and by weight, over blocks of n. A block without an answer takes its first solution's."""
    assert row.true is not None and row.finals is not None
    majority: list[float] = []
    weighted: list[float] = []
    for start in range(0, len(row.proxy) - n + 1, n):
        block = slice(start, start + n)
        finals, true = row.finals[block], row.true[block]
        for totals, winner in (
            (majority, majority_vote(finals)),
            (weighted, weighted_vote(finals, [0.0 if value is None else value for value in row.proxy[block]])),
        ):
            totals.append(true[finals.index(winner)] if winner is not None else true[0])
    return sum(majority) / len(majority), sum(weighted) / len(weighted)
