"""Parameters counted on the meta device against what was published, for twenty architectures."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig

from accord.models.size import model_size
from accord.planning.memory import count_parameters
from accord.planning.shapes import CANDIDATES, SHAPES, config_of, shape_named


def _shape(
    vocabulary: int, hidden: int, inner: int, layers: int, heads: int, kv_heads: int, *, tied: bool = False, **more: Any
) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "tie_word_embeddings": tied,
        **more,
    }


PUBLISHED: dict[str, tuple[str, dict[str, Any], int]] = {
    # model: (transformers type, its config, weights of the released checkpoint)
    "Llama-3.1-8B": ("llama", _shape(128256, 4096, 14336, 32, 32, 8), 8_030_261_248),
    "Mistral-7B-v0.1": ("mistral", _shape(32000, 4096, 14336, 32, 32, 8), 7_241_732_096),
    "Mixtral-8x7B": ("mixtral", _shape(32000, 4096, 14336, 32, 32, 8, num_local_experts=8, num_experts_per_tok=2), 46_702_792_704),
    "Qwen2.5-7B": ("qwen2", _shape(152064, 3584, 18944, 28, 28, 4), 7_615_616_512),
    "Qwen3-0.6B": ("qwen3", _shape(151936, 1024, 3072, 28, 16, 8, tied=True, head_dim=128), 596_049_920),
    "Qwen1.5-MoE-A2.7B": (
        "qwen2_moe",
        _shape(
            151936,
            2048,
            5632,
            24,
            16,
            16,
            moe_intermediate_size=1408,
            shared_expert_intermediate_size=5632,
            num_experts=60,
            num_experts_per_tok=4,
        ),
        14_315_784_192,
    ),
    "Gemma-2B": ("gemma", _shape(256000, 2048, 16384, 18, 8, 1, tied=True, head_dim=256), 2_506_172_416),
    "Gemma-2-2B": ("gemma2", _shape(256000, 2304, 9216, 26, 8, 4, tied=True, head_dim=256), 2_614_341_888),
    "Gemma-3-1B": ("gemma3_text", _shape(262144, 1152, 6912, 26, 4, 1, tied=True, head_dim=256), 999_885_952),
    "Phi-2": ("phi", _shape(51200, 2560, 10240, 32, 32, 32), 2_779_683_840),
    "Phi-3-mini": ("phi3", _shape(32064, 3072, 8192, 32, 32, 32), 3_821_079_552),
    "OLMo-2-1B": ("olmo2", _shape(100352, 2048, 8192, 16, 16, 16), 1_484_916_736),
    "SmolLM3-3B": ("smollm3", _shape(128256, 2048, 11008, 36, 16, 4, tied=True), 3_075_098_624),
    "StableLM-2-1.6B": ("stablelm", _shape(100352, 2048, 5632, 24, 32, 32, use_qkv_bias=True), 1_644_515_328),
    "GPT-2": ("gpt2", {}, 124_439_808),
    "Pythia-160M": ("gpt_neox", _shape(50304, 768, 3072, 12, 12, 12, max_position_embeddings=2048), 162_322_944),
    "GPT-J-6B": (
        "gptj",
        {"vocab_size": 50400, "n_embd": 4096, "n_layer": 28, "n_head": 16, "rotary_dim": 64, "tie_word_embeddings": False},
        6_050_882_784,
    ),
    "OPT-125M": (
        "opt",
        {
            "vocab_size": 50272,
            "hidden_size": 768,
            "ffn_dim": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "word_embed_proj_dim": 768,
        },
        125_239_296,
    ),
    "BLOOM-560M": ("bloom", {"vocab_size": 250880, "hidden_size": 1024, "n_layer": 24, "n_head": 16}, 559_214_592),
    "Falcon-7B": (
        "falcon",
        {
            "vocab_size": 65024,
            "hidden_size": 4544,
            "num_hidden_layers": 32,
            "num_attention_heads": 71,
            "multi_query": True,
            "parallel_attn": True,
            "bias": False,
        },
        6_921_720_704,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_are_as_many_as_were_published(name: str) -> None:
    kind, shape, published = PUBLISHED[name]
    assert count_parameters(AutoConfig.for_model(kind, **shape)) == published


def test_there_are_enough_architectures() -> None:
    assert len({kind for kind, _, _ in PUBLISHED.values()}) >= 12


KNOWN = {
    "smollm2-135m": 134_515_008,
    "gemma3-270m": 268_098_176,
    "smollm2-360m": 361_821_120,
    "qwen2.5-0.5b": 494_032_768,
    "qwen3-0.6b": 596_049_920,
    "gemma3-1b": 999_885_952,
    "llama-3.2-1b": 1_235_814_400,
    "olmo2-1b": 1_484_916_736,
    "qwen2.5-1.5b": 1_543_714_304,
    "smollm2-1.7b": 1_711_376_384,
    "gemma2-2b": 2_614_341_888,
    "smollm3-3b": 3_075_098_624,
    "qwen2.5-3b": 3_085_938_688,
    "llama-3.2-3b": 3_212_749_824,
    "phi3-mini": 3_821_079_552,
    "mistral-7b": 7_241_732_096,
    "qwen2.5-7b": 7_615_616_512,
    "llama-3.1-8b": 8_030_261_248,
}
"""As published."""


@pytest.mark.parametrize("name", SHAPES)
def test_the_shapes_that_plans_know_are_those_models(name: str) -> None:
    assert count_parameters(config_of(name)) == KNOWN[name]
    assert shape_named(SHAPES[name].hub) is SHAPES[name]


def test_shapes_are_in_order_of_size() -> None:
    assert list(KNOWN.values()) == sorted(KNOWN.values()) and list(KNOWN) == list(SHAPES)
    assert [name for name in SHAPES if name in CANDIDATES] == list(CANDIDATES)


def test_what_a_token_is_multiplied_with() -> None:
    """SmolLM2-135M by hand: 30 layers of q, o (576 x 576), k, v (576 x 192) and three of 576 x 1536: 106.2 million."""
    size = model_size(config_of("smollm2-135m"))
    assert size.layer_weights == 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536) == 106_168_320
    assert (size.query_floats, size.kv_floats) == (576, 2 * 30 * 192)
