"""The invariants that every trainer must satisfy, written once; a trainer's test class says how to build it and what it reads."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from accord.data.packing import Branch, Unit, pack
from accord.models.adapters import Want
from accord.training.loop import StepBatch
from accord.types import Completion, Example, Message

ALL_TOKENS = 10**6
ARGUMENTS: dict[str, Any] = {"learning_rate": 0.0, "max_grad_norm": 0.0, "skip_step0_checks": True, "per_device_train_batch_size": 64}
"""A step with these changes no weight and clips no gradient, so it can be repeated and compared."""


def gradients(trainer: Any, batch: StepBatch, budget: int = ALL_TOKENS) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Gradients and metrics of one optimizer step whose learning rate is 0."""
    trainer.token_budget = budget
    if trainer.optimizer is None:
        trainer._build_optimizer()
    trainer.global_step = 0
    values = trainer.train_step(batch)
    return {name: p.grad.clone() for name, p in trainer.parameters().items() if p.grad is not None}, values


def worst(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest relative L2 difference of a gradient tensor."""
    assert found.keys() == expected.keys() and found
    assert all(value.isfinite().all() for value in found.values())
    return max(float((found[name] - expected[name]).norm() / (expected[name].norm() + 1e-12)) for name in expected)


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The same gradient up to fp32 rounding: 2e-6 of its norm as a whole, 1e-5 tensor by tensor (some are sums that nearly cancel)."""
    assert worst(found, expected) < 1e-5
    flat, flat_expected = (torch.cat([gradient[name].flatten() for name in expected]) for gradient in (found, expected))
    assert float((flat - flat_expected).norm() / flat_expected.norm()) < 2e-6


def with_uncounted_tail(unit: Unit, tail: tuple[int, ...]) -> Unit:
    """The unit with tokens after its last counted one that no objective counts."""
    branches = tuple(Branch((*b.ids, *tail), (*(b.counted or (True,) * len(b.ids)), *(False,) * len(tail))) for b in unit.branches)
    data = dict(unit.data)
    if "mismatch" in data:
        data["mismatch"] = with_uncounted_tail(data["mismatch"], tail)
    return replace(unit, branches=branches, data=data)


class TrainerInvariants:
    """Subclasses give `build`; offline trainers also `rows`."""

    reads_the_last_token = False
    """True for reward models: what stands after the answer would be part of what is scored, so the renderer must cut it."""

    def rows(self) -> list[Example]:
        raise NotImplementedError

    def build(self, folder: Path, rows: list[Example], **changes: Any) -> Any:
        raise NotImplementedError

    def ready(self, folder: Path, rows: list[Example] | None = None, **changes: Any) -> Any:
        """A trainer after its precomputation, its adapter moved away from B = 0 so that every tensor has a gradient."""
        trainer = self.build(folder, self.rows() if rows is None else rows, **{**ARGUMENTS, **changes})
        trainer.before_training()
        tiny.shake(trainer.policy, *trainer.prepared.stack[-1:])
        return trainer

    def batch(self, trainer: Any) -> StepBatch:
        return StepBatch(trainer.train_units)

    def readings(self, trainer: Any, units: list[Unit]) -> list[Tensor]:
        """What the trainer reads about each unit: log-probs of its counted tokens."""
        with torch.no_grad():
            logprobs = trainer.policy.forward(pack(units), trainer.prepared.stack, Want()).logprobs
        return list(logprobs.split([unit.num_counted for unit in units]))

    # -- 1, 2: packing and micro-batches ------------------------------------------------------------------------------------------

    def test_companions_and_order_change_nothing(self, tmp_path: Path) -> None:
        trainer = self.ready(tmp_path)
        units = list(self.batch(trainer).units)
        together = self.readings(trainer, units)
        assert float(torch.cat([value.flatten() for value in together]).std()) > 1e-2  # different samples read differently
        order = list(range(len(units)))
        random.Random(1).shuffle(order)
        moved = self.readings(trainer, [units[i] for i in order])
        for index, unit in enumerate(units):
            assert torch.allclose(self.readings(trainer, [unit])[0], together[index], atol=1e-5)
            assert torch.allclose(moved[order.index(index)], together[index], atol=1e-5)

    def test_micro_batches_change_nothing(self, tmp_path: Path) -> None:
        trainer = self.ready(tmp_path)
        batch = self.batch(trainer)
        assert len({unit.num_tokens for unit in batch.units}) > 3
        whole, metrics = gradients(trainer, batch, ALL_TOKENS)
        single, single_metrics = gradients(trainer, batch, 1)
        uneven, _ = gradients(trainer, batch, max(unit.num_tokens for unit in batch.units) * 2)
        assert_equal(single, whole)
        assert_equal(uneven, whole)
        assert all(float(value.norm()) > 0 for value in whole.values())
        for name in set(metrics) - {"num_tokens"}:
            assert single_metrics[name] == pytest.approx(metrics[name], rel=1e-5, abs=1e-5), name

    # -- 3: the mask --------------------------------------------------------------------------------------------------------------

    def test_uncounted_tail_changes_nothing(self, tmp_path: Path) -> None:
        if self.reads_the_last_token:
            return self.tail_is_cut(tmp_path)
        trainer = self.ready(tmp_path)
        batch = self.batch(trainer)
        plain, values = gradients(trainer, batch)
        for tail in ((9,), (40, 41, 42, 43)):
            found, tail_values = gradients(trainer, StepBatch([with_uncounted_tail(unit, tail) for unit in batch.units]))
            assert_equal(found, plain)
            assert tail_values["loss"] == pytest.approx(values["loss"], rel=1e-6)
        return None

    def tail_is_cut(self, tmp_path: Path) -> None:
        tails = [(Message("user", text),) for text in ("Thank you", "That is not what I asked for, at all")]
        found = []
        for tail in tails:
            rows = [replace(row, completions=tuple(Completion((*c.messages, *tail)) for c in row.completions)) for row in self.rows()]
            trainer = self.ready(tmp_path, rows)
            # The bootstrap weights of several heads come from the row's id, which the tail is part of.
            units = [replace(unit, id=str(index)) for index, unit in enumerate(trainer.train_units)]
            found.append(gradients(trainer, StepBatch(units)))
        assert_equal(found[0][0], found[1][0])
        assert found[0][1]["loss"] == found[1][1]["loss"]


def equal_answers(rows: list[Example]) -> list[Example]:
    """Comparisons of an answer with itself."""
    return [replace(row, completions=(row.completions[0],) * len(row.completions)) for row in rows]
