"""Whole runs on a base held in fewer bits: their losses are those of the dequantised base, they resume bit for bit, and say what they did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny
from accord import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from accord.cli import main
from accord.config.options import TrainOptions
from accord.errors import ConfigError
from accord.models.load import load_model, resolve
from accord.models.opened import open_model
from accord.models.small import KINDS, SmallLinear, widen
from accord.recipes import train as train_command
from accord.recipes.train import check_options, plan_memory
from accord.rewards.learned import RewardModel

WIDE = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
SETTINGS: dict[str, Any] = {
    "max_steps": 8,
    "learning_rate": 5e-3,
    "per_device_train_batch_size": 4,
    "seed": 3,
    "tokens_per_microbatch": 256,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in bfloat16 that knows a little: random weights, of the size that training finds."""
    folder = tmp_path_factory.mktemp("base")
    tiny.model(**WIDE).to(torch.bfloat16).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return tiny.pairs_file(tmp_path)


def dequantised(base: Path, kind: str, folder: Path) -> Path:
    """The base as float32 weights that are exactly those held as `kind`."""
    model = load_model(resolve(base, quiet=True), device="cpu", weights=kind)
    widen(model)
    model.float().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def dpo(base: Path, folder: Path, **settings: Any) -> DPOTrainer:
    config = DPOConfig(**{**SETTINGS, "output_dir": str(folder), "beta": 0.5, "cache_reference": False, **settings})
    return DPOTrainer(str(base), args=config, train_dataset=tiny.pairs(8), peft_config=tiny.lora())


def losses(trainer: Any) -> torch.Tensor:
    trainer.train()
    return torch.tensor([row["loss"] for row in trainer.log_history if "loss" in row])


# -- what is learned ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_has_the_losses_of_the_dequantised_base(kind: str, base: Path, tmp_path: Path) -> None:
    found = losses(dpo(base, tmp_path / "small", weights=kind))
    expected = losses(dpo(dequantised(base, kind, tmp_path / "dense"), tmp_path / "plain", weights="fp32"))
    assert len(found) == 8 and torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("kind, within", [("bf16", 1e-4), ("int8", 0.03), ("nf4", 0.15)])
def test_the_loss_curve_follows_the_float32_run(kind: str, within: float, base: Path, tmp_path: Path) -> None:
    """Both fall from log 2; how far apart they may be is the rounding: bf16 none, int8 a few hundredths of a nat, nf4 a tenth."""
    small, plain = (losses(dpo(base, tmp_path / weights, weights=weights)) for weights in (kind, "fp32"))
    assert small[0] == pytest.approx(0.6931, abs=1e-4) and plain[-1] < 0.4
    assert float((small - plain).abs().max()) < within


@pytest.mark.parametrize("checkpointing", [False, True])
def test_sft_with_adapters_above_kept_layers(checkpointing: bool, base: Path, tmp_path: Path) -> None:
    """Frozen lower layers run once and are kept; the rest runs from codes."""
    from accord.models.lora import lora_config

    found = []
    for name, folder, weights in (
        ("small", base, "nf4"),
        ("plain", dequantised(base, "nf4", tmp_path / "dense"), "fp32"),
    ):
        opened = open_model(str(folder), weights=weights)
        config = SFTConfig(**SETTINGS, output_dir=str(tmp_path / name), gradient_checkpointing=checkpointing)
        trainer = SFTTrainer(opened.policy, config, tiny.demonstrations(8), peft_config=lora_config(opened.policy, rank=4, layers=0.5))
        found.append(losses(trainer))
    assert torch.allclose(found[0], found[1], atol=1e-4) and found[0][-1] < found[0][0]


def test_online_methods_sample_from_a_held_base(base: Path, tmp_path: Path) -> None:
    """Sampler and trainer agree to 1e-3 nat before the first step (the trainer checks it), and a reward model on the same base scores."""
    opened = open_model(str(base), weights="nf4")
    reward = RewardTrainer(
        opened.policy,
        RewardConfig(**{**SETTINGS, "max_steps": 2}, output_dir=str(tmp_path / "reward")),
        tiny.pairs(8),
        peft_config=tiny.lora(),
    )
    reward.train()
    reward.save_model()
    about = json.loads((tmp_path / "reward" / "reward.json").read_text(encoding="utf-8"))
    assert about["weights"] == "nf4"
    again = open_model(str(base), weights="nf4")
    scorer = RewardModel.load(again.policy, tmp_path / "reward", again.renderer)
    config = GRPOConfig(
        **{**SETTINGS, "max_steps": 2},
        output_dir=str(tmp_path / "grpo"),
        num_generations=4,
        max_completion_length=8,
        beta=0.1,
    )
    trainer = GRPOTrainer(again.policy, [scorer], config, tiny.prompts(4), peft_config=tiny.lora(), start=())
    trainer.train()
    first = next(row for row in trainer.log_history if "sampling/logprob_difference_max" in row)
    assert first["sampling/logprob_difference_max"] < 1e-3


# -- stopping and going on ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_goes_on_bit_for_bit_and_keeps_the_adapter_alone(kind: str, base: Path, tmp_path: Path) -> None:
    straight = dpo(base, tmp_path / "straight", weights=kind, save_steps=4)
    expected = losses(straight)
    half = dpo(base, tmp_path / "stopped", weights=kind, save_steps=4)
    half.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-4"))
    resumed = torch.tensor([row["loss"] for row in half.log_history if "loss" in row])[-4:]
    assert torch.equal(resumed, expected[-4:])
    tensors = load_file(tmp_path / "straight" / "checkpoint-8" / "training.safetensors")
    trained = sum(p.numel() for p in straight.policy.trainable_parameters().values())
    assert sum(t.numel() for t in tensors.values() if t.dim() > 0) == 3 * trained  # with Adam's two moments


def test_resuming_with_other_weights_says_so(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dpo(base, tmp_path / "run", weights="nf4", save_steps=4).train()
    capsys.readouterr()
    dpo(base, tmp_path / "run", weights="int8").train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert "weights nf4 -> int8" in capsys.readouterr().out


# -- the command line ---------------------------------------------------------------------------------------------------------------


def test_a_run_records_how_its_base_was_held_and_is_opened_so(base: Path, pairs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    given = ["--model", str(base), "--data", str(pairs), "--output_dir", str(run), "--max_steps", "2"]
    assert main(["dpo", *given, "--weights", "nf4"]) == 0
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert record["weights"] == "nf4" and record["config"]["weights"] == "nf4"
    assert json.loads((run / "stack.json").read_text(encoding="utf-8"))["weights"] == "nf4"
    assert "held in nf4" in (run / "README.md").read_text(encoding="utf-8")
    opened = open_model(str(run))
    assert opened.policy.held == "nf4" and opened.stack
    assert open_model(str(run), weights="fp32").policy.held is None  # the adapter lies on the same base, however it is held
    assert (
        main(
            ["sft", "--model", str(run), "--data", str(_demonstrations(tmp_path)), "--output_dir", str(tmp_path / "on"), "--max_steps", "1"]
        )
        == 0
    )
    assert json.loads((tmp_path / "on" / "run.json").read_text(encoding="utf-8"))["weights"] == "nf4"


def _demonstrations(folder: Path) -> Path:
    path = folder / "demonstrations.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Say {i}", "completion": f"{i} it is"}) + "\n" for i in range(4)), encoding="utf-8")
    return path


@pytest.mark.parametrize("method", ["sft", "reward", "dpo", "kto", "grpo", "prm"])
def test_full_fine_tuning_is_refused_in_one_line(method: str, base: Path, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([method, "--model", str(base), "--data", str(pairs), "--weights", "int8", "--lora_r", "0"]) == 2
    line = capsys.readouterr().err.strip().splitlines()
    assert len(line) == 1 and "weights='int8' holds the base frozen" in line[0]


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"weights": "int4"}, "weights='int4' must be one of auto, fp32, bf16, int8, nf4, gguf"),
        ({"weights": "nf4", "dtype": "bfloat16"}, "dtype='bfloat16' asks for another type"),
        ({"weights": "int8", "fully_shard": True}, "fully_shard splits float weights"),
    ],
)
def test_combinations_that_mean_nothing_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DPOConfig(**settings)


def test_full_fine_tuning_and_models_in_memory_are_refused_in_python(base: Path, tmp_path: Path) -> None:
    config = SFTConfig(output_dir=str(tmp_path), weights="bf16", max_steps=1)
    with pytest.raises(ConfigError, match="holds the base frozen"):
        SFTTrainer(str(base), config, tiny.demonstrations())
    with pytest.raises(ConfigError, match="holds the base frozen"):
        SFTTrainer(load_model(resolve(base, quiet=True), weights="bf16"), config, tiny.demonstrations(), processing_class=tiny.tokenizer())
    with pytest.raises(ConfigError, match="in memory already"):
        SFTTrainer(tiny.model(), config, tiny.demonstrations(), processing_class=tiny.tokenizer(), peft_config=tiny.lora())


def test_heads_on_frozen_features_need_no_adapter(base: Path, tmp_path: Path) -> None:
    config = RewardConfig(output_dir=str(tmp_path), backbone="heads", weights="nf4", max_steps=2, normalise=False)
    trainer = RewardTrainer(str(base), config, tiny.pairs(8))
    trainer.train()
    assert trainer.policy.held == "nf4" and not trainer.policy.trainable_parameters()


def test_auto_holds_a_half_precision_checkpoint_as_it_is_where_float32_does_not_fit(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from accord.models.load import load_config

    config = load_config(resolve(base, quiet=True))
    assert config.dtype == torch.bfloat16

    def chosen(have: float, **options: Any) -> str:
        settings = DPOConfig(tokens_per_microbatch=256)
        monkeypatch.setattr(train_command, "available_memory", lambda device: have)
        plan_memory(config, TrainOptions(model=str(base), force=True, **options), settings)
        return settings.weights

    needs = []
    for weights in ("fp32", "bf16"):
        monkeypatch.setattr(train_command, "available_memory", lambda device: 1e12)
        needs.append(plan_memory(config, TrainOptions(model=str(base)), DPOConfig(tokens_per_microbatch=256, weights=weights)).total)
    assert needs[1] < needs[0]
    assert chosen(needs[0] + 1) == "auto" and chosen(needs[1] - 1) == "auto"
    assert chosen(needs[0] - 1, lora_r=0) == "auto"
    capsys.readouterr()
    assert chosen(needs[0] - 1) == "bf16"
    assert "weights bf16: the checkpoint is" in capsys.readouterr().err


def test_codes_are_what_is_in_memory(base: Path) -> None:
    policy = open_model(str(base), weights="nf4").policy
    layers = [module for module in policy.model.modules() if isinstance(module, SmallLinear) and module.kind == "nf4"]
    assert len(layers) == 14 and all(layer.weight.dtype == torch.uint8 for layer in layers)
    with pytest.raises(ConfigError, match="holds the base frozen"):
        check_options(TrainOptions(lora_r=0), SFTConfig(weights="nf4"))
