"""Plans as the command makes them: of rows that are counted in a file, of checkpoints as they are held, and never other than the run itself decides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from accord import DPOConfig, GRPOConfig, KTOConfig, PPOConfig, RewardConfig, SFTConfig
from accord.cli import main
from accord.config.options import TrainOptions
from accord.config.plan import PlanOptions
from accord.errors import MachineError
from accord.planning.here import planned, rows_of_data
from accord.planning.memory import count_lora, predict
from accord.planning.shapes import config_of, size_of
from accord.planning.work import data_like
from accord.recipes.train import plan_memory


def write(path: Path, rows: Sequence[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_counted_rows_are_cut_as_training_cuts_them(tmp_path: Path) -> None:
    """Four characters a token, twelve more for a message: the prompt loses tokens first, then the answer."""
    data = write(tmp_path / "long.jsonl", [{"prompt": "x" * 4000, "completion": "y" * 400}, {"prompt": "x" * 40, "completion": "y" * 4000}])
    found, _ = rows_of_data(TrainOptions(data=data), SFTConfig(max_length=256), PlanOptions())
    assert found.longest == 256 and found.epoch.tokens == 256 + 256
    assert found.prompt == (144 + 1) / 2 and found.answer == (112 + 255) / 2
    one, _ = rows_of_data(TrainOptions(), DPOConfig(max_length=1024), PlanOptions(prompt_tokens=100, answer_tokens=5000, rows=3))
    assert one.longest == 1 + 2 * 1023 and one.rows == 3


def test_every_answer_of_a_ranking_is_counted(tmp_path: Path) -> None:
    row = {"prompt": "x" * 40, "completions": ["y" * 40] * 8, "ranks": list(range(1, 9))}
    data = write(tmp_path / "ranked.jsonl", [row])
    found, _ = rows_of_data(TrainOptions(data=data), RewardConfig(), PlanOptions(), ("preference", "ranking"))
    assert found.longest == found.epoch.tokens == 22 + 8 * 22


def test_rows_of_another_kind_and_overfitting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "shown.jsonl", [{"prompt": f"Say {i}", "completion": "y"} for i in range(9)])
    assert main(["plan", "dpo", data, "--hardware", "laptop"]) == 3
    assert "needs preference rows and this is a demonstration row" in capsys.readouterr().err
    assert main(["plan", "ppo", data, "--hardware", "laptop", "--lora_r", "0"]) == 2
    assert "trains an adapter" in capsys.readouterr().err
    assert rows_of_data(TrainOptions(data=data), SFTConfig(overfit=4, max_steps=1), PlanOptions())[0].rows == 4
    capsys.readouterr()
    assert main(["plan", "sft", data, "--hardware", "laptop", "--best_of", "4", "--sample_tokens", "16"]) == 0
    assert "sampling" in capsys.readouterr().out
    pairs = write(tmp_path / "pairs.jsonl", [{"prompt": "Say", "chosen": "y" * 40, "rejected": "z" * 80}])
    judged, _ = rows_of_data(TrainOptions(data=pairs), KTOConfig(), PlanOptions())
    assert judged.rows == 2 and judged.longest == 13 + 32


@pytest.mark.parametrize(
    ("config", "sampled"),
    [
        (PPOConfig(), (0, 0)),
        (PPOConfig(max_length=8192), (0, 0)),
        (GRPOConfig(), (0, 0)),
        (SFTConfig(), (8, 256)),
        (DPOConfig(), (0, 0)),
    ],
    ids=["ppo", "ppo of 8192", "grpo", "best of 8", "dpo"],
)
@pytest.mark.parametrize("rows", [4, 300])
def test_what_a_plan_says_fits_is_not_refused(config: Any, sampled: tuple[int, int], rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the rows are rendered a run knows less than the plan: it must not refuse what the plan, with its real prompts, finds room for."""
    options = TrainOptions(model="smollm2-135m")
    config = replace(config, dtype="float32", tokens_per_microbatch=256)
    data = data_like(config.method, rows, 40, 60)
    need = planned(options, config, data, hardware="laptop", sampled=sampled).need.total
    monkeypatch.setattr("accord.recipes.train.available_memory", lambda _: need)
    shape = config_of("smollm2-135m")
    assert plan_memory(shape, options, config, rows=rows, sampled=sampled).total <= need
    monkeypatch.setattr("accord.recipes.train.available_memory", lambda _: need // 2)
    with pytest.raises(MachineError, match="of memory"):
        plan_memory(shape, options, config, rows=rows, sampled=sampled)


def test_ways_name_flags_under_which_it_does_fit() -> None:
    """A 7B model in four bits in 8 GB; full fine-tuning as LoRA on four bits; fewer answers at once."""
    data = data_like("dpo", 10, 100, 100)
    seven = planned(TrainOptions(model="qwen2.5-7b"), DPOConfig(), data, hardware="laptop-8gb", memory_gb=8.0)
    assert not seven.fits and any(way.flags.startswith("--weights nf4") for way in seven.ways)
    more = {"weights": "nf4", "gradient_checkpointing": True, "tokens_per_microbatch": 256}
    assert planned(TrainOptions(model="qwen2.5-7b"), DPOConfig(**more), data, hardware="laptop-8gb", memory_gb=8.0).fits
    whole = planned(TrainOptions(model="qwen2.5-7b", lora_r=0), SFTConfig(), data_like("sft", 10, 100, 100), hardware="laptop")
    assert not whole.fits and [way.flags for way in whole.ways] == [
        "--lora_r 16 --weights nf4 --gradient_checkpointing true --tokens_per_microbatch 256"
    ]
    wide = PPOConfig(dtype="float32", prompts_per_iteration=32, max_new_tokens=1024, max_length=2048, tokens_per_microbatch=256)
    many = planned(TrainOptions(), wide, data_like("ppo", 100, 100, 1000), hardware="laptop", memory_gb=5.0)
    (flag,) = [way.flags for way in many.ways if "side by side" in way.text]
    fewer = replace(wide, prompts_per_iteration=int(flag.split()[1]))
    assert not many.fits and planned(TrainOptions(), fewer, data_like("ppo", 100, 100, 1000), hardware="laptop", memory_gb=5.0).fits


def test_adam_has_moments_of_the_type_that_is_trained() -> None:
    size = size_of("llama-3.1-8b")
    whole = predict(size, rank=None, weight_bytes=2)
    assert whole.gradients == 2 * size.parameters and whole.optimizer == 4 * size.parameters
    assert predict(size, rank=16, weight_bytes=2).optimizer == 8 * count_lora(size, 16)


def test_a_checkpoint_in_half_is_planned_as_it_is_held() -> None:
    """`weights` at auto holds bfloat16 as it is where float32 does not fit, in the plan as in the run."""
    found = planned(TrainOptions(model="llama-3.2-1b"), DPOConfig(), data_like("dpo", 10, 100, 100), hardware="laptop", memory_gb=5.5)
    assert found.fits and any("weights bf16" in note for note in found.notes)
    assert (
        planned(
            TrainOptions(model="llama-3.2-1b"), DPOConfig(), data_like("dpo", 10, 100, 100), hardware="laptop", memory_gb=13.0
        ).need.weights
        == 4 * size_of("llama-3.2-1b").parameters
    )


# -- how the base will be held ----------------------------------------------------------------------------------------------------------


def shaped(folder: Path, **more: Any) -> str:
    """A folder that holds the config of Llama-3.2-1B, with more in it."""
    folder.mkdir(parents=True)
    config = {**config_of("llama-3.2-1b").to_dict(), "architectures": ["LlamaForCausalLM"], "dtype": "float32", **more}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


FOUR_BIT = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}


def held_folders(place: Path) -> dict[str, str]:
    """A checkpoint of bitsandbytes, a run whose base was held in nf4, and that base."""
    base, run = shaped(place / "base"), place / "run"
    run.mkdir()
    (run / "stack.json").write_text(json.dumps({"base": base, "adapters": ["sft"], "weights": "nf4"}), encoding="utf-8")
    return {"base": base, "bitsandbytes": shaped(place / "bnb", quantization_config=FOUR_BIT), "run": str(run)}


@pytest.mark.parametrize("kind", ["bitsandbytes", "run"])
def test_a_base_in_four_bits_is_planned_so(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`accord plan METHOD` finds room for what training does, which holds these in nf4 without being asked; asked for fp32, it does not."""
    found = held_folders(tmp_path)
    given = ["--hardware", "laptop", "--memory_gb", "4", "--gradient_checkpointing", "true", "--tokens_per_microbatch", "256"]
    assert main(["plan", "dpo", "--model", found[kind], *given]) == 0
    automatic = capsys.readouterr().out
    assert automatic.startswith(f"dpo on {found[kind]} fits: ")
    assert main(["plan", "dpo", "--model", found["base"], *given]) == 4
    capsys.readouterr()
    assert main(["plan", "dpo", "--model", found["base"], *given, "--weights", "nf4"]) == 0
    assert capsys.readouterr().out.split("memory: ")[1].splitlines()[0] == automatic.split("memory: ")[1].splitlines()[0]
    if kind == "run":
        assert main(["plan", "dpo", "--model", found[kind], *given, "--weights", "fp32"]) == 4
    capsys.readouterr()
    assert main(["plan", "dpo", "--model", found[kind], *given, "--lora_r", "0"]) == 2
    assert "weights='nf4' holds the base frozen" in capsys.readouterr().err


def test_the_run_holds_its_base_as_it_was_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accord.recipes.train.available_memory", lambda _: 64e9)
    for name, folder in held_folders(tmp_path).items():
        options, config = TrainOptions(model=folder), DPOConfig(tokens_per_microbatch=256)
        need = plan_memory(config_of(folder), options, config)
        plan = planned(options, replace(config, weights="auto"), data_like("dpo", 4, 20, 20), memory_gb=64.0, quick=True)
        assert config.weights == ("auto" if name == "base" else "nf4")
        assert plan.need.weights == need.weights


@pytest.mark.parametrize(("name", "value"), [("dtype", "bfloat16"), ("fully_shard", True)])
def test_what_is_computed_or_split_otherwise_stays_so(name: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` asks for no bf16 beside another dtype or split weights, which the config would refuse; four bits are four bits beside a dtype."""
    for have in (64e9, 2e9):
        monkeypatch.setattr("accord.recipes.train.available_memory", lambda _, have=have: have)
        halved = shaped(tmp_path / f"half {have}", dtype="bfloat16")
        options, config = TrainOptions(model=halved, force=True), SFTConfig(tokens_per_microbatch=256, **{name: value})
        plan_memory(config_of(halved), options, config)
        assert config.weights == "auto"
        plan = planned(options, config, data_like("sft", 4, 20, 20), memory_gb=have / 1e9, quick=True)
        assert not any("weights" in note for note in plan.notes)
    if name == "dtype":
        four = held_folders(tmp_path)["bitsandbytes"]
        config = SFTConfig(tokens_per_microbatch=256, dtype="bfloat16")
        plan_memory(config_of(four), TrainOptions(model=four, force=True), config)
        assert config.weights == "nf4"


def test_blocks_of_a_gguf_file_are_not_planned_on_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    for hardware, code in (("a100", 2), ("laptop", 0)):
        given = ["--model", "smollm2-135m", "--hardware", hardware, "--weights", "gguf"]
        assert main(["plan", "dpo", *given]) == code
    assert "weights='gguf' is computed with on a CPU. On a GPU use bf16, int8 or nf4." in capsys.readouterr().err
