"""Models that read pictures too (Gemma 3 from 4B on): their text is trained, and what sees is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3Config

import tiny
from accord.models.adapters import PolicyModel
from accord.models.lora import lora_config
from accord.models.opened import open_model
from accord.recipes.take_home import take_home

TEXT = {**tiny._SHAPE, "sliding_window": 8, "query_pre_attn_scalar": 8}
SIGHT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}


def seeing() -> PolicyModel:
    """As many layers for pictures as for text, and of the same names."""
    config = Gemma3Config(
        text_config=TEXT, vision_config=SIGHT, mm_tokens_per_image=4, image_token_index=270, boi_token_index=268, eoi_token_index=269
    )
    torch.manual_seed(0)
    return PolicyModel(AutoModelForCausalLM.from_config(config).eval())


@pytest.mark.parametrize("layers", [1.0, 0.5])
@pytest.mark.parametrize("target", ["all-linear", "q_proj,v_proj"])
def test_adapters_lie_on_the_layers_of_text(layers: float, target: str) -> None:
    policy = seeing()
    assert policy.packed and policy.layers is policy.model.model.language_model.layers
    assert policy.final_norm is policy.model.model.language_model.norm
    policy.add_adapter("new", lora_config(policy, rank=2, target=target, layers=layers))
    names = list(policy.trainable_parameters())
    assert names and all(".language_model.layers." in name for name in names)
    upper = {name.split(".layers.")[1].split(".")[0] for name in names}
    assert upper == ({"0", "1"} if layers == 1 else {"1"})
    assert len(names) == len(upper) * 2 * (7 if target == "all-linear" else 2)


def test_a_merged_folder_has_what_reads_pictures(tmp_path: Path) -> None:
    seeing().model.save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "preprocessor_config.json").write_text(json.dumps({"do_resize": True}), encoding="utf-8")
    take_home(str(tmp_path / "base"), "merged", tmp_path / "out", prompts=2)
    assert (tmp_path / "out" / "preprocessor_config.json").is_file()
    assert open_model(str(tmp_path / "out")).policy.layers is not None
