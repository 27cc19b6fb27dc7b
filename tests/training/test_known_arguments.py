"""What users bring from TRL's trainers: a name that is not taken here is one line that says what to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import accord
import tiny
from accord.errors import ConfigError

ROWS: dict[str, Any] = {
    "SFT": tiny.demonstrations(4),
    "Reward": tiny.pairs(4),
    "DPO": tiny.pairs(4),
    "KTO": tiny.labelled(4),
    "PPO": [{"prompt": "Say yes"}],
}
OF_TRL = {
    "SFT": "data_collator compute_loss_func compute_metrics optimizers optimizer_cls_and_kwargs preprocess_logits_for_metrics quantization_config formatting_func",
    "Reward": "data_collator compute_metrics optimizers optimizer_cls_and_kwargs preprocess_logits_for_metrics quantization_config model_init",
    "DPO": "data_collator compute_metrics optimizers quantization_config",
    "KTO": "data_collator compute_metrics optimizers quantization_config",
    "PPO": "data_collator ref_model reward_model value_model optimizers",
}
"""Constructor arguments of TRL 1.16 (of its last PPOTrainer, 1.10) that have no counterpart."""


def make(kind: str, folder: Path, **arguments: Any) -> Any:
    args = getattr(accord, f"{kind}Config")(output_dir=str(folder), max_steps=1)
    common: dict[str, Any] = {"train_dataset": ROWS[kind], "processing_class": tiny.tokenizer(), "peft_config": tiny.lora()}
    reward = {"reward": lambda completions, **_: [0.0] * len(completions)} if kind == "PPO" else {}
    return getattr(accord, f"{kind}Trainer")(model=tiny.policy(), args=args, **common, **reward, **arguments)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in OF_TRL.items() for name in names.split()])
def test_an_argument_of_trl_says_what_to_use(kind: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^{kind}Trainer has no {name}(\. Use instead| and needs none): [^\n]+$"):
        make(kind, tmp_path, **{name: object()})


@pytest.mark.parametrize("kind", OF_TRL)
def test_empty_ones_are_taken(kind: str, tmp_path: Path) -> None:
    """As scripts pass them that hand everything on: None, and TRL's default of optimizers."""
    trainer = make(kind, tmp_path, **dict.fromkeys(OF_TRL[kind].split()), tokenizer=None)
    assert trainer.total_steps() == 1
    names = dict.fromkeys(("optimizers", "optimizer_cls_and_kwargs"), (None, None))
    assert make(kind, tmp_path, **names).total_steps() == 1


@pytest.mark.parametrize(
    ("kind", "given", "told"),
    [
        ("DPO", {"train_datset": []}, "DPOTrainer has no train_datset. Did you mean train_dataset?"),
        ("Reward", {"known_feature": {}}, "RewardTrainer has no known_feature. Did you mean known_features?"),
        ("Reward", {"eval_data": []}, "RewardTrainer has no eval_data. Did you mean eval_dataset?"),
        ("PPO", {"reward_funcs": [len]}, "PPOTrainer has no reward_funcs. Use instead: reward=."),
        ("DPO", {"beta": 0.1}, "DPOTrainer has no beta: it goes into the config, args=DPOConfig(beta=...)."),
        ("DPO", {"rpo_alpha": 1.0}, "DPOTrainer has no rpo_alpha: it goes into the config, args=DPOConfig(sft_coefficient=...)."),
        ("PPO", {"kl_coef": 0.1}, "PPOTrainer has no kl_coef: it goes into the config, args=PPOConfig(kl_coef=...)."),
        ("SFT", {"max_seq_length": 512}, "SFTTrainer has no max_seq_length: it goes into the config, args=SFTConfig(max_length=...)."),
        ("KTO", {"zzz": 1}, "KTOTrainer has no zzz. It takes model, ref_model, args, train_dataset, eval_dataset, processing_class, callbacks, "),
    ],
)  # fmt: skip
def test_a_wrong_name_names_the_right_one(kind: str, given: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        make(kind, tmp_path, **given)
    assert str(caught.value).startswith(told)


def test_a_harmless_one_is_taken_with_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make("SFT", tmp_path, packing=True).total_steps() == 1
    assert "SFTTrainer: packing=True is not needed: rows are always packed" in capsys.readouterr().err
