"""Whole runs that cannot go well: one clear line, the right kind of error, nothing half-written, nothing dropped or scored 0 in silence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from accord import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, PPOConfig, PPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from accord.errors import AccordError, ConfigError, DataError, DivergedError, MachineError

RUN = Path(__file__).parent / "training" / "run_training.py"


def dpo(
    folder: Path, rows: Any = None, model: Any = None, tokenizer: Any = None, ref_model: Any = None, peft: bool = True, **options: Any
) -> DPOTrainer:
    config = DPOConfig(**{"output_dir": str(folder), "max_steps": 2, "learning_rate": 1e-4, **options})
    return DPOTrainer(
        model if model is not None else tiny.policy(), ref_model, config, tiny.pairs() if rows is None else rows, None, tokenizer or tiny.tokenizer(),
        peft_config=tiny.lora() if peft else None,
    )  # fmt: skip


def ppo(folder: Path, reward: Any, **options: Any) -> PPOTrainer:
    config = PPOConfig(
        **{
            "output_dir": str(folder),
            "num_iterations": 2,
            "prompts_per_iteration": 3,
            "num_generations": 2,
            "max_new_tokens": 5,
            "learning_rate": 1e-4,
            **options,
        }
    )
    return PPOTrainer(config, tiny.tokenizer(), tiny.policy(), reward, tiny.prompts(), peft_config=tiny.lora())


def constant(*values: Any) -> Callable[..., list[Any]]:
    def reward(completions: list[Any]) -> list[Any]:
        return [values[i % len(values)] for i in range(len(completions))]

    return reward


def without_end() -> Any:
    made = tiny.tokenizer(template=False)
    made.eos_token = None
    return made


def without_stop() -> Any:
    made = tiny.policy()
    made.model.generation_config.eos_token_id = None
    made.model.config.eos_token_id = None
    return made


def template(text: str) -> Any:
    made = tiny.tokenizer()
    made.chat_template = text
    return made


def same_as_reference(folder: Path) -> None:
    model = tiny.model()
    dpo(folder, model=model, ref_model=model, peft=False)


def raises(completions: list[Any]) -> list[float]:
    raise KeyError("score")


def untrained(folder: Path) -> None:
    trainer = dpo(folder)
    trainer.policy.train_only(None)
    trainer.train()


def cut_checkpoint(folder: Path) -> None:
    dpo(folder, save_steps=1).train()
    path = folder / "checkpoint-2" / "training.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    dpo(folder, max_steps=3).train(resume_from_checkpoint=True)


def other_checkpoint(folder: Path) -> None:
    dpo(folder, save_steps=1).train()
    trainer = SFTTrainer(
        tiny.policy(),
        SFTConfig(output_dir=str(folder), max_steps=3),
        tiny.demonstrations(),
        None,
        tiny.tokenizer(),
        peft_config=tiny.lora(),
    )
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2"))


def big_tokenizer() -> Any:
    made = tiny.tokenizer()
    made.add_tokens([f"word{i}" for i in range(50)])
    return made


CASES: list[tuple[str, Callable[[Path], Any], type[AccordError], str]] = [
    ("no rows", lambda f: dpo(f, rows=[]), DataError, "no rows"),
    ("rows of another kind", lambda f: dpo(f, rows=tiny.demonstrations(2)), DataError, "tiny demonstration.*needs preference rows"),
    ("a row that is no table row", lambda f: dpo(f, rows=[1, 2]), DataError, "row"),
    ("missing column", lambda f: dpo(f, rows=[{"prompt": "a", "chosen": "b"}]), DataError, "needs preference rows.*other columns: chosen"),
    ("mixed types", lambda f: dpo(f, rows=[{"prompt": "a", "chosen": "b", "rejected": 3.5}]), DataError, "rejected"),
    ("no end token", lambda f: dpo(f, model=without_stop(), tokenizer=without_end()), ConfigError, "no end-of-sequence token"),
    ("template that forgets the prompt", lambda f: dpo(f, tokenizer=template("{{ messages[-1]['content'] }}{% if add_generation_prompt %}!{% endif %}")), DataError, "chat template"),
    ("tokenizer of another model", lambda f: dpo(f, tokenizer=big_tokenizer()), ConfigError, "do not belong together"),
    ("model and reference are one object", same_as_reference, ConfigError, "same object"),
    ("model made in memory, no tokenizer", lambda f: DPOTrainer(tiny.model(), None, DPOConfig(output_dir=str(f)), tiny.pairs()), ConfigError, "Pass processing_class"),
    ("something that is no model", lambda f: dpo(f, model=3), ConfigError, "model must be"),
    ("unknown model name, offline", lambda f: dpo(f, model="no-such/model"), AccordError, "no-such/model"),
    ("nothing to train", untrained, DataError, "Nothing to train"),
    ("two names for the tokenizer", lambda f: DPOTrainer(tiny.model(), None, DPOConfig(output_dir=str(f)), tiny.pairs(), None, tiny.tokenizer(), tokenizer=tiny.tokenizer()), ConfigError, "not both"),
    ("a file where the run should be", lambda f: dpo(Path(__file__)), ConfigError, "test_bad_runs.py is a file; a run needs a folder"),
    ("nothing to resume from", lambda f: dpo(f).train(resume_from_checkpoint=True), DataError, "no checkpoint"),
    ("checkpoint cut in half", cut_checkpoint, DataError, "damaged"),
    ("checkpoint of another method", other_checkpoint, DataError, "made with another model or adapter"),
    ("loss that is not finite", lambda f: dpo(f, max_steps=5, learning_rate=1e30, max_grad_norm=0.0).train(), DivergedError, "learning_rate"),
    ("soft labels where they mean nothing", lambda f: dpo(f, rows=[{"prompt": "a", "chosen": "b", "rejected": "c", "probability": 0.7}], loss_type="ipo").train(), ConfigError, "loss_type='sigmoid'"),
    ("no reward", lambda f: ppo(f, []).train(), ConfigError, "No reward"),
    ("reward of the wrong length", lambda f: ppo(f, lambda completions: [1.0]).train(), ConfigError, "1 values for 6 completions"),
    ("reward that raises", lambda f: ppo(f, raises).train(), ConfigError, "raises raised KeyError"),
    ("reward that is text", lambda f: ppo(f, constant("good")).train(), ConfigError, "'good'"),
    ("rewards all NaN", lambda f: ppo(f, constant(float("nan"))).train(), DivergedError, "no answer could be scored .*nan"),
    ("rewards all None", lambda f: ppo(f, constant(None)).train(), DivergedError, "not scored"),
    ("KTO without labels", lambda f: KTOTrainer(tiny.policy(), None, KTOConfig(output_dir=str(f)), tiny.pairs(2)[:0] + tiny.demonstrations(2), None, tiny.tokenizer(), peft_config=tiny.lora()), DataError, "needs labelled"),
]  # fmt: skip


@pytest.mark.parametrize(("run", "kind", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_one_clear_line(run: Callable[[Path], Any], kind: type[AccordError], words: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=words) as caught:
        run(tmp_path / "run")
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.rglob("*.part*"))


def test_some_rewards_that_failed_are_counted_not_scored_as_zero(tmp_path: Path) -> None:
    trainer = ppo(tmp_path, constant(1.0, float("nan"), 2.0, None), num_iterations=1)
    trainer.train()
    row = next(row for row in trainer.log_history if "objective/scores" in row)
    assert row["completions/not_scored"] == 3  # of six answers: the 2nd, 4th and 6th
    assert row["objective/scores"] == pytest.approx((1.0 + 2.0 + 1.0) / 3)
    stored = [json.loads(line)["score"] for line in (tmp_path / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [score["value"] for score in stored] == [1.0, None, 2.0, None, 1.0, None]
    assert "nan" in stored[1]["error"] and "None" in stored[3]["error"]


@pytest.mark.parametrize("method", ["sft", "reward", "dpo", "kto"])
def test_prompts_longer_than_max_length_are_cut_and_said(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The prompt loses its beginning, never the answer its end; the run says how many."""
    long = " ".join(["very"] * 60)
    rows = {
        "sft": [{"prompt": long, "completion": "Short."}, {"prompt": "Hi", "completion": "Yes."}],
        "reward": [{"prompt": long, "chosen": "Short.", "rejected": "No."}, {"prompt": "Hi", "chosen": "a", "rejected": "b"}],
        "dpo": [{"prompt": long, "chosen": "Short.", "rejected": "No."}, {"prompt": "Hi", "chosen": "a", "rejected": "b"}],
        "kto": [{"prompt": long, "completion": "Short.", "label": True}, {"prompt": "Hi", "completion": "b", "label": False}],
    }[method]
    options = {"output_dir": str(tmp_path), "max_length": 64, "max_steps": 1, "learning_rate": 1e-4}
    common: dict[str, Any] = {"train_dataset": rows, "processing_class": tiny.tokenizer(), "peft_config": tiny.lora()}
    trainer: Any = {
        "sft": lambda: SFTTrainer(tiny.policy(), SFTConfig(**options), **common),
        "reward": lambda: RewardTrainer(tiny.policy(), RewardConfig(**options), **common),
        "dpo": lambda: DPOTrainer(tiny.policy(), None, DPOConfig(**options), **common),
        "kto": lambda: KTOTrainer(tiny.policy(), None, KTOConfig(**options), **common),
    }[method]()
    trainer.train()
    assert "1 prompts cut on the left" in capsys.readouterr().err
    first = trainer.train_units[0]
    assert len(first.prompt_ids) + max(len(branch.ids) for branch in first.branches) <= 64
    assert first.branches[0].ids[-1] in trainer.renderer.end_ids
    assert trainer.processing_class.decode(first.branches[0].ids).startswith("Short.")


@pytest.mark.skipif(os.name != "posix", reason="file size limits are a POSIX feature")
def test_disk_full_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    """Files above a limit cannot be written, as on a full disk: the run ends with one line and its earlier checkpoint resumes."""
    settings = {"save_steps": 1, "max_steps": 1}
    subprocess.run([sys.executable, str(RUN), str(tmp_path), json.dumps(settings), "sft"], check=True, timeout=300, capture_output=True)
    size = (tmp_path / "sft" / "checkpoint-1" / "training.safetensors").stat().st_size
    limited = f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({size // 2}, {size // 2})); sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    settings = {"save_steps": 1, "max_steps": 3, "resume": True}
    done = subprocess.run(
        [sys.executable, "-c", limited, str(RUN), str(tmp_path), json.dumps(settings), "sft"],
        check=False,
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert (
        re.search("MachineError: Could not write .*checkpoint-2: File too large", done.stderr)
        and "free disk space and resume" in done.stderr
    )
    assert [path.name for path in (tmp_path / "sft").iterdir() if "checkpoint" in path.name] == ["checkpoint-1"]
    subprocess.run([sys.executable, str(RUN), str(tmp_path), json.dumps(settings), "sft"], check=True, timeout=300, capture_output=True)
    assert (tmp_path / "sft" / "checkpoint-3").is_dir()


def test_weights_survive_a_run_that_diverged(tmp_path: Path) -> None:
    trainer = dpo(tmp_path, max_steps=50, learning_rate=1e30, max_grad_norm=0.0, save_steps=1)
    with pytest.raises(DivergedError):
        trainer.train()
    kept = sorted(tmp_path.glob("checkpoint-*"))
    assert kept
    fresh = dpo(tmp_path, max_steps=50)
    fresh._build_optimizer()
    fresh._resume(kept[0])
    assert all(bool(torch.isfinite(p).all()) for p in fresh.parameters().values())


def test_the_table_is_not_thinner_than_promised() -> None:
    assert len(CASES) >= 25
    assert issubclass(MachineError, AccordError)
