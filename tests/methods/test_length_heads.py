"""A second head that may follow length (ODIN): its slopes are those of the correlation, no cut of a step changes them, and the first lets go of length."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import tiny
from accord import RewardConfig, RewardTrainer
from accord.errors import ConfigError
from accord.models.adapters import PolicyModel
from accord.objectives.mitigation import correlation, correlation_slopes, moments
from accord.types import Completion, Example, Message


def sample(count: int = 12, heads: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, heads, generator=generator, dtype=torch.float64), torch.randint(1, 40, (count,), generator=generator).double()


def test_the_correlation_is_pearson_s() -> None:
    scores, lengths = sample()
    expected = [float(torch.corrcoef(torch.stack([scores[:, k], lengths]))[0, 1]) for k in range(3)]
    assert correlation(moments(scores, lengths)).tolist() == pytest.approx(expected, abs=1e-12)
    parts = moments(scores[:5], lengths[:5]) + moments(scores[5:], lengths[5:])
    assert torch.allclose(parts, moments(scores, lengths))
    assert correlation(moments(torch.zeros(4, 1), torch.arange(4))).item() == 0.0
    assert correlation_slopes(scores, torch.ones(12), moments(scores, torch.ones(12))).abs().sum() == 0


def test_slopes_are_the_correlation_s_gradient() -> None:
    scores, lengths = sample()
    free = scores.clone().requires_grad_()
    correlation(moments(free, lengths)).sum().backward()
    assert free.grad is not None
    assert torch.allclose(correlation_slopes(scores, lengths, moments(scores, lengths)), free.grad, atol=1e-12)


WIDTH = 32


def rows(count: int = 240) -> tuple[list[Example], dict[str, Tensor], dict[str, float]]:
    """Pairs won by length and, less, by quality. Features: quality, length, and noise; the length is the answer's own."""
    generator = torch.Generator().manual_seed(1)
    found: list[Example] = []
    features: dict[str, Tensor] = {}
    gaps: dict[str, float] = {}
    for index in range(count):
        sizes = torch.randint(4, 40, (2,), generator=generator).tolist()
        quality = torch.randn(2, generator=generator)
        table = 0.1 * torch.randn(2, WIDTH, generator=generator)
        table[:, 0], table[:, 1] = quality, (torch.tensor(sizes) - 22) / 10
        order = [0, 1] if 0.6 * quality[0] + table[0, 1] > 0.6 * quality[1] + table[1, 1] else [1, 0]
        answers = tuple(Completion((Message("assistant", "a" * sizes[i]),)) for i in order)
        row = Example("preference", (Message("user", f"Pick {index}"),), answers, where=f"row {index}")
        found.append(row)
        features[row.id] = table[order]
        gaps[row.id] = float(quality[order[0]] - quality[order[1]])
    return found, features, gaps


def trained(folder: Path, *, steps: int = 150, budget: int = 8192, **changes: object) -> RewardTrainer:
    examples, features, _ = rows()
    config = RewardConfig(
        output_dir=str(folder), backbone="heads", num_heads=2, max_steps=steps, per_device_train_batch_size=80, learning_rate=0.02,
        weight_decay=0.0, normalise=False, logging_steps=1, save_strategy="no", tokens_per_microbatch=budget, lr_scheduler_type="constant", **changes,
    )  # fmt: skip
    trainer = RewardTrainer(PolicyModel(tiny.model()), config, examples, None, tiny.tokenizer(), known_features=features)
    trainer.train()
    return trainer


def test_the_first_head_lets_go_of_length(tmp_path: Path) -> None:
    examples, features, gaps = rows()
    lengths = torch.tensor([float(len(completion.text)) for row in examples for completion in row.completions])
    ends = torch.cat([features[row.id] for row in examples])
    found = {}
    for name in (False, True):
        trainer = trained(tmp_path / str(name), length_head=name)
        scores = trainer.heads.raw(ends).detach()
        right = [(pair[0] - pair[1]) * gaps[row.id] > 0 for row, pair in zip(examples, scores.mean(1).view(-1, 2), strict=True)]
        found[name] = (float(correlation(moments(scores, lengths)).abs().max()), sum(map(bool, right)) / len(right))
    assert found[False][0] > 0.7 and found[True][0] < 0.1
    assert found[True][1] > found[False][1] + 0.08  # how often the better quality is ahead: 0.67, then 0.79


def test_a_step_cut_into_micro_batches_is_the_same_step(tmp_path: Path) -> None:
    whole, cut = (trained(tmp_path / str(budget), steps=5, budget=budget, length_head=True) for budget in (8192, 64))
    for name, parameter in whole.parameters().items():
        assert torch.allclose(parameter, cut.parameters()[name], atol=1e-5), name


def test_only_the_first_head_is_saved_and_it_scores(tmp_path: Path) -> None:
    trainer = trained(tmp_path, steps=3, length_head=True)
    trainer.save_model()
    assert "length_heads" in trainer.parameters() and set(trainer.reward_model.heads.state_dict()) == set(
        trained(tmp_path / "b", steps=1).heads.state_dict()
    )
    assert all("length_correlation" in row for row in trainer.state.log_history if "loss" in row)


@pytest.mark.parametrize("changes", [{"head_width": 4}, {"laplace": True}])
def test_what_does_not_go_with_it(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="length_head"):
        RewardConfig(length_head=True, **changes)  # type: ignore[arg-type]
