"""Run folders of every kind, trained and then opened, measured and exported by name: what was trained is what comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import tiny
from accord import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from accord.cli import main
from accord.data.packing import Branch, Unit
from accord.data.render import Renderer
from accord.errors import DataError
from accord.models.adapters import PolicyModel
from accord.models.opened import open_model
from accord.models.save import load_stack, save_policy
from accord.rewards.learned import RewardModel

UNITS = [Unit((5, 6, 7, 8), (Branch((9, 10, 11)), Branch((12, 2)))), Unit((20, 21), (Branch((22, 23, 24, 25, 2)),))]
OTHER_TEMPLATE = tiny.TEMPLATE.replace("<|start|>", "Q ")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base model on disk whose generation config ends answers at token 0, though its tokenizer's end is 2."""
    folder = tmp_path / "base"
    model = tiny.model()
    model.generation_config.eos_token_id = 0
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return tiny.pairs_file(tmp_path)


def trained_reward(folder: Path, model: Any, **options: Any) -> RewardTrainer:
    config = RewardConfig(**{"output_dir": str(folder), "max_steps": 3, "learning_rate": 1e-2, "dtype": "float32", **options})
    trainer = RewardTrainer(model, config, tiny.pairs(), processing_class=tiny.tokenizer())
    trainer.train()
    trainer.save_model()
    return trainer


def stops(folder: Path) -> list[int]:
    found = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
    return found if isinstance(found, list) else [found]


def evaluated(run: Path, pairs: Path, capsys: pytest.CaptureFixture[str]) -> float:
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(pairs)]) == 0
    line = capsys.readouterr().out.splitlines()[0].split()
    assert line[0] == "all" and line[2:] == ["(8", "pairs)"]
    return float(line[1])


# -- reward models without adapters ---------------------------------------------------------------------------------------------------


def test_a_fully_trained_reward_model_brings_its_backbone(tmp_path: Path) -> None:
    trainer = trained_reward(tmp_path / "run", tiny.policy())
    ours = trainer.reward_model.score(UNITS)
    moved = tiny.policy()
    assert not torch.allclose(RewardModel(moved, (), trainer.heads, trainer.renderer).score(UNITS), ours, atol=1e-2)
    loaded = RewardModel.load(moved, tmp_path / "run", trainer.renderer)
    assert loaded.policy is not moved and torch.allclose(loaded.score(UNITS), ours, atol=1e-5)
    opened = open_model(str(tmp_path / "run"), dtype="float32")
    again = RewardModel.load(opened.policy, tmp_path / "run", opened.renderer)
    assert again.policy is opened.policy and torch.allclose(again.score(UNITS), ours, atol=1e-5)
    RewardModel.load(tiny.policy(), tmp_path / "run", trainer.renderer).save(tmp_path / "copy", tiny.tokenizer(), full=True)
    assert torch.allclose(RewardModel.load(moved, tmp_path / "copy", trainer.renderer).score(UNITS), ours, atol=1e-5)


@pytest.mark.parametrize("backbone", ["heads", "full"])
def test_a_reward_run_without_adapters_is_evaluated_and_exported(
    backbone: str, base: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, target = tmp_path / "run", tmp_path / "classifier"
    kind = ["--backbone", "heads"] if backbone == "heads" else ["--lora_r", "0"]
    settings = ["--model", str(base), "--output_dir", str(run), "--num_heads", "2", "--max_steps", "8", "--learning_rate", "1e-2"]
    assert main(["reward", str(pairs), *settings, "--dtype", "float32", "--max_length", "128", *kind]) == 0
    assert (run / "config.json").exists() == (backbone == "full")
    opened = open_model(str(run), dtype="float32")
    assert opened.stack == ()
    reward = RewardModel.load(opened.policy, run, opened.renderer)
    rows = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()]
    units = opened.renderer.units(tiny.pairs())
    assert evaluated(run, pairs, capsys) >= 0.5 and len(rows) == 8
    assert main(["export", str(run), "--to", str(target), "--sequence-classification"]) == 0
    classifier = AutoModelForSequenceClassification.from_pretrained(target, dtype=torch.float32).eval()
    with torch.no_grad():
        theirs = [float(classifier(torch.tensor([[*unit.prompt_ids, *branch.ids]])).logits) for unit in units for branch in unit.branches]
    ours = reward.score(units).mean(1)
    assert torch.allclose(torch.tensor(theirs) + classifier.config.accord_score_constant, ours, atol=1e-4)
    assert not (target / "merged").exists()


# -- tokenizer, template and stops -----------------------------------------------------------------------------------------------------


def test_a_run_is_opened_and_exported_with_its_own_template_and_stops(base: Path, tmp_path: Path) -> None:
    run, target = tmp_path / "run", tmp_path / "merged"
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = OTHER_TEMPLATE
    config = SFTConfig(output_dir=str(run), max_steps=1, learning_rate=1e-3, dtype="float32")
    trainer = SFTTrainer(str(base), config, tiny.demonstrations(), processing_class=tokenizer, peft_config=tiny.lora())
    trainer.train()
    trainer.save_model()
    assert 2 in stops(run) and stops(base) == [0]
    opened = open_model(str(run), dtype="float32")
    assert opened.tokenizer.chat_template == OTHER_TEMPLATE
    row = tiny.demonstrations(1)[0].prompt
    assert opened.renderer.prompt_ids(row) == trainer.renderer.prompt_ids(row) != open_model(str(base)).renderer.prompt_ids(row)
    assert opened.renderer.end_ids == trainer.renderer.end_ids
    assert main(["export", str(run), "--to", str(target)]) == 0
    row = torch.tensor([[5, 6, 7]])
    with torch.no_grad(), opened.policy.using(opened.stack, packed=False):
        assert torch.allclose(AutoModelForCausalLM.from_pretrained(target)(row).logits, opened.policy.model(row).logits, atol=1e-5)
    assert stops(target) == stops(run)
    assert (target / "chat_template.jinja").read_text(encoding="utf-8") == OTHER_TEMPLATE


def test_an_exported_folder_stops_where_the_tokenizer_ends(base: Path, tmp_path: Path) -> None:
    """From a base whose config never named the end token, and without a run folder that did."""
    assert main(["export", str(base), "--to", str(tmp_path / "out")]) == 0
    assert stops(tmp_path / "out")[0] == 2
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").generation_config.pad_token_id == tiny.tokenizer().pad_token_id


def test_a_run_copied_as_it_is_opens_again(tmp_path: Path, base: Path) -> None:
    opened = open_model(str(base), dtype="float32")
    stack = opened.policy.add_adapter("sft", tiny.lora())
    tiny.shake(opened.policy, "sft")
    save_policy(opened.policy, stack, opened.tokenizer, tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--to", str(tmp_path / "copy"), "--merged", "false"]) == 0
    assert open_model(str(tmp_path / "copy")).stack == ("sft",)


# -- exports that cannot be -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "flags", "words"),
    [
        ({}, [], "--sequence_classification"),
        ({"head_width": 3}, ["--sequence-classification"], "head_width=0"),
        ({"head_context": True}, ["--sequence-classification"], "head_context=False"),
    ],
)
def test_a_reward_run_is_never_exported_without_its_heads(
    options: dict[str, Any], flags: list[str], words: str, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained_reward(tmp_path / "run", str(base), backbone="heads", **options)
    capsys.readouterr()
    assert main(["export", str(tmp_path / "run"), "--to", str(tmp_path / "out"), *flags]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "Error" in line]
    assert len(error) == 1 and words in error[0]
    assert not (tmp_path / "out").exists()


def test_a_policy_is_no_classifier(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(base), "--to", str(tmp_path / "out"), "--sequence-classification"]) == 2
    assert "holds no reward model" in capsys.readouterr().err


def test_a_run_that_names_its_base_by_a_relative_path_opens_from_elsewhere(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base.parent)
    config = SFTConfig(output_dir=str(tmp_path / "run"), max_steps=1, learning_rate=1e-2)
    SFTTrainer(base.name, config, tiny.demonstrations(4), peft_config=tiny.lora()).save_model()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert open_model(str(tmp_path / "run")).stack == ("sft",)


@pytest.mark.parametrize("name", ["stack.json", "stack/0-sft/adapter_model.safetensors", "stack/0-sft/adapter_config.json"])
def test_a_damaged_run_is_one_line(name: str, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = SFTConfig(output_dir=str(tmp_path / "run"), max_steps=1, learning_rate=1e-2)
    SFTTrainer(str(base), config, tiny.demonstrations(4), peft_config=tiny.lora()).save_model()
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    capsys.readouterr()
    assert main(["sample", str(tmp_path / "run"), "--prompt", "Hi", "--max_new_tokens", "2"]) == 3
    error = [line for line in capsys.readouterr().err.splitlines() if "Error" in line]
    assert len(error) == 1 and str(path.parent) in error[0]


def test_what_was_trained_on_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    """One weight among all differs: same shapes, so nothing else would notice."""
    trained_reward(tmp_path / "reward", str(base), backbone="heads")
    config = SFTConfig(output_dir=str(tmp_path / "sft"), max_steps=1, learning_rate=1e-2)
    SFTTrainer(str(base), config, tiny.demonstrations(4), peft_config=tiny.lora()).save_model()

    def load(model: Any) -> None:
        policy = PolicyModel(model)
        RewardModel.load(policy, tmp_path / "reward", Renderer(tiny.tokenizer()))
        assert load_stack(policy, tmp_path / "sft") == ("sft",)

    for dtype in (torch.float32, torch.bfloat16):  # the same model on other hardware
        load(AutoModelForCausalLM.from_pretrained(base, dtype=dtype))
    other = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        other.model.norm.weight[0] += 0.1
    for what in (
        lambda policy: RewardModel.load(policy, tmp_path / "reward", Renderer(tiny.tokenizer())),
        lambda policy: load_stack(policy, tmp_path / "sft"),
    ):
        with pytest.raises(DataError, match=r"was trained on another base model .*base\) than .*base: its numbers would mean nothing"):
            what(PolicyModel(other))
