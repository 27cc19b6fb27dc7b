"""Global random generators in checkpoints: a reward that draws from them scores a resumed run as it would have scored the whole one."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

import tiny
from accord import PPOConfig, PPOTrainer
from accord.training import generators


def draw() -> list[float]:
    """From every generator; the normal draw leaves half of a pair in numpy's and Python's."""
    found = [random.random(), random.gauss(0, 1), numpy.random.rand(), numpy.random.randn(), torch.rand(()).item()]
    return [*found, torch.rand((), device="cuda").item()] if torch.cuda.is_available() else found


def seed(number: int) -> None:
    random.seed(number)
    numpy.random.seed(number)
    torch.manual_seed(number)


def noisy(completions: list[Any]) -> list[float]:
    return [sum(draw()) for _ in completions]


def test_every_generator_goes_on_where_it_stood() -> None:
    seed(3)
    draw()
    saved = json.loads(json.dumps(generators.states()))
    expected = [draw(), draw()]
    seed(4)
    assert draw() not in expected
    generators.restore(saved)
    assert [draw(), draw()] == expected


def test_a_reward_that_draws_numbers_resumes_to_the_same_run(tmp_path: Path) -> None:
    def train(resume: str | None) -> list[dict[str, Any]]:
        sizes = {"prompts_per_iteration": 3, "num_generations": 2, "max_new_tokens": 5, "save_steps": 1}
        config = PPOConfig(output_dir=str(tmp_path), num_iterations=4, learning_rate=1e-3, **sizes)
        trainer = PPOTrainer(config, tiny.tokenizer(), tiny.policy(), noisy, tiny.prompts(), peft_config=tiny.lora())
        trainer.train(resume)
        return [{key: value for key, value in row.items() if not key.endswith("_seconds")} for row in trainer.log_history]

    seed(3)
    straight = train(None)
    first = sorted(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))[0]
    seed(99)
    assert train(str(first)) == straight
    assert len({row["objective/scores"] for row in straight if "objective/scores" in row}) == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_is_among_them() -> None:
    assert len(generators.states()["cuda"]) == torch.cuda.device_count()
