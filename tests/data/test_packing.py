"""Micro-batches: every unit once, none above the budget that could be below it, no more of them than need be, the same gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import tiny
from accord import SFTConfig, SFTTrainer
from accord.data.packing import Branch, Unit, pack_by_budget, split_by_budget
from accord.training.loop import StepBatch


def units_of(lengths: list[int]) -> list[Unit]:
    return [Unit((1,), (Branch((2,) * (length - 1)),), str(index)) for index, length in enumerate(lengths)]


BEATEN = [4, 3, 3, 4, 3, 3]
"""Longest first, 10 tokens hold 4 + 4, 3 + 3 + 3 and 3: one micro-batch more than in order."""


@given(st.lists(st.integers(2, 40), max_size=40), st.integers(1, 60))
@example(BEATEN, 10)
def test_micro_batches_in_any_order(lengths: list[int], budget: int) -> None:
    units = units_of(lengths)
    parts, in_order = pack_by_budget(units, budget), split_by_budget(units, budget)
    assert sorted(int(unit.id) for part in parts for unit in part) == list(range(len(units)))
    for part in parts:
        assert part and (len(part) == 1 or sum(unit.num_tokens for unit in part) <= budget)
        assert [unit.id for unit in part] == [unit.id for unit in units if unit in part]
    assert len(parts) <= len(in_order)
    assert parts == pack_by_budget(units_of(lengths), budget)
    assert [unit for part in in_order for unit in part] == units  # that one keeps the order, which scores are read back by


@given(st.lists(st.integers(2, 40), min_size=1, max_size=40), st.integers(40, 80))
def test_no_two_micro_batches_would_fit_into_one(lengths: list[int], budget: int) -> None:
    """What best fit promises and a cut in order does not: at most one micro-batch is half empty."""
    if pack_by_budget(units_of(lengths), budget) == split_by_budget(units_of(lengths), budget):
        return
    sizes = sorted(sum(unit.num_tokens for unit in part) for part in pack_by_budget(units_of(lengths), budget))
    assert len(sizes) < 2 or sizes[0] + sizes[1] > budget


def test_by_hand() -> None:
    """9 goes first, 7 and 3 fill one, 6 and 4 another, 2 is left over; in order they would be five."""
    assert [[unit.num_tokens for unit in part] for part in pack_by_budget(units_of([3, 9, 4, 7, 2, 6]), 10)] == [[9], [3, 7], [4, 6], [2]]
    assert len(split_by_budget(units_of([3, 9, 4, 7, 2, 6]), 10)) == 5
    assert [[unit.num_tokens for unit in part] for part in pack_by_budget(units_of(BEATEN), 10)] == [[4, 3, 3], [4, 3, 3]]
    assert [[unit.num_tokens for unit in part] for part in pack_by_budget(units_of([5, 30, 6]), 10)] == [[30], [6], [5]]
    assert pack_by_budget([], 10) == []


def test_a_step_learns_the_same_in_fewer_passes(tmp_path: Path) -> None:
    """The rows of an optimizer step are those of the sampling order, whatever micro-batches they go through in."""
    rows = tiny.demonstrations(24)
    trainer = SFTTrainer(
        tiny.policy(), SFTConfig(output_dir=str(tmp_path), learning_rate=0.0), rows, None, tiny.tokenizer(), peft_config=tiny.lora()
    )
    tiny.shake(trainer.policy, "sft")
    trainer._build_optimizer()
    trainer.token_budget = 100
    parts, in_order = trainer.micro_batches(trainer.train_units), split_by_budget(trainer.train_units, 100)
    assert len(parts) < len(in_order)
    gradients = []
    for micro_batches in (trainer.micro_batches, lambda units: split_by_budget(units, 100)):
        trainer.micro_batches = micro_batches  # type: ignore[method-assign]
        values = trainer.train_step(StepBatch(trainer.train_units))
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in trainer.parameters().values()]))
        assert values["num_tokens"] > 0
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 2e-6 and float(gradients[1].norm()) > 0


@pytest.mark.parametrize("budget", [64, 100, 1024])
def test_a_step_has_the_rows_of_the_seeded_order(budget: int, tmp_path: Path) -> None:
    config = SFTConfig(output_dir=str(tmp_path), per_device_train_batch_size=5, tokens_per_microbatch=budget, max_steps=6)
    trainer = SFTTrainer(tiny.policy(), config, tiny.demonstrations(24), None, tiny.tokenizer(), peft_config=tiny.lora())
    for step, batch in enumerate(trainer.batches(0)):
        rows = [trainer.train_units[row] for row in trainer.step_rows(step)]
        assert list(batch.units) == rows and len(rows) in (5, 4)
        assert sorted(unit.id for part in trainer.micro_batches(rows) for unit in part) == sorted(unit.id for unit in rows)
