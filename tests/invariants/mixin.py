"""The invariants that every trainer must satisfy, written once; a trainer's test class says how to build it and what it reads."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from accord.data.packing import Branch, Unit, pack
from accord.methods.reference_answers import rollout_units
from accord.models.adapters import Want
from accord.objectives.kl import k3
from accord.objectives.policy_gradient import ppo_policy_loss
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, SamplingConfig
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
    branches = tuple(
        replace(b, ids=(*b.ids, *tail), counted=(*(b.counted or (True,) * len(b.ids)), *(False,) * len(tail))) for b in unit.branches
    )
    data = dict(unit.data)
    if "mismatch" in data:
        data["mismatch"] = with_uncounted_tail(data["mismatch"], tail)
    return replace(unit, branches=branches, data=data)


class TrainerInvariants:
    """The seven invariants. Subclasses give `build`; offline trainers also `rows`."""

    at_start: float | None = None
    """The loss before the first step, where policy and reference are one; None when it has no known value."""
    teaches_without_signal = False
    """True: part of the objective imitates, whatever the comparison says."""

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

    def without_signal(self) -> list[Example]:
        """Rows that say nothing: comparisons of an answer with itself."""
        return equal_answers(tiny.pairs())

    def at_step_0(self, trainer: Any, row: dict[str, float]) -> None:
        """What else is known of the first step's metrics."""

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
        # Rewards are beta times differences of sums of log-probs: rounding grows with beta.
        scale = max(1.0, getattr(trainer.config, "beta", 1.0))
        for name in set(metrics) - {"num_tokens"}:
            assert single_metrics[name] == pytest.approx(metrics[name], rel=1e-5, abs=1e-5 * scale), name

    def test_accumulation_is_one_batch(self, tmp_path: Path) -> None:
        """The same rows a step as 6 x 1, 2 x 3 and 1 x 6, with micro-batches of their own: the same loss and gradient norm, step by step."""

        def history(size: int, accumulation: int, budget: int) -> list[dict[str, float]]:
            batch = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "tokens_per_microbatch": budget}
            trainer = self.build(tmp_path, self.rows(), **batch, max_steps=3, learning_rate=1e-3)
            trainer.train()
            return trainer.log_history

        whole, *others = (history(*sizes) for sizes in ((6, 1, ALL_TOKENS), (2, 3, 64), (1, 6, 1)))
        assert len(whole) == 3
        for other in others:
            for row, expected in zip(other, whole, strict=True):
                for name in ("loss", "grad_norm"):
                    assert row[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6)

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
            assert tail_values["loss"] == pytest.approx(values["loss"], rel=5e-6)  # float32, summed in another order
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

    # -- 4, 5: sampler, trainer and reference are the same model -------------------------------------------------------------------

    def test_on_policy_identity(self, tmp_path: Path) -> None:
        """Right after sampling, training reads the log-probs that were sampled from: ratio 1, nothing clipped, KL to the old policy 0."""
        trainer = self.ready(tmp_path)
        stack = trainer.prepared.stack
        prompts = [Prompt(unit.id, unit.prompt_ids) for unit in trainer.train_units]
        rollouts = LocalSampler(trainer.policy, trainer.renderer, stack).sample(prompts, SamplingConfig(8, num_samples=2))
        sampled = torch.tensor([value for rollout in rollouts for value in rollout.sampler_logprobs])

        def read() -> Tensor:
            with torch.no_grad():
                found = trainer.policy.forward(pack(rollout_units(rollouts)), stack, Want()).logprobs
            assert found is not None
            return found

        now = read()
        assert float((now - sampled).abs().max()) < 1e-4
        _, clipped = ppo_policy_loss(now, sampled, torch.ones_like(now), clip=0.2)
        assert not clipped.any() and float(k3(now, sampled).mean()) < 1e-9
        if stack:  # and the check can fail: another policy disagrees
            tiny.shake(trainer.policy, stack[-1], seed=11, scale=0.3)
            assert float((read() - sampled).abs().max()) > 1e-2

    def test_reference_identity(self, tmp_path: Path) -> None:
        """Before the first step the policy is its reference, token by token, and the loss has its known value."""
        trainer = self.build(tmp_path, self.rows(), **{**ARGUMENTS, "learning_rate": 1e-4, "skip_step0_checks": False, "max_steps": 1})
        units = [Unit((5, 6, 7), (Branch((8, 9, 10, 2)), Branch((11, 2))))]
        with torch.no_grad():
            policy, reference = (
                trainer.policy.forward(pack(units), stack, Want()).logprobs
                for stack in (trainer.prepared.stack, trainer.prepared.reference)
            )
        assert torch.equal(policy, reference)
        row = trainer.train()
        if self.at_start is not None:
            assert row["loss"] == pytest.approx(self.at_start, rel=1e-4)
        self.at_step_0(trainer, row)

    # -- 6: no signal, no gradient -------------------------------------------------------------------------------------------------

    def test_zero_signal_teaches_nothing(self, tmp_path: Path) -> None:
        trainer = self.ready(tmp_path / "none", self.without_signal())
        found, values = gradients(trainer, self.batch(trainer))
        assert math.isfinite(values["loss"]) and all(gradient.isfinite().all() for gradient in found.values())
        if not self.teaches_without_signal:
            real = self.ready(tmp_path / "real")
            expected, _ = gradients(real, self.batch(real))
            assert found.keys() == expected.keys() and expected
            assert all(float(found[name].norm()) <= 1e-5 * float(expected[name].norm()) for name in found)

    # -- 7: resume -----------------------------------------------------------------------------------------------------------------

    def test_resume_equality(self, tmp_path: Path) -> None:
        """4 steps are 2 steps, a checkpoint and 2 more, bit for bit. (`training/test_resume.py` does it in a new process, after SIGKILL.)"""

        def run(resume: str | None) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
            settings = {"max_steps": 4, "save_steps": 2, "save_total_limit": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-3}
            trainer = self.build(tmp_path, self.rows(), **settings)
            trainer.train(resume)
            tensors = {**trainer.parameters(), **trainer.buffers()}
            rows = [{name: value for name, value in row.items() if not name.endswith("_seconds")} for row in trainer.log_history]
            return rows, {name: tensor.detach().clone() for name, tensor in tensors.items()}

        rows, tensors = run(None)
        again, resumed = run(str(tmp_path / "checkpoint-2"))
        assert [row["step"] for row in rows] == [1, 2, 3, 4] and again == rows
        assert len({row["loss"] for row in rows}) == 4
        assert resumed.keys() == tensors.keys() and all(torch.equal(resumed[name], tensors[name]) for name in tensors)


def equal_answers(rows: list[Example]) -> list[Example]:
    """Comparisons of an answer with itself."""
    return [replace(row, completions=(row.completions[0],) * len(row.completions)) for row in rows]
