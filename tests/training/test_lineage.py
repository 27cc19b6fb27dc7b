"""Every run says where it comes from: data, parents, versions, seed, what was skipped; and carries a model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from accord import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from accord.errors import AccordError, ConfigError
from accord.types import content_hash


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def test_lineage_of_two_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    policy, tokenizer, rows = tiny.policy(), tiny.tokenizer(), tiny.demonstrations(5)
    first = SFTTrainer(policy, SFTConfig(output_dir="runs/a-sft", max_steps=1), rows, None, tokenizer, peft_config=tiny.lora())
    first.train()
    first.save_model()
    second = DPOTrainer(
        policy,
        None,
        DPOConfig(output_dir="runs/b-dpo", max_steps=1, skip_step0_checks=True),
        tiny.pairs(4),
        None,
        tokenizer,
        peft_config=tiny.lora(),
    )
    second.train()
    second.save_model()
    found = record(tmp_path / "runs" / "b-dpo")
    assert found["finished"] and found["steps"] == 1 and found["metrics"]["loss"] == second.log_history[-1]["loss"]
    assert found["parents"] == [{"adapter": "sft", "run": "runs/a-sft"}]
    assert found["adapters"] == ["sft", "dpo"] and found["seed"] == 42 and found["config"]["beta"] == second.config.beta
    assert found["data"]["train_dataset"] == {"rows": 4, "hash": content_hash([row.id for row in tiny.pairs(4)])}
    assert found["versions"]["torch"].startswith("2.") and len(found["skipped_checks"]) == 1
    assert not record(tmp_path / "runs" / "a-sft")["skipped_checks"]
    card = (tmp_path / "runs" / "b-dpo" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nbase_model:") and "4 rows" in card and "Checks that were skipped" in card and str(tmp_path) not in card
    assert (tmp_path / "runs" / "last" / "run.json").samefile(tmp_path / "runs" / "b-dpo" / "run.json")


def trained(folder: Path, **changes: Any) -> SFTTrainer:
    settings = {"output_dir": str(folder), "max_steps": 2, **changes}
    trainer = SFTTrainer(tiny.policy(), SFTConfig(**settings), tiny.demonstrations(5), None, tiny.tokenizer(), peft_config=tiny.lora())
    trainer.train()
    return trainer


def test_a_run_is_finished_when_its_model_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash between the last step and the saved model leaves the run unfinished and without a card, whatever else was saved elsewhere."""
    trainer = trained(tmp_path / "run")
    assert not record(tmp_path / "run")["finished"] and record(tmp_path / "run")["metrics"]["loss"] > 0
    trainer.save_model(tmp_path / "elsewhere")
    (tmp_path / "run" / "stack").write_text("in the way", encoding="utf-8")
    with pytest.raises((OSError, AccordError)):
        trainer.save_model()
    assert not record(tmp_path / "run")["finished"] and not (tmp_path / "run" / "README.md").exists()
    (tmp_path / "run" / "stack").unlink()
    trainer.save_model()
    assert record(tmp_path / "run")["finished"] and (tmp_path / "run" / "README.md").exists()
    assert not (tmp_path / "elsewhere" / "run.json").exists()


def test_resuming_a_complete_run_keeps_its_numbers(tmp_path: Path) -> None:
    trained(tmp_path, save_steps=1).save_model()
    before = record(tmp_path)
    trained(tmp_path, save_steps=1, resume_from_checkpoint=True).save_model()
    again = record(tmp_path)
    assert again["finished"] and again["steps"] == 2 and again["metrics"]["loss"] == before["metrics"]["loss"]


def test_a_folder_with_checkpoints_is_not_started_over(tmp_path: Path) -> None:
    """The new run's checkpoints would be pruned as the older ones, and a resume would take the other run's."""
    trained(tmp_path, save_steps=1)
    with pytest.raises(ConfigError, match=r"holds checkpoint-2 of an earlier run.*--resume_from_checkpoint true"):
        trained(tmp_path, save_steps=1, max_steps=1)
    assert len((tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_other_rows_have_another_hash(tmp_path: Path) -> None:
    hashes = set()
    for count in (4, 5):
        config = SFTConfig(output_dir=str(tmp_path / str(count)), max_steps=1)
        SFTTrainer(tiny.policy(), config, tiny.demonstrations(count), None, tiny.tokenizer(), peft_config=tiny.lora()).train()
        hashes.add(record(tmp_path / str(count))["data"]["train_dataset"]["hash"])
    assert len(hashes) == 2
    assert not (tmp_path / "last").exists()
