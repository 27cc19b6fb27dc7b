"""Special tokens that a tokenizer has and the model does not embed, as Gemma 3's mark of an image: left out wherever the two meet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import tiny
from accord.cli import main
from accord.errors import ConfigError
from accord.methods.dpo import DPOConfig, DPOTrainer
from accord.models.opened import open_model, open_tokenizer
from accord.models.tokens import leave_out_unembedded

MARK = "<image_soft_token>"
TEXT = f"the {MARK} cat"


def with_marks(role: str = "image_token") -> Any:
    """A tokenizer with two marks, the second one past the model's rows.

    Args:
        role: of the second, as transformers keeps it.
    """
    found = tiny.tokenizer()
    found.add_special_tokens({"additional_special_tokens": [f"<spare{index}>" for index in range(len(found), tiny.VOCAB)]})
    if role == "image_token":
        template = found.chat_template
        roles = {"eos_token": "<|end|>", "pad_token": "<|pad|>", "extra_special_tokens": {role: MARK}}
        found = PreTrainedTokenizerFast(tokenizer_object=found.backend_tokenizer, **roles)
        found.chat_template = template
    else:
        found.add_special_tokens({"additional_special_tokens": [MARK]}, replace_extra_special_tokens=False)
    assert found.convert_tokens_to_ids(MARK) == tiny.VOCAB and len(found) == tiny.VOCAB + 1
    return found


def saved(folder: Path, role: str) -> Path:
    tiny.model("llama").save_pretrained(folder)
    with_marks(role).save_pretrained(folder)
    assert len(AutoTokenizer.from_pretrained(folder)) == tiny.VOCAB + 1
    return folder


@pytest.mark.parametrize("role", ["image_token", "additional"])
def test_a_model_with_such_a_tokenizer_is_opened_and_trained(role: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved(tmp_path / "model", role)
    opened = open_model(str(folder))
    assert f"{MARK} (id {tiny.VOCAB}) is left out of its tokenizer" in capsys.readouterr().err
    assert len(opened.tokenizer) == tiny.VOCAB and f"<spare{tiny.VOCAB - 1}>" in opened.tokenizer.get_vocab()
    ids = opened.tokenizer(TEXT)["input_ids"]
    assert max(ids) < tiny.VOCAB and MARK in opened.tokenizer.decode(ids)
    assert open_tokenizer(str(folder))[0](TEXT)["input_ids"] == ids
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{index} {TEXT}", "completion": f"yes {MARK}"}) + "\n" for index in range(4)))
    run = tmp_path / "run"
    assert main(["sft", "--model", str(folder), "--data", str(rows), "--output_dir", str(run), "--max_steps", "1"]) == 0
    kept = AutoTokenizer.from_pretrained(run)
    assert len(kept) == tiny.VOCAB and MARK not in kept.all_special_tokens and kept(TEXT)["input_ids"] == ids


def test_a_tokenizer_that_a_trainer_is_given_is_cut_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = DPOConfig(output_dir=str(tmp_path), max_steps=1)
    trainer = DPOTrainer(tiny.model(), args=config, train_dataset=tiny.pairs(4), processing_class=with_marks(), peft_config=tiny.lora())
    assert f"The model embeds {tiny.VOCAB} tokens, so {MARK}" in capsys.readouterr().err
    assert MARK not in trainer.processing_class.get_vocab()


def test_a_token_in_use_stays_and_the_pair_is_refused(tmp_path: Path) -> None:
    ends = with_marks()
    ends.eos_token = MARK
    assert leave_out_unembedded(ends, tiny.VOCAB) is None and ends.convert_tokens_to_ids(MARK) == tiny.VOCAB
    config = DPOConfig(output_dir=str(tmp_path), max_steps=1)
    with pytest.raises(ConfigError, match="do not belong together"):
        DPOTrainer(tiny.model(), args=config, train_dataset=tiny.pairs(4), processing_class=ends, peft_config=tiny.lora())


def test_an_ordinary_token_stays() -> None:
    words = tiny.tokenizer()
    words.add_tokens([f"word{index}" for index in range(40)])
    before = len(words)
    assert leave_out_unembedded(words, tiny.VOCAB) is None and len(words) == before
