"""What DPO reads: the reference once and exactly, the same prompt for both answers, whole answers; and a loss that is not built in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tiny
from accord import DPOConfig, DPOTrainer
from accord.data.packing import Branch, Unit, pack
from accord.data.render import Renderer
from accord.models.adapters import Want
from accord.objectives.preference import PairLogprobs
from accord.objectives.segments import segment_sum


def trainer(folder: Path, ref_model: Any = None, made: type[DPOTrainer] = DPOTrainer, **options: Any) -> DPOTrainer:
    args = DPOConfig(output_dir=str(folder), per_device_train_batch_size=9, **{"learning_rate": 1e-2, "max_steps": 3, **options})
    return made(tiny.policy(), ref_model, args, tiny.pairs(), processing_class=tiny.tokenizer(), peft_config=tiny.lora())


def test_the_precomputed_reference_is_the_online_one(tmp_path: Path) -> None:
    """To the last bit, after training has moved the policy: read pair by pair from the stack without the new adapter, or from a frozen copy."""
    trained, against_a_copy = (trainer(tmp_path, ref, tokens_per_microbatch=1) for ref in (None, tiny.model()))
    trained.train()
    against_a_copy.train()
    for unit, same in zip(trained.train_units, against_a_copy.train_units, strict=True):
        batch = pack([unit])
        with torch.no_grad():
            online, moved = (trained.policy.forward(batch, stack, Want()).logprobs for stack in ((), ("dpo",)))
        assert unit.data["reference"] == tuple(segment_sum(online, batch.completion, 2).tolist())
        assert unit.data["reference"] == same.data["reference"]
        assert abs(float(segment_sum(moved, batch.completion, 2)[0]) - unit.data["reference"][0]) > 1e-3
    assert [row["loss"] for row in trained.log_history] == [row["loss"] for row in against_a_copy.log_history]


class DPOP(DPOTrainer):
    """A loss of one's own is one function: DPO-Positive (Pal et al. 2024), which lets no chosen answer fall below the reference for nothing."""

    def pair_losses(self, pair: PairLogprobs, units: Sequence[Unit]) -> Tensor:
        fallen = (pair.ref_chosen - pair.chosen).clamp_min(0)
        return -F.logsigmoid(self.config.beta * (pair.margin - 50.0 * fallen))


def test_a_loss_of_your_own(tmp_path: Path) -> None:
    """It trains, and does what it is for: DPO drives both answers down here, DPOP keeps the chosen ones up."""
    theirs, ours = (trainer(tmp_path, made=made, max_steps=20, learning_rate=3e-3) for made in (DPOTrainer, DPOP))
    theirs.train()
    ours.train()
    assert ours.log_history[0]["loss"] == pytest.approx(theirs.log_history[0]["loss"], abs=1e-3)
    chosen = [run.log_history[-1]["logps/chosen"] - run.log_history[0]["logps/chosen"] for run in (theirs, ours)]
    assert chosen[1] > chosen[0] + 0.1


# -- rows -------------------------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 60), st.one_of(st.none(), st.integers(1, 20)), st.integers(0, 8))
def test_truncation_never_removes_an_answer(max_length: int, max_prompt_length: int | None, row: int) -> None:
    """Whatever the limits: at least one counted token of each answer, the same prompt before both, the end token at most once, at the end."""
    renderer = Renderer(tiny.tokenizer(), max_length=max_length, max_prompt_length=max_prompt_length)
    whole = Renderer(tiny.tokenizer()).unit(tiny.pairs()[row])
    unit = renderer.unit(tiny.pairs()[row])
    assert unit.prompt_ids and unit.prompt_ids == whole.prompt_ids[-len(unit.prompt_ids) :]
    for branch, full in zip(unit.branches, whole.branches, strict=True):
        assert branch.num_counted >= 1 and len(unit.prompt_ids) + len(branch.ids) <= max_length
        assert branch.ids == full.ids[: len(branch.ids)]
        assert branch.ids.count(renderer.end_ids[0]) == (branch.ids == full.ids)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "qwen2"])
def test_editing_one_row_leaves_the_others_bit_equal(architecture: str, packed: bool) -> None:
    """Shapes being equal, no bit of what row B reads depends on row A beside it, nor that of an answer on its sibling."""
    policy = tiny.policy(architecture, packed=packed)
    ids = tuple(range(20, 60))
    row = Unit(ids[:11], (Branch(ids[11:20]), Branch(ids[20:24])))
    other = Unit(ids[5:12], (Branch(ids[24:31]), Branch(ids[31:36])))

    def edit(branch: Branch) -> Branch:
        return Branch(tuple(token + 100 for token in branch.ids))

    def read(*units: Unit) -> list[Tensor]:
        with torch.no_grad():
            out = policy.forward(pack(units), (), Want(logprobs=True, entropy=True, states=True))
        found = torch.cat([out.logprobs[:, None], out.entropy[:, None], out.states], 1)
        return list(found.split([branch.num_counted for unit in units for branch in unit.branches]))

    plain = read(other, row)
    edited = read(Unit(tuple(token + 100 for token in other.prompt_ids), tuple(map(edit, other.branches))), row)
    assert not torch.equal(plain[0], edited[0])
    assert torch.equal(plain[2], edited[2]) and torch.equal(plain[3], edited[3])
    after = read(row, Unit(other.prompt_ids, (other.branches[0], edit(other.branches[1]))))
    before = read(row, other)
    assert not torch.equal(before[3], after[3])
    assert all(torch.equal(before[index], after[index]) for index in (0, 1, 2))


def losses(folder: Path, **options: Any) -> tuple[float, list[tuple[float, float, int, int]]]:
    """The loss of one step of all rows, before anything moved; and of each row the log-probs and tokens of its answers."""
    made = trainer(folder, max_steps=1, tokens_per_microbatch=64, **options)
    rows = []
    with torch.no_grad():
        for unit in made.train_units:
            batch = pack([unit])
            chosen, rejected = segment_sum(made.policy.forward(batch, (), Want()).logprobs, batch.completion, 2).tolist()
            rows.append((chosen, rejected, *(branch.num_counted for branch in unit.branches)))
    made.train()
    return made.log_history[0]["loss"], rows


def test_the_sft_term_is_a_mean_over_the_tokens_of_the_step(tmp_path: Path) -> None:
    """ln 2 for policy = reference, plus a tenth of the chosen answers' negative log-likelihood a token, whatever the micro-batches."""
    loss, rows = losses(tmp_path, sft_coefficient=0.1)
    nll = -sum(chosen for chosen, _, _, _ in rows) / sum(tokens for _, _, tokens, _ in rows)
    assert loss == pytest.approx(math.log(2) + 0.1 * nll, abs=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_simpo_gamma_is_the_margin_that_is_asked_for(tmp_path: Path, gamma: float) -> None:
    """softplus(gamma - beta (log-prob a token of chosen - of rejected)), mean over the pairs."""
    loss, rows = losses(tmp_path, loss_type="simpo", beta=2.0, simpo_gamma=gamma)
    expected = [math.log1p(math.exp(gamma - 2.0 * (chosen / n - rejected / m))) for chosen, rejected, n, m in rows]
    assert loss == pytest.approx(sum(expected) / len(expected), abs=1e-5)
