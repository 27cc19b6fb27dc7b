"""Plans of whole runs: what they are made of, against trainers; time by hand; fits, does not fit, fits if; the first lines of every run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from accord import DPOConfig, GRPOConfig, KTOConfig, PPOConfig, PRMConfig, RewardConfig, SFTConfig
from accord.audit.agreeing import TEXTS
from accord.audit.probe_sets import packaged
from accord.audit.sycophancy import feedback_choices
from accord.cli import main
from accord.commands.plan import run as plan_command
from accord.config.options import TrainOptions
from accord.config.plan import PlanOptions
from accord.data.packing import Branch, Unit
from accord.errors import ConfigError, MachineError
from accord.methods import guard
from accord.methods.reference_answers import REFERENCE_ANSWERS
from accord.models.size import model_size
from accord.planning import machine
from accord.planning.flops import Volume
from accord.planning.here import planned, rows_of_data, trainer_plan
from accord.planning.machine import HARDWARE, Speeds, data_sheet, hardware_named, measure, shapes
from accord.planning.memory import GB, predict
from accord.planning.plan import Place, place_of, plan_run
from accord.planning.shapes import config_of, size_of
from accord.planning.time import SPREAD, Training, duration, predict_seconds, roughly
from accord.planning.work import AGREEMENT, NORMALISED_ON, PANEL, Data, Part, Work, data_like, data_of, work_of
from accord.rollouts.sampler import SamplingConfig

EVEN = Speeds("even", 1e9, 1e9, 1e9, 1e9, 1e30, 1e30, 0.0)
"""Only products cost, a nanosecond each."""


def parts(work: Work) -> dict[str, Part]:
    return {part.name: part for part in work.parts}


# -- what a run is made of ------------------------------------------------------------------------------------------------------------


def test_sft_trains_every_token_once_an_epoch() -> None:
    data = data_like("sft", 10, 20, 30)
    work = work_of(SFTConfig(num_train_epochs=3, per_device_train_batch_size=4), data, token_budget=1024)
    assert work.steps == 9
    assert parts(work)["updates"].volume.tokens == pytest.approx(3 * 10 * 50)
    assert parts(work)["updates"].volume.counted == pytest.approx(3 * 10 * 30)
    assert set(parts(work)) == {"updates"}


def test_dpo_reads_the_reference_once_and_simpo_never() -> None:
    data = data_like("dpo", 16, 20, 30)
    work = work_of(DPOConfig(num_train_epochs=2), data, token_budget=512)
    assert parts(work)["reference"].volume.tokens == 16 * 80 and not parts(work)["reference"].trains
    assert parts(work)["updates"].volume.tokens == 2 * 16 * 80
    assert parts(work)["first check"].volume.tokens == 2 * 80
    assert "first check" not in parts(work_of(DPOConfig(skip_step0_checks=True), data, token_budget=512))
    assert "reference" not in parts(work_of(DPOConfig(loss_type="simpo", beta=2.0), data, token_budget=512))
    short = work_of(DPOConfig(max_steps=1), data, token_budget=512)  # the reference of the rows that are used
    assert short.steps == 1 and parts(short)["reference"].volume.tokens == 8 * 80


def test_kto_reads_mismatched_answers_beside_its_own() -> None:
    work = work_of(KTOConfig(), data_like("kto", 32, 20, 30), token_budget=512)
    assert parts(work)["reference"].volume.tokens == 2 * 32 * 50
    assert parts(work)["baseline"].volume.tokens == parts(work)["updates"].volume.tokens == 32 * 50


def test_reward_models_have_no_lm_head_and_sample_their_scale() -> None:
    data = data_like("reward", 16, 20, 30)
    work = work_of(RewardConfig(max_new_tokens=10), data, token_budget=512)
    assert not parts(work)["updates"].head and parts(work)["sampling"].volume.tokens == 16 * 10  # one answer a prompt
    assert (work.sampled_rows, work.sampled_prompts, work.answer) == (16, 16, 10)
    assert "sampling" not in parts(work_of(RewardConfig(normalise_on="training"), data, token_budget=512))
    frozen = work_of(RewardConfig(backbone="heads", normalise_on="training"), data, token_budget=512)
    assert set(parts(frozen)) == {"features"} and not parts(frozen)["features"].trains
    assert not parts(work_of(PRMConfig(), data_like("prm", 16, 20, 30), token_budget=512))["updates"].head


def test_a_round_of_ppo() -> None:
    config = PPOConfig(num_iterations=3, prompts_per_iteration=4, num_generations=2, max_new_tokens=10, num_ppo_epochs=2, value="adapter")
    work = work_of(config, data_like("ppo", 100, 20, 10), token_budget=512, reward_models=1)
    found = parts(work)
    assert work.steps == 3 * 2
    assert found["sampling"].volume.tokens == 3 * 4 * 2 * 10 and found["sampling"].rows == 8 and found["sampling"].passes == 3 * 10
    assert found["prompts"].volume.tokens == 3 * 4 * 20
    assert found["reference"].volume.tokens == 3 * 4 * 40
    assert found["rewards"].volume.tokens == 2 * 3 * 4 * 40  # the reward model and the critic
    assert found["updates"].volume.tokens == found["critic"].volume.tokens == 2 * 3 * 4 * 40
    assert (work.sampled_rows, work.sampled_prompts) == (8, 4)


def test_monitors_look_at_the_start_halfway_and_at_the_end() -> None:
    config = PPOConfig(num_iterations=4, prompts_per_iteration=4, num_generations=2, max_new_tokens=10)
    data = data_like("ppo", 100, 20, 10)
    watched = [part for part in work_of(config, data, token_budget=512).parts if part.name == "monitors"]
    assert sum(part.volume.tokens for part in watched if part.head and not part.rows) == 3 * AGREEMENT.tokens
    assert [part.volume.tokens for part in watched if part.rows] == 2 * [4 * 10]  # each of the four prompts once, halfway and at the end
    one = work_of(replace(config, num_iterations=1), data, token_budget=512)
    assert sum(part.volume.tokens for part in one.parts if part.name == "monitors") == AGREEMENT.tokens
    assert "monitors" not in parts(work_of(replace(config, monitors=False), data, token_budget=512))


def test_what_is_said_again_of_other_rooms_is_what_they_say() -> None:
    assert (PANEL, NORMALISED_ON) == (guard.PANEL, REFERENCE_ANSWERS)


def test_as_much_is_read_as_the_monitor_of_sycophancy_asks() -> None:
    """The packaged texts, at about four characters a token."""
    choices = feedback_choices(packaged("feedback")[:TEXTS])
    said = sum(len(message.content) for choice in choices for message in choice.prompt) + sum(
        len(o) for choice in choices for o in choice.options
    )
    assert len(choices) == 12 and 0.5 * AGREEMENT.tokens < said / 4 < AGREEMENT.tokens  # templates come on top


def test_grpo_without_beta_reads_no_reference() -> None:
    config = GRPOConfig(num_generations=4, per_device_train_batch_size=8, max_completion_length=10, max_steps=5)
    data = data_like("grpo", 100, 20, 10)
    work = work_of(config, data, token_budget=512)
    assert work.steps == 5 and "reference" not in parts(work)
    assert parts(work)["updates"].volume.tokens == 5 * 2 * (20 + 4 * 10)
    priced = replace(config, beta=0.04)
    assert parts(work_of(priced, data, token_budget=512))["reference"].volume.tokens == 5 * 2 * 60


def test_frozen_lower_layers_run_once() -> None:
    data = data_like("sft", 10, 20, 30)
    work = work_of(SFTConfig(num_train_epochs=2), data, token_budget=512, lora_layers=0.5)
    assert parts(work)["frozen layers"].layers == (0.0, 0.5) and parts(work)["frozen layers"].volume.tokens == 10 * 50
    assert parts(work)["updates"].layers == (0.5, 1.0) and parts(work)["updates"].volume.tokens == 2 * 10 * 50


def test_best_of_samples_before_it_trains() -> None:
    data = data_like("sft", 100, 20, 30)
    work = work_of(SFTConfig(), data, token_budget=512, sampled=(8, 30))
    assert parts(work)["sampling"].volume.tokens == 100 * 8 * 30
    assert work.sampled_rows == SamplingConfig().max_batch == 128 and work.sampled_prompts == 16
    assert parts(work)["updates"] == parts(work_of(SFTConfig(), data, token_budget=512))["updates"]


def test_measuring_draws_nothing_from_the_run() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    measure(replace(size_of("smollm2-135m"), linears=(("a", 8, 8),), layers=1, vocabulary=64, hidden=8), tokens=8, at_most=0.001)
    assert torch.equal(torch.rand(2), expected)


def test_data_of_units_counts_what_is_there() -> None:
    units = [Unit(tuple(range(i, i + 10)), (Branch(tuple(range(5 + i))),)) for i in range(1, 4)]
    data = data_of(units, 1024)
    assert (data.rows, data.longest, data.prompt, data.answer) == (3, 18, 10.0, 7.0)
    assert data.epoch.tokens == 3 * 10 + 6 + 7 + 8 == 51


# -- time -----------------------------------------------------------------------------------------------------------------------------


def test_time_by_hand() -> None:
    """SFT with LoRA of rank 16 on a model of 2 layers: forward and backward of layers, adapters, attention and head at 10^9 FLOP/s."""
    size = model_size(tiny.model("llama").config)
    work = Work((Part("updates", Volume(100, 40, 0), 1, trains=True),), 0, 100)
    seconds = predict_seconds(size, work, EVEN, Training(rank=None)).total
    # All weights: 6 FLOP a weight and token, and the head's logits twice, its gradients by states and by weights.
    assert seconds == pytest.approx((6 * 100 * size.layer_weights + 8 * 40 * 32 * tiny.VOCAB) / 1e9)


def test_what_is_no_product_costs_bytes_and_calls() -> None:
    size = model_size(tiny.model("llama").config)
    work = Work((Part("reference", Volume(100, 0, 0), 3, head=False),), 0, 100)
    slow = replace(EVEN, products=1e30, memory=1e6)
    more = replace(slow, call=1.0)
    a, b = (predict_seconds(size, work, speeds, Training()).parts["reference"] for speeds in (slow, more))
    assert a == pytest.approx(100 * 4.2 * size.layer_floats * 4 * 2 / 1e6)
    assert b - a == pytest.approx(3 * 2 * 90)


def test_sampling_reads_all_weights_a_step() -> None:
    size = model_size(tiny.model("llama").config)
    work = Work((Part("sampling", Volume(640, 640), 10, rows=64),), 0, 100)
    speeds = replace(EVEN, products=1e30, streamed=1e6)
    assert predict_seconds(size, work, speeds, Training()).parts["sampling"] == pytest.approx(
        10 * 4 * (size.layer_weights + 32 * tiny.VOCAB) / 1e6
    )


def test_durations_in_words() -> None:
    assert [duration(value) for value in (0.52, 42, 200, 5400, 200000)] == ["0.5 s", "42 s", "3.3 min", "1.5 hours", "2.3 days"]
    assert roughly(100.0) == f"about 1.7 min ({duration(100 * (1 - SPREAD))} to {duration(100 * (1 + SPREAD))})"


def test_this_machine_is_measured() -> None:
    size = size_of("smollm2-135m")
    assert shapes(size)[576, 1536] == 60
    found = measure(replace(size, linears=size.linears[:7], layers=1), tokens=64, rows=4, at_most=0.01)
    assert 1e8 < found.products < 1e14 and 1e7 < found.memory < 1e13 and 1e7 < found.streamed < 1e13
    assert found.head > 1e7 and found.narrow > 1e7 and found.attention > 1e7 and 1e-8 < found.call < 1e-2


def test_timing_stops_early_where_it_takes_long() -> None:
    calls: list[int] = []
    machine.seconds(lambda: calls.append(1), repeats=7, at_most=0.0)
    assert len(calls) == 2  # the warm-up, and one
    machine.seconds(lambda: calls.append(1), repeats=7)
    assert len(calls) == 2 + 8


def test_hardware_is_a_data_sheet() -> None:
    a100 = data_sheet(hardware_named("a100"))
    assert a100.products == pytest.approx(0.4 * 312e12)
    assert all(data_sheet(known).products > 0 and known.source for known in HARDWARE.values())


# -- plans ----------------------------------------------------------------------------------------------------------------------------


def test_fits_does_not_fit_fits_if() -> None:
    size, options = size_of("smollm2-1.7b"), TrainOptions(model="smollm2-1.7b")
    config, data = DPOConfig(dtype="float32", tokens_per_microbatch=1024), data_like("dpo", 10, 100, 100)

    def plan(have: float, **changes: Any) -> Any:
        return plan_run(size, replace(config, **changes), options, Place(have * GB), data=data, speeds=EVEN)

    assert plan(30).fits and plan(30).verdict.startswith("fits: ")
    tight = plan(9.5)
    assert not tight.fits and tight.verdict.startswith("fits if (")
    assert "--tokens_per_microbatch 256" in tight.verdict
    with pytest.raises(MachineError, match=r"accord dpo on smollm2-1.7b needs .* What would fit: .*--tokens_per_microbatch 256"):
        tight.check(force=False)
    tight.check(force=True)
    assert plan(9.5, gradient_checkpointing=True, tokens_per_microbatch=256).fits
    assert plan(3).verdict.startswith("fits if (") and "--weights nf4" in plan(3).verdict
    assert plan(1).verdict.startswith("does not fit: ")
    assert "heads" not in plan(8.0).verdict  # DPO has none


def test_what_would_fit_fits() -> None:
    """Each way's flags, given to the command, make the plan fit."""
    size, options = size_of("smollm2-1.7b"), TrainOptions(model="smollm2-1.7b")
    config, data = SFTConfig(dtype="float32", tokens_per_microbatch=4096), data_like("sft", 10, 100, 100)
    for have in (8.0, 8.5, 9.0, 10.0):
        plan = plan_run(size, config, options, Place(have * GB), data=data)
        assert not plan.fits and plan.ways
        for way in plan.ways:
            words = iter(way.flags.split())
            given = {flag.removeprefix("--"): next(words) for flag in words}
            changed = replace(
                config,
                tokens_per_microbatch=int(given["tokens_per_microbatch"]),
                gradient_checkpointing=given.get("gradient_checkpointing") == "true",
                weights=given.get("weights", "auto"),
            )
            upper = replace(options, lora_layers=float(given.get("lora_layers", 1.0)))
            assert plan_run(size, changed, upper, place_of(changed, have * GB, "cpu", 4, half=False), data=data).fits


def test_the_longest_row_is_never_split() -> None:
    size = size_of("smollm2-135m")
    assert predict(size, token_budget=256, longest=2048) == predict(size, token_budget=2048)
    config = GRPOConfig(num_generations=8, per_device_train_batch_size=8, max_completion_length=256, tokens_per_microbatch=256)
    plan = plan_run(size, config, TrainOptions(), Place(1e12), data=data_like("grpo", 10, 100, 256))
    assert plan.work is not None and plan.work.longest == 100 + 8 * 256
    assert plan.need.activations == predict(size, token_budget=256, longest=100 + 8 * 256, context=1024).activations


def test_full_fine_tuning_with_a_reference_has_a_copy() -> None:
    size = size_of("smollm2-135m")
    config = GRPOConfig(beta=0.1)
    data = data_like("grpo", 10, 100, 100)
    full, lora = (plan_run(size, config, TrainOptions(lora_r=rank), Place(1e12), data=data).need for rank in (0, 16))
    assert full.reference == 4 * size.parameters and lora.reference == 0


def test_weights_of_fewer_bits() -> None:
    size = size_of("llama-3.2-1b")
    half = predict(size, weight_bytes=2, compute_bytes=4)
    assert half.weights == 2 * size.parameters and half.activations == predict(size).activations
    assert predict(size, weight_bytes=0.52, compute_bytes=4).weights == int(0.52 * size.parameters)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("sft", []),
        ("reward", ["--backbone", "heads"]),
        ("dpo", ["--gradient_checkpointing", "true"]),
        ("kto", ["--lora_layers", "0.5"]),
        ("prm", []),
        ("ppo", ["--value", "adapter"]),
        ("grpo", ["--beta", "0.1"]),
    ],
)
def test_every_method_is_planned_from_the_command_line(method: str, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert plan_command([method, "--model", "smollm2-135m", "--hardware", "laptop", "--rows", "40", *options]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{method} on smollm2-135m fits: ") and "memory: " in text and "time: about " in text and "40 rows" in text


def test_a_run_that_does_not_fit_is_exit_code_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "dpo", "--model", "mistral-7b", "--hardware", "laptop", "--memory_gb", "4"]) == 4
    assert "does not fit" in capsys.readouterr().out
    assert main(["plan", "dpo", "--model", "mistral-7b", "--hardware", "laptop"]) == 4
    assert "weights held in four bits: --weights nf4" in capsys.readouterr().out
    assert (
        main(["plan", "sft", "--model", "smollm2-135m", "--hardware", "laptop", "--memory_gb", "1.3", "--tokens_per_microbatch", "1024"])
        == 4
    )
    assert "fits if" in capsys.readouterr().out


def test_models_without_a_config_are_named() -> None:
    with pytest.raises(ConfigError, match="smollm2-135m, gemma3-270m"):
        size_of("a-model")
    assert config_of("meta-llama/Llama-3.2-1B-Instruct").hidden_size == 2048


def test_rows_are_counted_in_the_data(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": "x" * 40, "chosen": "y" * 80, "rejected": "z" * 40},
        {"prompt": "x" * 80, "chosen": "y" * 160, "rejected": "z" * 120},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data, notes = rows_of_data(TrainOptions(data=str(path)), DPOConfig(), PlanOptions())
    assert (data.rows, data.prompt, data.answer) == (2, 15 + 12, 25 + 12)
    assert "2 rows of" in notes[0]


def test_help_of_both_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    for given in (["plan", "--help"], ["plan", "dpo", "--help"]):
        assert main(given) == 0
        text = capsys.readouterr().out
        assert len(text.splitlines()) <= 40 and text.count("\n  --") <= 15


def test_the_command_plans_as_the_run_does(tmp_path: Path) -> None:
    """The plan of a trainer and the plan of a name agree on a model of the same shape, but for the rows' exact lengths."""
    from accord import SFTTrainer

    policy, config = tiny.policy(), SFTConfig(output_dir=str(tmp_path), dtype="float32", tokens_per_microbatch=64, num_train_epochs=2)
    trainer = SFTTrainer(
        policy, args=config, train_dataset=tiny.demonstrations(), processing_class=tiny.tokenizer(), peft_config=tiny.lora()
    )
    plan = trainer_plan(trainer, TrainOptions(lora_r=4), 5 * GB)
    assert plan.work is not None and plan.work.steps == trainer.total_steps() == 4
    trainer.train()
    assert plan.work.tokens == pytest.approx(trainer.num_tokens, rel=0.05)
    assert plan.have == 5 * GB and plan.fits and plan.lines.startswith("Plan: sft on ")
    assert "4 optimizer steps" in plan.lines and plan.seconds is not None and plan.seconds.total > 0
    data = Data(9, plan.work.parts[0].volume * 0.5, 40, 20.0, 20.0)
    there = planned(TrainOptions(model="smollm2-135m"), config, data, memory_gb=4.0, quick=True)
    assert there.have == 4 * GB and torch.get_num_threads() >= 1


# -- weights held in fewer bits ---------------------------------------------------------------------------------------------------------


def test_held_weights_are_planned_for(capsys: pytest.CaptureFixture[str]) -> None:
    """By hand for Llama-3.2-1B: 973,078,528 weights in layers, 262,735,872 in embeddings (tied, bfloat16) and norms."""
    size = size_of("llama-3.2-1b")
    layers = sum(inputs * outputs for _, inputs, outputs in size.linears)
    assert layers == 973_078_528 and size.parameters - layers == 262_735_872
    found = {}
    narrow = replace(EVEN, memory=1e10)  # widening is bytes through memory
    for weights in ("auto", "bf16", "int8", "nf4"):
        config = DPOConfig(weights=weights, gradient_checkpointing=True, tokens_per_microbatch=256)
        place = place_of(config, 16 * GB, "cpu", 4, half=True)
        found[weights] = plan_run(
            size, config, TrainOptions(model="llama-3.2-1b"), place, data=data_like("dpo", 4, 500, 500), speeds=narrow
        )
    need = {name: plan.need.weights for name, plan in found.items()}
    assert need["auto"] == 4 * size.parameters and need["bf16"] == 2 * size.parameters
    assert need["nf4"] == pytest.approx(973_078_528 * (0.5 + 1 / 64 + 4 / 16384) + 2 * 262_735_872, abs=1)
    assert need["nf4"] < need["int8"] < need["bf16"]
    assert len({plan.need.activations for plan in found.values()}) == 1  # computed with in float32 whatever is held
    seconds = {name: plan.seconds.total for name, plan in found.items()}
    assert seconds["auto"] < seconds["bf16"] < seconds["int8"] < seconds["nf4"]
    assert (
        plan_command(["dpo", "--model", "llama-3.2-1b", "--hardware", "laptop-8gb", "--weights", "nf4", "--gradient_checkpointing", "true"])
        == 0
    )
    assert capsys.readouterr().out.startswith("dpo on llama-3.2-1b fits")


def test_a_second_set_for_sampling_is_planned_where_there_is_room() -> None:
    size, config = size_of("smollm2-135m"), GRPOConfig(weights="nf4", tokens_per_microbatch=256)
    data = data_like("grpo", 8, 50, 50)

    def plan(have: float) -> Any:
        return plan_run(
            size, config, TrainOptions(), place_of(config, have, "cpu", 4, half=False), data=data, speeds=replace(EVEN, memory=1e10)
        )

    roomy = plan(64 * GB)
    layers = sum(inputs * outputs for _, inputs, outputs in size.linears)
    assert roomy.need.merged == 4 * layers
    tight = plan(plan(1.0).need.total + layers)
    assert tight.need.merged == 0 and tight.fits
    assert tight.seconds.total > roomy.seconds.total  # the codes are widened in every step
