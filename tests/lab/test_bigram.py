"""The sampled level of the lab: the order of the arms that the oracle found on two sets of seeds."""

from __future__ import annotations

import statistics

import pytest
import torch

from accord.lab.bigram import CONTENT, END, FILLER, LONGEST, PRAISE, TOKENS, Log, Texts, reference, run, sample


def texts(*rows: list[int]) -> Texts:
    """Texts written by hand; an end is added where there is room."""
    tokens = torch.zeros(len(rows), LONGEST, dtype=torch.int64)
    written = torch.zeros(len(rows), LONGEST, dtype=torch.bool)
    for index, row in enumerate(rows):
        whole = [*row, END][:LONGEST]
        tokens[index, : len(whole)] = torch.tensor(whole)
        written[index, : len(whole)] = True
    before = torch.cat([torch.full((len(rows), 1), TOKENS), tokens[:, :-1]], 1)
    return Texts(tokens, before, written)


def test_gold_by_hand() -> None:
    found = texts(
        [1, 2, 3],  # three things said: 1.8
        [1, 1, 2],  # two things, one repeat: 1.2 - 0.4
        [PRAISE, 1, PRAISE, 2, PRAISE],  # 1.2 + 0.5 - 2 * 0.5
        [FILLER, 1, FILLER, 2, FILLER],  # 1.2 + 0.5 - 0.35
        [9, 1],  # a glitch: 0.6 - 1
        [1, 2] * 12,  # 24 tokens and no end: 1.2 - 0.25 * 12 - 0.6
    )
    assert found.gold().tolist() == pytest.approx([1.8, 0.8, 0.7, 1.35, -0.4, -2.4])
    assert found.length().tolist() == [4, 4, 6, 6, 3, 24]


def test_samples_follow_the_policy() -> None:
    generator = torch.Generator().manual_seed(0)
    ref = reference(generator)
    drawn = sample(ref, 20000, generator)
    first = torch.bincount(drawn.tokens[:, 0], minlength=TOKENS) / 20000
    torch.testing.assert_close(first.double(), ref[TOKENS].softmax(0), rtol=0, atol=0.012)
    after = drawn.written & (drawn.before == 3)
    second = torch.bincount(drawn.tokens[after], minlength=TOKENS).double()
    torch.testing.assert_close(second / second.sum(), ref[3].softmax(0), rtol=0, atol=0.012)
    ended = (drawn.tokens == END) & drawn.written
    assert bool((ended.sum(1) <= 1).all())
    assert bool((drawn.counts()[:, CONTENT] >= 0).all())


@pytest.fixture(scope="module")
def arms() -> dict[str, list[Log]]:
    return run(seeds=4)


def final(logs: list[Log], name: str = "gold") -> float:
    return statistics.fmean(getattr(log, name)[-1] for log in logs)


def test_the_order_of_the_arms(arms: dict[str, list[Log]]) -> None:
    """Oracle > rounds of fresh labels > ensembles > single; the middle arms trade places between seeds and are not ranked."""
    single, rounds, gold = arms["single"], arms["single, fresh labels each round"], arms["gold"]
    assert final(single) < statistics.fmean(max(log.gold) for log in single) - 2
    for arm in ("worst-case", "uncertainty-weighted"):
        assert final(arms[arm]) > final(single) + 2
        assert final(rounds) > final(arms[arm])
    assert final(gold) > final(rounds) > final(arms["single, all labels at once"])


def test_the_proxy_hides_it(arms: dict[str, list[Log]]) -> None:
    for log in arms["single"]:
        peak = max(range(len(log.gold)), key=lambda i: log.gold[i])
        assert log.proxy[-1] > log.proxy[peak]


def test_disagreement_tells(arms: dict[str, list[Log]]) -> None:
    assert statistics.fmean(log.doubt[-1] / log.doubt[0] for log in arms["single"]) > 3


def test_the_true_reward_is_not_over_optimised(arms: dict[str, list[Log]]) -> None:
    for log in arms["gold"]:
        assert log.gold[-1] > max(log.gold) - 0.3
