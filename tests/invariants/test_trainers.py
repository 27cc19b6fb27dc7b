"""The invariants of `mixin.py` for every trainer, and the known values at step 0."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from accord import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    PPOConfig,
    PPOTrainer,
    PRMConfig,
    PRMTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)
from accord.data.packing import Branch, Unit, pack
from accord.errors import DivergedError
from accord.models.adapters import Want
from accord.training.loop import StepBatch
from accord.types import Completion, Example, Message
from invariants.mixin import TrainerInvariants, assert_equal, gradients, worst


def conversations() -> list[Example]:
    """Demonstrations that go on after the first answer: user turns between counted spans."""
    rows = tiny.demonstrations()
    more = (Message("user", "And then?"), Message("assistant", "Nothing"))
    return [replace(row, completions=(Completion((*row.completions[0].messages, *more[: 2 * (i % 2)])),)) for i, row in enumerate(rows)]


class TestSFT(TrainerInvariants):
    def rows(self) -> list[Example]:
        return conversations()

    def build(self, folder: Path, rows: list[Example], **changes: Any) -> SFTTrainer:
        return SFTTrainer(
            tiny.policy(), SFTConfig(output_dir=str(folder), **changes), rows, processing_class=tiny.tokenizer(), peft_config=tiny.lora()
        )

    def test_zero_signal_teaches_nothing(self, tmp_path: Path) -> None:
        """A row without a counted token adds nothing to either loss, and a step of such rows has a gradient of exactly 0. (The renderer
        refuses rows like this by name: `data/test_bad_input.py`.)"""
        for aggregation in ("token", "sequence"):
            trainer = self.ready(tmp_path, loss_aggregation=aggregation)
            masked = [
                replace(unit, branches=tuple(Branch(b.ids, (False,) * len(b.ids)) for b in unit.branches)) for unit in trainer.train_units
            ]
            found, values = gradients(trainer, StepBatch(masked))
            assert values["loss"] == 0 and values["grad_norm"] == 0 and not any(value.any() for value in found.values())
            plain, expected = gradients(trainer, self.batch(trainer))
            mixed, values = gradients(trainer, StepBatch([*trainer.train_units, *masked]))
            share = 1.0 if aggregation == "token" else 0.5  # rows count there, answers or not
            assert_equal({name: value / share for name, value in mixed.items()}, plain)
            assert values["loss"] == pytest.approx(share * expected["loss"], rel=1e-5)

    def test_trailing_turns_are_cut(self, tmp_path: Path) -> None:
        def units(text: str) -> list[tuple[Any, ...]]:
            rows = [
                replace(row, completions=(Completion((*row.completions[0].messages, Message("user", text))),))
                for row in tiny.demonstrations()
            ]
            return [(unit.prompt_ids, unit.branches) for unit in self.build(tmp_path, rows).train_units]

        assert (
            units("Thanks")
            == units("No, that is wrong!")
            == [(u.prompt_ids, u.branches) for u in self.build(tmp_path, tiny.demonstrations()).train_units]
        )

    def test_user_turns_are_not_counted(self, tmp_path: Path) -> None:
        trainer = self.build(tmp_path, self.rows())
        for unit, row in zip(trainer.train_units, self.rows(), strict=True):
            branch = unit.branches[0]
            counted = [
                token for token, is_counted in zip(branch.ids, branch.counted or [True] * len(branch.ids), strict=True) if is_counted
            ]
            text = trainer.renderer.tokenizer.decode(counted).replace("\n", "")
            assert text == "".join(f"{message.content}<|end|>" for message in row.completions[0].messages if message.role == "assistant")

    def test_sequence_loss(self, tmp_path: Path) -> None:
        trainer = self.ready(tmp_path, loss_aggregation="sequence")
        whole, _ = gradients(trainer, self.batch(trainer))
        single, _ = gradients(trainer, self.batch(trainer), 1)
        assert_equal(single, whole)
        token = self.ready(tmp_path)
        assert worst(gradients(token, self.batch(token))[0], whole) > 1e-2  # another objective


class RewardInvariants(TrainerInvariants):
    reads_the_last_token = True
    options: dict[str, Any] = {}

    def rows(self) -> list[Example]:
        return [*tiny.pairs(), *tiny.rankings()]

    def build(self, folder: Path, rows: list[Example], **changes: Any) -> RewardTrainer:
        args = RewardConfig(output_dir=str(folder), **{**self.options, **changes})
        return RewardTrainer(tiny.policy(), args, rows, processing_class=tiny.tokenizer(), peft_config=tiny.lora())

    def readings(self, trainer: RewardTrainer, units: list[Unit]) -> list[Tensor]:
        return list(trainer.reward_model.score(units, 10**6).split([len(unit.branches) for unit in units]))

    def test_equal_answers_cost_ln_2(self, tmp_path: Path) -> None:
        trainer = self.ready(tmp_path, self.without_signal())
        assert gradients(trainer, self.batch(trainer))[1]["loss"] == pytest.approx(math.log(2), abs=1e-5)


class TestRewardLora(RewardInvariants):
    options = {"backbone": "lora"}


class TestRewardHeads(RewardInvariants):
    options = {"backbone": "heads"}


class TestRewardWideHeads(RewardInvariants):
    options = {"backbone": "lora", "head_width": 3}

    def build(self, folder: Path, rows: list[Example], **changes: Any) -> RewardTrainer:
        trainer = super().build(folder, rows, **changes)
        with torch.no_grad():  # the readout starts at 0, where nothing below it would get a gradient
            trainer.heads.readout.normal_(generator=torch.Generator().manual_seed(3))
        return trainer


class TestRewardContext(RewardInvariants):
    options = {"backbone": "lora", "head_context": True}


class TestRewardMiddleLayer(RewardInvariants):
    options = {"backbone": "lora", "num_heads": 1, "feature_layer": 1}

    def test_micro_batches_change_nothing(self, tmp_path: Path) -> None:
        """As for all, but adapters above the layer that is read get no gradient."""
        trainer = self.ready(tmp_path)
        whole, _ = gradients(trainer, self.batch(trainer))
        single, _ = gradients(trainer, self.batch(trainer), 1)
        assert_equal(single, whole)
        assert not any(".layers.1." in name for name in whole if float(whole[name].norm()) > 0)


class PRMInvariants(TrainerInvariants):
    """Here a step's end is read, so what stands behind the last labelled one may not matter; masked steps may not either."""

    options: dict[str, Any] = {}

    def rows(self) -> list[Example]:
        return tiny.solutions()

    def build(self, folder: Path, rows: list[Example], **changes: Any) -> PRMTrainer:
        args = PRMConfig(output_dir=str(folder), **{**self.options, **changes})
        return PRMTrainer(tiny.policy(), args, rows, processing_class=tiny.tokenizer(), peft_config=tiny.lora())

    def readings(self, trainer: PRMTrainer, units: list[Unit]) -> list[Tensor]:
        return trainer.process_reward_model.probabilities(units, 10**6)

    def test_zero_signal_teaches_nothing(self, tmp_path: Path) -> None:
        """Steps without a label have a gradient of exactly 0, and change nothing for others. (A row of only such steps is left out, counted:
        `methods/test_prm.py`.)"""
        trainer = self.ready(tmp_path)
        units = trainer.train_units
        masked = [replace(unit, data={**unit.data, "targets": (None,) * len(unit.data["targets"])}) for unit in units]
        found, values = gradients(trainer, StepBatch(masked))
        assert values["loss"] == 0 and values["grad_norm"] == 0 and not any(value.any() for value in found.values())
        plain, expected = gradients(trainer, StepBatch(units))
        mixed, values = gradients(trainer, StepBatch([*units, *masked]))
        assert_equal(mixed, plain)
        assert values["loss"] == pytest.approx(expected["loss"], rel=1e-5) and values["accuracy"] == pytest.approx(expected["accuracy"])


class TestPRMLora(PRMInvariants):
    options = {"backbone": "lora"}


class TestPRMHeads(PRMInvariants):
    options = {"backbone": "heads", "head_width": 3}


class TestPRMThreeClasses(PRMInvariants):
    options = {"neutral": "class", "mask_after_first_error": False, "step_separator": " ###\n"}


class DPOInvariants(TrainerInvariants):
    options: dict[str, Any] = {"beta": 0.1}

    def rows(self) -> list[Example]:
        return tiny.pairs()

    def build(self, folder: Path, rows: list[Example], **changes: Any) -> DPOTrainer:
        args = DPOConfig(output_dir=str(folder), **{**self.options, **changes})
        return DPOTrainer(tiny.policy(), None, args, rows, processing_class=tiny.tokenizer(), peft_config=tiny.lora())

    def at_step_0(self, trainer: DPOTrainer, row: dict[str, float]) -> None:
        assert not trainer.needs_reference or abs(row["rewards/margins"]) < 1e-5

    def test_rewards_are_0_at_step_0(self, tmp_path: Path) -> None:
        """Read alone, policy and reference agree to the last bit: rewards exactly 0, and a tie is half right."""
        trainer = self.build(tmp_path, self.rows(), max_steps=1, learning_rate=1e-4, tokens_per_microbatch=1)
        row = trainer.train()
        if trainer.needs_reference:
            assert row["rewards/chosen"] == row["rewards/rejected"] == row["rewards/margins"] == 0
            assert row["rewards/accuracies"] == 0.5
        else:
            assert row["rewards/chosen"] < 0  # these losses reward likelihood itself


class TestSigmoid(DPOInvariants):
    options = {"loss_type": "sigmoid", "beta": 0.1}
    at_start = math.log(2)

    def test_moved_reference_is_refused(self, tmp_path: Path) -> None:
        trainer = self.build(tmp_path, self.rows(), learning_rate=1e-4)
        tiny.shake(trainer.policy, "dpo")
        with pytest.raises(DivergedError, match="Before the first step policy and reference differ"):
            trainer.train()


class TestIPO(DPOInvariants):
    options = {"loss_type": "ipo", "beta": 0.1}
    at_start = 1 / (4 * 0.1**2)


class TestHinge(DPOInvariants):
    options = {"loss_type": "hinge", "beta": 0.1}
    at_start = 1.0


class TestRobust(DPOInvariants):
    options = {"loss_type": "robust", "beta": 0.1, "label_smoothing": 0.1}
    at_start = math.log(2)


class TestAPOZero(DPOInvariants):
    options = {"loss_type": "apo_zero", "beta": 0.1}
    at_start = 1.0


class TestSigmoidNorm(DPOInvariants):
    options = {"loss_type": "sigmoid_norm", "beta": 5.0}
    at_start = math.log(2)


class TestSimPO(DPOInvariants):
    options = {"loss_type": "simpo", "beta": 2.0}


class TestORPO(DPOInvariants):
    teaches_without_signal = True
    options = {"loss_type": "orpo", "beta": 0.1}


class TestKTO(TrainerInvariants):
    at_start = 0.5

    def rows(self) -> list[Example]:
        return tiny.labelled()

    def build(self, folder: Path, rows: list[Example], **changes: Any) -> KTOTrainer:
        args = KTOConfig(output_dir=str(folder), **changes)
        return KTOTrainer(tiny.policy(), None, args, rows, processing_class=tiny.tokenizer(), peft_config=tiny.lora())

    def without_signal(self) -> list[Example]:
        """Each answer once as desirable and once as undesirable: the two pull the same distance in opposite directions."""
        return [replace(row, label=label) for row in tiny.labelled() for label in (True, False)]

    def at_step_0(self, trainer: KTOTrainer, row: dict[str, float]) -> None:
        assert row["kl"] == pytest.approx(0.0, abs=1e-5)

    def test_moved_reference_is_refused(self, tmp_path: Path) -> None:
        trainer = self.build(tmp_path, self.rows(), learning_rate=1e-4)
        tiny.shake(trainer.policy, "kto")
        with pytest.raises(DivergedError, match="Before the first step policy and reference differ"):
            trainer.train()

    def test_stages_start_where_they_are_told(self, tmp_path: Path) -> None:
        """Beside another adapter in memory, policy and reference stand on the stack that was named."""
        policy = tiny.policy()
        for name in ("sft", "reward"):
            policy.add_adapter(name, tiny.lora())
        tiny.shake(policy, "sft", "reward")
        args = KTOConfig(output_dir=str(tmp_path), max_steps=1, learning_rate=1e-4)
        trainer = KTOTrainer(policy, None, args, self.rows(), processing_class=tiny.tokenizer(), peft_config=tiny.lora(), start=("sft",))
        assert (trainer.prepared.stack, trainer.reference.stack) == (("sft", "kto"), ("sft",))
        assert trainer.train()["loss"] == pytest.approx(0.5, abs=1e-6)

    def test_baseline_is_the_whole_steps(self, tmp_path: Path) -> None:
        """z0 = max(0, mean over the step of log pi - log ref of mismatched answers), whatever the micro-batches."""
        trainer = self.ready(tmp_path)
        mates = [unit.data["mismatch"] for unit in trainer.train_units]
        with torch.no_grad():
            policy, reference = (
                trainer.policy.forward(pack(mates), stack).logprobs.split([mate.num_counted for mate in mates]) for stack in (("kto",), ())
            )
        mean = sum(float((p - r).sum()) for p, r in zip(policy, reference, strict=True)) / len(mates)
        assert abs(mean) > 1e-3
        _, values = gradients(trainer, self.batch(trainer), 1)
        assert values["kl"] == pytest.approx(max(0.0, mean), abs=1e-4)


def by_length(completions: list[Any], **columns: Any) -> list[float]:
    """A reward that any model can raise, different for different answers."""
    return [len(completion[0]["content"]) / 10 for completion in completions]


class PPOInvariants(TrainerInvariants):
    options: dict[str, Any] = {}
    reward: Any = staticmethod(by_length)

    def rows(self) -> list[Example]:
        return tiny.prompts()

    def build(self, folder: Path, rows: list[Example], **changes: Any) -> PPOTrainer:
        size = {"prompts_per_iteration": 6, "num_generations": 3, "max_new_tokens": 8, "num_iterations": 2}
        # An iteration is its own batch: of a size and an accumulation only the micro-batches' token budget means something here.
        changes.pop("per_device_train_batch_size", None)
        changes.pop("gradient_accumulation_steps", None)
        args = PPOConfig(output_dir=str(folder), **{**size, **self.options, **changes})
        policy = tiny.policy()
        policy.model.generation_config.eos_token_id = list(range(2, 40))  # many ids end an answer: lengths differ
        ptx = tiny.demonstrations() if args.ptx_coef else None
        return PPOTrainer(args, tiny.tokenizer(), policy, type(self).reward, rows, peft_config=tiny.lora(), ptx_dataset=ptx)

    def ready(self, folder: Path, rows: list[Example] | None = None, **changes: Any) -> PPOTrainer:
        trainer = super().ready(folder, rows, **changes)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(2)
            trainer.value_head.weight.copy_(torch.randn(trainer.value_head.weight.shape, generator=generator))
            if "value" in trainer.policy.adapters:
                tiny.shake(trainer.policy, "value", seed=5)
        return trainer

    def batch(self, trainer: PPOTrainer) -> StepBatch:
        """One collected iteration; then the policy moves a little, so that ratios are not 1."""
        batch = next(iter(trainer.batches(0)))
        tiny.shake(trainer.policy, "ppo", seed=7, scale=0.08)
        return batch

    def readings(self, trainer: PPOTrainer, units: list[Unit]) -> list[Tensor]:
        with torch.no_grad():
            logprobs = trainer.policy.forward(pack(units), trainer.stack).logprobs
            states = trainer.policy.forward(pack(units), trainer.value_stack, Want(logprobs=False, states=True)).states
            both = torch.stack((logprobs, trainer.value_head(states)), 1)
        return list(both.split([unit.num_counted for unit in units]))

    def test_on_policy_identity(self, tmp_path: Path) -> None:
        trainer = self.ready(tmp_path)
        batch = next(iter(trainer.batches(0)))
        _, values = gradients(trainer, batch)
        assert values["sampling/logprob_difference_max"] < 1e-4
        assert values["policy/clipfrac_avg"] == 0
        assert values["policy/approxkl_avg"] < 1e-9
        assert values["val/ratio"] == pytest.approx(1.0, abs=1e-5)
        # and the check can fail: another policy disagrees
        tiny.shake(trainer.policy, "ppo", seed=11, scale=0.3)
        assert gradients(trainer, batch)[1]["sampling/logprob_difference_max"] > 1e-2

    def at_step_0(self, trainer: PPOTrainer, row: dict[str, float]) -> None:
        """The round's metrics come with its last step, and were taken before the first."""
        assert row["sampling/logprob_difference_max"] < 1e-4 and row["val/ratio"] == pytest.approx(1.0, abs=1e-5)

    def test_moved_reference_is_refused(self, tmp_path: Path) -> None:
        """Sampler and trainer agree with each other and not with the reference: an adapter that is not fresh."""
        trainer = self.build(tmp_path, self.rows(), learning_rate=1e-4)
        tiny.shake(trainer.policy, "ppo")
        with pytest.raises(DivergedError, match="Before the first step policy and reference differ"):
            trainer.train()

    def test_kl_is_0_at_step_0(self, tmp_path: Path) -> None:
        trainer = self.build(tmp_path, self.rows(), max_steps=1, num_ppo_epochs=1, learning_rate=1e-4)
        row = trainer.train()
        assert abs(row["objective/kl"]) < 1e-4 and abs(row["objective/kl_k3"]) < 1e-6
        assert abs(row["objective/non_score_reward"]) < 1e-4

    def test_zero_signal_teaches_nothing(self, tmp_path: Path) -> None:
        """A critic that knows the constant, no KL, no whitening: every advantage is 0, and so is the policy's gradient, exactly."""
        kept = type(self).reward
        type(self).reward = staticmethod(lambda completions, **columns: [0.7] * len(completions))
        try:
            trainer = self.build(
                tmp_path,
                self.rows(),
                **{"learning_rate": 0.0, "max_grad_norm": 0.0, "kl_coef": 0.0, "whiten_advantages": False, "missing_eos_penalty": None},
            )
        finally:
            type(self).reward = kept
        with torch.no_grad():
            trainer.value_head.bias.fill_(0.7)
        found, values = gradients(trainer, next(iter(trainer.batches(0))))
        policy = {name: value for name, value in found.items() if ".ppo." in name}
        assert policy and all(not value.any() for value in policy.values())
        assert math.isfinite(values["loss"]) and values["grad_norm"] == 0


class TestPPOHead(PPOInvariants):
    pass


class TestPPOValueAdapter(PPOInvariants):
    options = {"value": "adapter"}

    def test_activation_checkpointing_changes_no_gradient(self, tmp_path: Path) -> None:
        """Recomputed layers see the stack of the loss they belong to, the policy's or the value's."""
        found = []
        for checkpointing in (False, True):
            trainer = self.ready(tmp_path, gradient_checkpointing=checkpointing)
            found.append(gradients(trainer, self.batch(trainer))[0])
            assert trainer.policy.checkpointing is checkpointing
        assert any(".value." in name for name in found[0]) and any(".ppo." in name for name in found[0])
        assert worst(found[1], found[0]) < 1e-6


class TestPPOPtx(PPOInvariants):
    """With demonstrations mixed in, totals of both kinds are the whole step's."""

    options = {"ptx_coef": 0.5}

    def test_zero_signal_teaches_nothing(self, tmp_path: Path) -> None:
        pytest.skip("demonstrations teach something whatever the reward")


class GRPOInvariants(TrainerInvariants):
    options: dict[str, Any] = {}
    reward: Any = staticmethod(by_length)

    def rows(self) -> list[Example]:
        return tiny.prompts()

    def build(self, folder: Path, rows: list[Example], **changes: Any) -> GRPOTrainer:
        size = {"num_generations": 3, "max_completion_length": 8, "per_device_train_batch_size": 18, "num_iterations": 2}
        changes.pop("per_device_train_batch_size", None)
        changes.pop("gradient_accumulation_steps", None)
        args = GRPOConfig(output_dir=str(folder), **{**size, **self.options, **changes})
        policy = tiny.policy()
        policy.model.generation_config.eos_token_id = list(range(2, 40))  # many ids end an answer: lengths differ
        return GRPOTrainer(policy, type(self).reward, args, rows, processing_class=tiny.tokenizer(), peft_config=tiny.lora())

    def batch(self, trainer: GRPOTrainer) -> StepBatch:
        """One sampled round; then the policy moves a little, so that ratios are not 1."""
        batch = next(iter(trainer.batches(0)))
        tiny.shake(trainer.policy, "grpo", seed=7, scale=0.08)
        return batch

    def test_on_policy_identity(self, tmp_path: Path) -> None:
        trainer = self.ready(tmp_path)
        batch = next(iter(trainer.batches(0)))
        _, values = gradients(trainer, batch)
        assert values["sampling/logprob_difference_max"] < 1e-4
        assert trainer.config.clip == "cispo" or values["clip_ratio/region_mean"] == 0
        assert values["val/ratio"] == pytest.approx(1.0, abs=1e-5)
        # and the check can fail: another policy disagrees
        tiny.shake(trainer.policy, "grpo", seed=11, scale=0.3)
        assert gradients(trainer, batch)[1]["sampling/logprob_difference_max"] > 1e-2

    def at_step_0(self, trainer: GRPOTrainer, row: dict[str, float]) -> None:
        assert row["sampling/logprob_difference_max"] < 1e-4 and row["val/ratio"] == pytest.approx(1.0, abs=1e-5)

    def test_moved_reference_is_refused(self, tmp_path: Path) -> None:
        trainer = self.build(tmp_path, self.rows(), learning_rate=1e-4, beta=0.1)
        tiny.shake(trainer.policy, "grpo")
        with pytest.raises(DivergedError, match="Before the first step policy and reference differ"):
            trainer.train()

    def test_zero_signal_teaches_nothing(self, tmp_path: Path) -> None:
        """Answers that all earn the same, and no KL: every advantage is 0, and so is the gradient, exactly."""
        kept = type(self).reward
        type(self).reward = staticmethod(lambda completions, **columns: [0.7] * len(completions))
        try:
            trainer = self.build(tmp_path, self.rows(), learning_rate=0.0, max_grad_norm=0.0, beta=0.0)
        finally:
            type(self).reward = kept
        found, values = gradients(trainer, next(iter(trainer.batches(0))))
        assert found and all(float(value.abs().max()) < 1e-9 for value in found.values())
        assert math.isfinite(values["loss"]) and values["grad_norm"] < 1e-8

    def test_whole_groups_only(self, tmp_path: Path) -> None:
        """No size that is asked for is a divisibility error: an optimizer step takes whole groups."""
        for size, expected in ((1, 1), (3, 1), (4, 2), (7, 3)):
            args = GRPOConfig(output_dir=str(tmp_path), **{**self.options, "num_generations": 3, "per_device_train_batch_size": size})
            assert args.prompts_a_round == expected


class TestDrGRPO(GRPOInvariants):
    pass


class TestGRPOAsPublished(GRPOInvariants):
    options = {"scale_rewards": "group", "loss_type": "sequence_mean", "beta": 0.04, "kl_in": "loss_k3"}


class TestRLOO(GRPOInvariants):
    options = {"advantage": "leave_one_out", "beta": 0.05}


class TestREINFORCEPlusPlus(GRPOInvariants):
    options = {"advantage": "batch_mean", "scale_rewards": "batch", "loss_type": "token_mean", "beta": 0.01}


class TestDAPO(GRPOInvariants):
    options = {
        "scale_rewards": "group",
        "loss_type": "token_mean",
        "epsilon_high": 0.28,
        "mask_truncated_completions": True,
        "overlong_buffer": 3,
        "dynamic_sampling": 1,
    }

    def test_zero_signal_teaches_nothing(self, tmp_path: Path) -> None:
        """A penalty for length is a signal; without it there is none."""
        self.options = {**self.options, "overlong_buffer": 0}
        super().test_zero_signal_teaches_nothing(tmp_path)


class TestGSPO(GRPOInvariants):
    options = {"importance_sampling_level": "sequence", "loss_type": "sequence_mean", "epsilon": 3e-3, "epsilon_high": 4e-3}


class TestCISPO(GRPOInvariants):
    options = {"clip": "cispo", "epsilon_high": 5.0, "loss_type": "token_mean", "scale_rewards": "batch"}


class TestUnclipped(GRPOInvariants):
    options = {"clip": "none", "num_iterations": 1, "kl_in": "loss_k2", "beta": 0.1}


class TestDualClip(GRPOInvariants):
    options = {"delta": 1.5}
