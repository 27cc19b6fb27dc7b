"""The table of deliberate differences in docs/from-trl.md, both ways: TRL 1.16 does the one, accord the other."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import get_peft_model

import accord
import tiny
from accord import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from accord.errors import DivergedError
from accord.training.loop import Loop
from parity.test_trl import accord_arguments, chat, peft_model, tokenizer, trl, trl_arguments


def theirs(kind: str, folder: Any, rows: list[dict[str, Any]], *, model: Any = None, made: Any = None, **options: Any) -> Any:
    """A TRL trainer on these rows, one step unless said otherwise."""
    more = {"completion_only_loss": True, "loss_type": "nll"} if kind == "SFT" else {}
    arguments = {**trl_arguments(), "max_steps": 1, **more, **options}
    args = getattr(trl, f"{kind}Config")(output_dir=str(folder / "trl"), **arguments)
    model = peft_model() if model is None else model
    return getattr(trl, f"{kind}Trainer")(
        model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=made or tokenizer()
    )


def ours(kind: str, folder: Any, rows: list[dict[str, Any]], *, model: Any = None, ref_model: Any = None, **options: Any) -> Any:
    config, trainer = {"SFT": (SFTConfig, SFTTrainer), "DPO": (DPOConfig, DPOTrainer), "Reward": (RewardConfig, RewardTrainer)}[kind]
    args = config(**{**accord_arguments(folder / "accord"), "max_steps": 1, **options})
    reference = {} if ref_model is None else {"ref_model": ref_model}
    return trainer(peft_model() if model is None else model, args=args, train_dataset=rows, processing_class=tokenizer(), **reference)


def first(trainer: Any) -> dict[str, float]:
    trainer.train()
    return (trainer.log_history if isinstance(trainer, Loop) else trainer.state.log_history)[0]


def test_averaging_under_accumulation(tmp_path: Any) -> None:
    """Three pairs as 2 + 1: TRL averages the averages, so the one alone weighs double; here all weigh the same, as in one batch of three."""
    rows = chat(tiny.pairs(3))
    split = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    whole = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 1}
    norms = {
        theirs: [first(theirs("DPO", tmp_path, rows, loss_type=["hinge"], beta=0.1, **batch))["grad_norm"] for batch in (split, whole)],
        ours: [
            first(ours("DPO", tmp_path, rows, ref_model=peft_model(), loss_type="hinge", beta=0.1, **batch))["grad_norm"]
            for batch in (split, whole)
        ],
    }
    assert norms[ours][0] == pytest.approx(norms[ours][1], rel=1e-5)
    assert norms[theirs][1] == pytest.approx(norms[ours][1], rel=1e-4)
    assert abs(norms[theirs][0] - norms[theirs][1]) > 0.01 * norms[theirs][1]


def test_plain_strings(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """TRL leaves them as they are; here the model's chat template goes around them, and a line says so."""
    rows = [{"prompt": "Hi ", "completion": "Yo"}] * 4
    text = tokenizer().decode(theirs("SFT", tmp_path, rows).train_dataset[0]["input_ids"])
    assert text == "Hi Yo<|end|>"
    unit = ours("SFT", tmp_path, rows).train_units[0]
    assert tokenizer().decode([*unit.prompt_ids, *unit.branches[0].ids]) == "<|start|>user\nHi <|end|><|start|>assistant\nYo<|end|>"
    assert "The chat template" in capsys.readouterr().err


def test_ties_in_accuracy(tmp_path: Any) -> None:
    """Pairs of equal answers: wrong for TRL, half right here."""
    rows = [{"prompt": "Hi", "chosen": "Yo", "rejected": "Yo"}] * 4
    assert first(theirs("DPO", tmp_path, rows))["rewards/accuracies"] == 0.0
    assert first(ours("DPO", tmp_path, rows, ref_model=peft_model()))["rewards/accuracies"] == 0.5


def test_reference_of_a_model_that_has_no_file(tmp_path: Any) -> None:
    """TRL loads the reference from the model's path, which a model made in memory does not have; here it is the model before step 0."""
    rows = chat(tiny.pairs(4))
    with pytest.raises((OSError, ValueError)):
        theirs("DPO", tmp_path, rows, model=tiny.model())
    row = first(ours("DPO", tmp_path, rows, model=tiny.model()))
    assert row["loss"] == pytest.approx(0.6931472, abs=1e-5)


def test_reference_of_a_model_that_has_an_adapter(tmp_path: Any) -> None:
    """TRL takes the adapter as it was before training. Here the reference is the model without the adapter that is trained, and where that
    is another model nothing is trained before somebody has said which of the two is meant."""
    rows = chat(tiny.pairs(4))
    assert first(theirs("DPO", tmp_path, rows))["loss"] == pytest.approx(0.6931472, abs=1e-5)
    with pytest.raises(DivergedError, match="Before the first step policy and reference differ.*ref_model"):
        first(ours("DPO", tmp_path, rows))
    assert first(ours("DPO", tmp_path, rows, ref_model=peft_model()))["loss"] == pytest.approx(0.6931472, abs=1e-5)


def test_rows_that_are_too_long(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Prompts of 3, 6, 120 and 150 tokens, answers of 60, 64 in all: TRL drops the rows whose answer would be lost, and for rewards every
    row that is too long. Here prompts lose their beginning, no row is lost, and a line counts the cuts."""
    rows = [{"prompt": "Hi " * count, "chosen": "Yo" * 30, "rejected": "No"} for count in (1, 2, 40, 50)]
    single = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows]
    assert len(theirs("SFT", tmp_path, single, max_length=64).train_dataset) == 2
    assert len(theirs("DPO", tmp_path, rows, max_length=64).train_dataset) == 2
    for kind, data in (("SFT", single), ("DPO", rows), ("Reward", rows)):
        trainer = ours(kind, tmp_path, data, max_length=80)
        assert len(trainer.train_units) == 4
        for unit in trainer.train_units:
            assert all(len(unit.prompt_ids) + len(branch.ids) <= 80 for branch in unit.branches)
            assert len(unit.branches[0].ids) == 61  # the answer and its end are whole
        assert re.search(r"train_dataset: \d+ prompts cut on the left", capsys.readouterr().err)


def test_rows_that_are_too_long_for_a_reward(tmp_path: Any) -> None:
    from transformers import LlamaForSequenceClassification

    rows = [{"prompt": "Hi " * count, "chosen": "Yo" * 30, "rejected": "No"} for count in (1, 2, 40, 50)]
    config = tiny.model().config
    classifier = LlamaForSequenceClassification(config.__class__(**{**config.to_dict(), "num_labels": 1}))
    assert len(theirs("Reward", tmp_path, rows, model=classifier, max_length=64).train_dataset) == 1


def test_dropout(tmp_path: Any) -> None:
    """A model whose config asks for dropout: TRL's SFT trains with it, here it is off."""
    rows = chat(tiny.demonstrations(4))

    def with_dropout(share: float) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return get_peft_model(tiny.model(attention_dropout=share), tiny.lora())

    losses = {
        build: [first(build("SFT", tmp_path, rows, model=with_dropout(share)))["loss"] for share in (0.0, 0.5)] for build in (theirs, ours)
    }
    assert losses[ours][0] == losses[ours][1] == pytest.approx(losses[theirs][0], rel=1e-5)
    assert abs(losses[theirs][1] - losses[theirs][0]) > 1e-3


def test_precision_on_a_cpu(tmp_path: Any) -> None:
    """TRL's configs ask for bf16 and a GPU unless told otherwise; here a config is made as it is, and fp32 weights stay fp32."""
    with pytest.raises(ValueError, match="bf16"):
        trl.SFTConfig(output_dir=str(tmp_path))
    trainer = ours("SFT", tmp_path, chat(tiny.demonstrations(4)))
    assert {parameter.dtype for parameter in trainer.policy.model.parameters()} == {torch.float32}


def test_ppo_is_here() -> None:
    assert not hasattr(trl, "PPOTrainer") and hasattr(accord, "PPOTrainer")
