"""reasoning-gym's puzzles as prompts and its own scores of answers to them."""

from __future__ import annotations

import json

import pytest

from accord.data.gym import gym_prompts
from accord.errors import ConfigError, DataError
from accord.rewards.gym import GymReward
from rewards.answers import rollout

pytest.importorskip("reasoning_gym")


@pytest.mark.parametrize("generator", ["chain_sum", "leg_counting", "spell_backward", "countdown"])
def test_puzzles_are_scored_by_their_own_code(generator: str) -> None:
    """The generator's own answer gets 1 in every way of stating it; another one gets less."""
    prompts = gym_prompts(generator, 4, seed=7)
    reward = GymReward(timeout=60.0)
    for prompt in prompts:
        columns = json.loads(json.dumps(prompt.columns))  # as they come back from a file
        answer = columns["answer"]
        said = [
            answer,
            f"<think>hm</think><answer>{answer}</answer>",
            f"The answer is wrong.\n#### {answer}",
            "<answer>98765432</answer>",
            "",
        ]
        scores = [score.value for score in reward.score([rollout(text, **columns) for text in said])]
        assert scores[:3] == [1.0, 1.0, 1.0], answer
        assert all(value is not None and value < 0.5 for value in scores[3:])
    assert (reward.process.starts, reward.failures.failed) == (1, 0)
    reward.close()


def test_the_seed_decides() -> None:
    first, again, other = (gym_prompts("chain_sum", 5, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert {one.prompt_id for one in first}.isdisjoint(one.prompt_id for one in other)
    assert all(one.kind == "prompt" for one in first)


def test_options_reach_the_generator() -> None:
    terms = [
        prompt.prompt[0].content.count(" + ") + prompt.prompt[0].content.count(" - ")
        for prompt in gym_prompts("chain_sum", 5, min_terms=5, max_terms=5)
    ]
    assert terms == [4] * 5


@pytest.mark.parametrize(
    ("generator", "options", "message"),
    [
        ("chain_summ", {}, "no generator 'chain_summ'. Near it: .*chain_sum"),
        ("chain_sum", {"colour": 3}, "not its own"),
        ("chain_sum", {"min_terms": 9}, "does not take"),
    ],
)
def test_what_a_generator_does_not_know(generator: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gym_prompts(generator, 2, **options)


def test_rows_that_are_no_puzzles() -> None:
    reward = GymReward()
    with pytest.raises(DataError, match="has no column 'gym'"):
        reward.score([rollout("5", answer="5")])
    with pytest.raises(DataError, match="names no puzzle"):
        reward.score([rollout("5", gym={"generator": "chain_sum"})])
    reward.close()
