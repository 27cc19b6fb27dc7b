"""Control arms: what each rewards, and that none depends on what it must not depend on."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import pytest

from accord.errors import ConfigError
from accord.rewards.accuracy import AccuracyReward
from accord.rewards.combine import FunctionReward, combined
from accord.rewards.controls import CONTROLS, control
from accord.rewards.format import FormatReward
from accord.types import Rollout
from rewards.answers import rollout

RIGHT, WRONG, BARE = "<think>a</think><answer>5</answer>", "<think>a</think><answer>6</answer>", "#### 5"


def sources() -> list[AccuracyReward | FormatReward]:
    return [AccuracyReward(weight=2.0), FormatReward(weight=0.25)]


def iteration(texts: Sequence[str], *, step: int = 0, prompts: int = 50) -> list[Rollout]:
    return [rollout(text, prompt_id=f"p{n}", index=i, step=step, answer="5") for n in range(prompts) for i, text in enumerate(texts)]


def values(name: str, rollouts: Sequence[Rollout], seed: int = 0) -> list[float | None]:
    return [score.value for score in control(name, sources(), seed=seed).score(rollouts)]


def test_random_is_a_fair_coin_that_knows_nothing_of_the_answer() -> None:
    right, wrong = iteration([RIGHT] * 8), iteration([WRONG] * 8)
    drawn = values("random", right)
    assert set(drawn) == {0.0, 1.0}
    assert values("random", wrong) == drawn
    assert abs(statistics.mean(value or 0.0 for value in drawn) - 0.5) < 0.1  # 400 draws: four standard errors
    assert values("random", right, seed=1) != drawn
    assert values("random", iteration([RIGHT] * 8, step=1)) != drawn


def test_random_draws_are_counter_based() -> None:
    """Order, companions and what was drawn before change nothing."""
    rollouts = iteration([RIGHT, WRONG, BARE])
    drawn = values("random", rollouts)
    arm = control("random", sources())
    one_by_one = [arm.score([one])[0].value for one in reversed(rollouts)][::-1]
    assert one_by_one == drawn


def test_the_true_reward_is_logged_beside_every_control() -> None:
    """Right and in form 2 + 0.25, wrong and in form 0.25, right without form 2."""
    for name in CONTROLS:
        parts = [score.parts for score in control(name, sources()).score(iteration([RIGHT, WRONG, BARE], prompts=1))]
        assert [part["true"] for part in parts] == [2.25, 0.25, 2.0]
        assert [part["accuracy"] for part in parts] == [1.0, 0.0, 1.0]


def test_format_only_and_inverted() -> None:
    rollouts = iteration([RIGHT, WRONG, BARE], prompts=1)
    assert values("format-only", rollouts) == [0.25, 0.25, 0.0]
    assert values("inverted", rollouts) == [-2.25, -0.25, -2.0]


def test_shuffled_deals_out_the_same_rewards() -> None:
    rollouts = iteration([RIGHT, WRONG, BARE])
    true = [score.value for score in combined(sources(), rollouts)]
    dealt = values("shuffled", rollouts)
    assert sorted(value or 0.0 for value in dealt) == sorted(value or 0.0 for value in true)
    kept = sum(a == b for a, b in zip(dealt, true, strict=True)) / len(true)
    assert 0.15 < kept < 0.52  # a third by chance, 150 answers
    assert values("shuffled", rollouts[::-1])[::-1] == dealt
    assert values("shuffled", rollouts, seed=3) != dealt
    assert values("shuffled", iteration([RIGHT, WRONG, BARE], step=1)) != dealt


@pytest.mark.parametrize("processes", [2, 3])
def test_shuffled_deals_over_all_processes(processes: int) -> None:
    """Each scores its share of the prompts (the third of three has none); together they deal as one process does."""
    rollouts = [r for n in range(2) for r in iteration([[WRONG] * 3, [RIGHT] * 3][n], prompts=2) if r.prompt_id == f"p{n}"]
    whole = dict(zip(map(id, rollouts), values("shuffled", rollouts), strict=True))
    outcomes: list[Any] = []
    control("shuffled", sources(), gather=lambda mine: outcomes.extend(mine) or mine).score(rollouts)
    for rank in range(processes):
        share = [r for r in rollouts if r.prompt_id == f"p{rank}"]
        dealt = control("shuffled", sources(), gather=lambda mine: outcomes[::-1]).score(share)
        assert [score.value for score in dealt] == [whole[id(r)] for r in share]
        assert not share or len({score.value for score in dealt}) == 2  # some came from the other process


def test_failures_stay_failures_but_for_random() -> None:
    def judge(completions: list[object]) -> list[float | None]:
        return [None, *(1.0 for _ in completions[1:])]

    failing = [FunctionReward(judge), FormatReward(weight=0.25)]
    one = iteration([RIGHT, RIGHT], prompts=1)
    for name in ("inverted", "shuffled"):
        scores = control(name, failing).score(one)
        assert sorted(str(score.error) for score in scores) == ["None", "judge returned None (not scored)"]
        assert all((score.value is None) is (score.error is not None) for score in scores)
    assert control("format-only", failing).score(one)[0].value == 0.25
    assert control("random", failing).score(one)[0].value in (0.0, 1.0)


def test_a_control_is_a_source_among_others() -> None:
    arm = control("inverted", AccuracyReward())
    (score,) = combined([arm], iteration([BARE], prompts=1))
    assert score.value == -1.0
    assert score.parts["inverted/true"] == 1.0


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("upside-down", [AccuracyReward()], "no control 'upside-down'. Controls: random, format-only, inverted, shuffled"),
        ("random", [], "needs the rewards it stands in for"),
        ("format-only", [AccuracyReward()], "needs a reward called 'format' among the rewards"),
    ],
)
def test_controls_that_cannot_be(name: str, given: list[AccuracyReward], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        control(name, given)
