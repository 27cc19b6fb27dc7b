"""Both layouts train alike: a model that can pack, and the same one run a row at a time, end in the same weights in every method."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

import tiny
from training.run_training import build
from training.test_processes import METHODS

STEPS = 6  # whole rounds of PPO and GRPO, which have two steps in each


@pytest.mark.parametrize("method", METHODS)
def test_packed_and_rows_give_the_same_trajectory(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    settings = {"max_steps": STEPS, "tokens_per_microbatch": 64, "eval_steps": 0, "learning_rate": 1e-3}
    make = tiny.policy
    for packed in (True, False):
        monkeypatch.setattr(tiny, "policy", partial(make, packed=packed))
        trainer = build(method, tmp_path / str(packed), [], settings)
        start = {name: parameter.detach().clone() for name, parameter in trainer.parameters().items()}
        trainer.train()
        assert trainer.policy.packed is packed
        runs.append((trainer, start))
    (ours, start), (theirs, _) = runs
    assert [row["step"] for row in ours.log_history] == [row["step"] for row in theirs.log_history] == list(range(1, STEPS + 1))
    for row, other in zip(ours.log_history, theirs.log_history, strict=True):
        assert row.keys() == other.keys()
        for name in set(row) - {"step_seconds"}:
            assert other[name] == pytest.approx(row[name], rel=1e-3, abs=1e-4), name
    moved = 0.0
    for name, parameter in ours.parameters().items():
        assert torch.allclose(theirs.parameters()[name], parameter, atol=2e-5), name
        moved = max(moved, float((parameter - start[name]).detach().abs().max()))
    assert moved > 1e-3  # or the two would agree by standing still
