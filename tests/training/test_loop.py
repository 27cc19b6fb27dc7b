"""What surrounds a step: the state that callbacks and users read, trackers, the progress line."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import DefaultFlowCallback, EarlyStoppingCallback, PrinterCallback, TrainerCallback

import tiny
from accord import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, PPOConfig, PPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from accord.errors import ConfigError
from accord.training import processes
from accord.training.loop import Loop
from accord.training.progress import Progress


def trainer_of(method: str, folder: Path, callbacks: Any = (), **options: Any) -> Loop:
    options = {"output_dir": str(folder), "max_steps": 2, "learning_rate": 1e-3, **options}
    common: dict[str, Any] = {"processing_class": tiny.tokenizer(), "peft_config": tiny.lora(), "callbacks": callbacks}
    if method == "sft":
        return SFTTrainer(tiny.policy(), SFTConfig(**options), tiny.demonstrations(), tiny.demonstrations(3), **common)
    if method == "reward":
        return RewardTrainer(tiny.policy(), RewardConfig(**options), tiny.pairs(), **common)
    if method == "dpo":
        return DPOTrainer(tiny.policy(), None, DPOConfig(**options), tiny.pairs(), **common)
    if method == "kto":
        return KTOTrainer(tiny.policy(), None, KTOConfig(**options), tiny.labelled(), **common)
    sizes = {"prompts_per_iteration": 3, "num_generations": 2, "max_new_tokens": 4}
    return PPOTrainer(PPOConfig(**sizes, **options), model=tiny.policy(), reward=size, train_dataset=tiny.prompts(), **common)


def size(completions: list[Any]) -> list[float]:
    return [float(len(completion[0]["content"])) for completion in completions]


@pytest.mark.parametrize("method", ["sft", "reward", "dpo", "kto", "ppo"])
def test_state_is_what_transformers_users_read(method: str, tmp_path: Path) -> None:
    trainer = trainer_of(method, tmp_path)
    assert (trainer.state.global_step, trainer.state.max_steps, trainer.state.log_history) == (0, 2, [])
    trainer.train()
    state = trainer.state
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert state.log_history == rows == trainer.log_history and len(rows) >= 2
    assert state.global_step == 2 and state.epoch == trainer.epoch > 0
    assert state.is_world_process_zero and state.is_local_process_zero


class Watch(TrainerCallback):
    """Notes what it is told, and asks for an evaluation after step 1."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, bool]] = []
        self.evaluated: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        self.seen.append(("step", state.global_step, state.is_world_process_zero))
        control.should_evaluate = state.global_step == 1

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **keywords: Any) -> None:
        self.evaluated.append(metrics["eval_loss"])


def test_callbacks_read_the_same_state_and_their_evaluations_count(tmp_path: Path) -> None:
    watch = Watch()
    trainer = trainer_of("sft", tmp_path, [watch])
    trainer.train()
    assert watch.seen == [("step", 1, True), ("step", 2, True)]
    assert watch.evaluated == [trainer.state.best_metric] and trainer.state.best_global_step == 1


class Everything(TrainerCallback):
    """Writes down each event, and wants the run saved after each step."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            self.seen.append(name.removeprefix("on_"))
        return super().__getattribute__(name)

    def on_step_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        control.should_save = True


def test_events_come_in_transformers_order(tmp_path: Path) -> None:
    watch = Everything()
    trainer_of("sft", tmp_path, [watch], max_steps=3, per_device_train_batch_size=5, logging_steps=0, eval_steps=0).train()
    step = ["step_begin", "step_end"]
    expected = ["train_begin", "epoch_begin", *step, "save", *step, "epoch_end", "save", "epoch_begin", *step, "save", "train_end"]
    assert watch.seen == expected  # 9 rows, 5 a step: two steps are an epoch


def test_a_wish_to_save_waits_for_the_end_of_a_round(tmp_path: Path) -> None:
    trainer_of("ppo", tmp_path, [Everything()], max_steps=4, num_ppo_epochs=2, save_steps=0, eval_steps=0).train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]


def test_transformers_own_callbacks(tmp_path: Path) -> None:
    """Early stopping compares with the best so far: at a rate of 0 nothing improves on the first evaluation."""
    options = {"eval_steps": 1, "load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "max_steps": 9, "learning_rate": 0.0}
    trainer = trainer_of("sft", tmp_path, [EarlyStoppingCallback(2), PrinterCallback(), DefaultFlowCallback()], **options)
    trainer.train()
    assert trainer.global_step == 3


def test_other_processes_are_not_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of("sft", tmp_path)
    monkeypatch.setattr(processes, "rank", lambda: 1)
    assert not trainer.state.is_world_process_zero


# -- trackers ---------------------------------------------------------------------------------------------------------------------------

MISSING = [name for name in ("wandb", "mlflow", "comet_ml", "clearml", "aim") if importlib.util.find_spec(name) is None]


@pytest.mark.skipif(not MISSING, reason="every tracker is installed here")
def test_a_tracker_that_is_not_installed_is_an_error(tmp_path: Path) -> None:
    name = MISSING[0]
    with pytest.raises(ConfigError, match=f"{name} is not installed. pip install {name.replace('_', '-')}"):
        trainer_of("sft", tmp_path, report_to=name)
    with pytest.raises(ConfigError, match=r"no tracker 'wanddb'\. The trackers are .*wandb"):
        trainer_of("sft", tmp_path, report_to="wanddb")


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_a_tracker_that_is_installed_gets_the_run(tmp_path: Path) -> None:
    trainer_of("sft", tmp_path, report_to="tensorboard").train()
    assert list(tmp_path.rglob("events.out.tfevents.*"))


# -- progress ---------------------------------------------------------------------------------------------------------------------------


def test_progress_says_tokens_a_second(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer_of("sft", tmp_path).train()
    last = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  step ")][-1]
    found = re.search(r"step 2/2 · loss [\d.]+ · entropy [\d.]+ · ([\d,]+) tokens/s · \d+ s, about 0 s left", last)
    assert found and int(found[1].replace(",", "")) > 0


def test_tokens_before_a_resume_are_not_speed(capsys: pytest.CaptureFixture[str]) -> None:
    """A run that goes on with a million tokens behind it has done none of them in this process."""
    with Progress(10, 9, 1_000_000, ["loss"]) as progress:
        progress.advance(10, {"loss": 1.0, "num_tokens": 1_000_000.0})
    assert "loss 1 · 0 tokens/s" in capsys.readouterr().err


# -- folders ----------------------------------------------------------------------------------------------------------------------------


def test_a_run_without_a_folder_goes_on_in_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resumed by the path of its checkpoint alone: the same folder, the same metrics file, and no second one is made."""
    monkeypatch.chdir(tmp_path)
    first = trainer_of("sft", tmp_path, output_dir=None, save_steps=1, eval_steps=1)
    assert not (tmp_path / "runs").exists()  # nothing is made before there is something to write
    first.train()
    again = trainer_of("sft", tmp_path, output_dir=None, save_steps=1, eval_steps=1, max_steps=4)
    again.train(str(first.folder / "checkpoint-2"))
    assert again.folder == first.folder
    assert [path.name for path in (tmp_path / "runs").iterdir() if path.name != "last"] == [first.folder.name]
    steps = [json.loads(line)["step"] for line in (first.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sorted(set(steps)) == [1, 2, 3, 4]


def test_a_run_resumed_into_another_folder_still_finds_its_best(tmp_path: Path) -> None:
    """At a rate of 1 everything learned is lost at once: the best evaluation stays that of the folder the run came from."""
    options = {"eval_steps": 10, "load_best_model_at_end": True, "metric_for_best_model": "eval_mean_token_logprob"}
    first = trainer_of("sft", tmp_path / "one", max_steps=30, **{**options, "learning_rate": 1e-2})
    first.train()
    best = first.state.best_metric
    assert best is not None
    again = trainer_of("sft", tmp_path / "two", max_steps=50, **{**options, "learning_rate": 1.0, "lr_scheduler_type": "constant"})
    again.train(str(tmp_path / "one" / "checkpoint-30"))
    assert again.global_step == 50 and again.state.best_model_checkpoint == str(tmp_path / "one" / "checkpoint-30")
    assert again.evaluate()["eval_mean_token_logprob"] == pytest.approx(best, abs=1e-6)
