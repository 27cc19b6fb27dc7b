"""What a GGUF file says of a model's shape. What llama.cpp would compute otherwise, because its format has no word for it, is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from accord.errors import ConfigError

ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3"}
"""transformers' model type -> GGUF's architecture."""
LOCAL_THETA = 10_000.0
"""Rotary base of the layers of Gemma 3 that see a window; llama.cpp has it as a constant."""
GEMMA3_27B_LAYERS = 62
"""Gemma 3 with so many layers has its queries scaled by the width over the heads, the others by the width of a head."""


def architecture_of(config: dict[str, Any]) -> str:
    """GGUF's name of a model's architecture.

    Args:
        config: a transformers config as a dictionary, with the defaults of its class.
    Raises:
        ConfigError: if accord writes no such architecture, or llama.cpp would compute another model.
    """
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise ConfigError(
            f"accord writes {', '.join(ARCHITECTURES)} models to GGUF, and this one is {kind}. Use --to merged, and convert that folder with llama.cpp."
        )
    architecture = ARCHITECTURES[kind]
    other = next(_unsaid(config, architecture), None)
    if other:
        raise ConfigError(f"A GGUF file of the architecture {architecture} cannot say that this model has {other}. Use --to merged.")
    return architecture


def head_width(config: dict[str, Any]) -> int:
    """Dimensions of an attention head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def rotary_of(config: dict[str, Any]) -> dict[str, Any]:
    """What a config says of rotary positions, in its old and its new spelling; of Gemma 3 what the layers use that see everything."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    found = found.get("full_attention", found)
    kind = found.get("rope_type", found.get("type", "default"))
    return {"rope_theta": config.get("rope_theta", 10_000.0), **found, "rope_type": kind}


def rotary_factors(config: dict[str, Any]) -> Any:
    """What each rotary frequency is divided by in Llama 3's scaling, float32 (head / 2,); None for another scaling, or none.

    Wavelengths in tokens below original / high_freq_factor stay, those above original / low_freq_factor are stretched by `factor`, and those
    between by a mean of the two (the file's tensor rope_freqs.weight, as llama.cpp's converter writes it).
    """
    import numpy as np

    rotary = rotary_of(config)
    if rotary["rope_type"] != "llama3":
        return None
    factor, low, high = (float(rotary[name]) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    width, original = head_width(config), float(rotary["original_max_position_embeddings"])
    found = []
    for place in range(0, width, 2):
        wave = 2 * math.pi * float(rotary["rope_theta"]) ** (place / width)
        between = (original / wave - low) / (high - low)
        found.append(1.0 if wave < original / high else factor if wave > original / low else 1 / ((1 - between) / factor + between))
    return np.array(found, dtype=np.float32)


def write_settings(writer: Any, config: dict[str, Any], architecture: str) -> None:
    """Add a model's shape to a `gguf.GGUFWriter`; the config has passed `architecture_of`."""
    import gguf

    heads, width, rotary = int(config["num_attention_heads"]), head_width(config), rotary_of(config)
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_rope_freq_base(float(rotary["rope_theta"]))
    writer.add_vocab_size(int(config["vocab_size"]))
    if architecture == "llama":
        writer.add_rope_dimension_count(width)
    if architecture == "gemma3":
        writer.add_sliding_window(int(config["sliding_window"]))
    if rotary["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rotary["factor"]))


def _unsaid(config: dict[str, Any], architecture: str) -> Iterator[str]:
    gemma = architecture == "gemma3"
    activation = config.get("hidden_activation" if gemma else "hidden_act")
    if activation != ("gelu_pytorch_tanh" if gemma else "silu"):
        yield f"the activation {activation}"
    if architecture in ("qwen3", "gemma3") and config.get("attention_bias"):
        yield "biases in its attention"
    kind, known = rotary_of(config)["rope_type"], ("default", "linear", *(("llama3",) if architecture == "llama" else ()))
    if kind not in known:
        yield f"rotary positions scaled as {kind} (it can say {', '.join(known)})"
    if float(rotary_of(config).get("partial_rotary_factor") or 1.0) != 1.0:
        yield "rotary positions on a part of each head"
    if gemma:
        yield from _unsaid_gemma3(config)
    elif "sliding_attention" in (config.get("layer_types") or ()):
        yield "layers that see a window of the text"


def _unsaid_gemma3(config: dict[str, Any]) -> Iterator[str]:
    layers, width = int(config["num_hidden_layers"]), head_width(config)
    if config.get("layer_types") != gemma3_layers(layers):
        yield "other layers than every sixth that see the whole text"
    local = (config.get("rope_parameters") or {}).get("sliding_attention", {})
    if local.get("rope_type", "default") != "default" or float(local.get("rope_theta", LOCAL_THETA)) != LOCAL_THETA:
        yield "rotary positions of its own on the layers that see a window"
    expected = gemma3_query_scale(layers, width, int(config["hidden_size"]), int(config["num_attention_heads"]))
    if float(config["query_pre_attn_scalar"]) != expected:
        yield f"queries scaled by {config['query_pre_attn_scalar']} instead of {expected}"
    for name in ("final_logit_softcapping", "attn_logit_softcapping", "use_bidirectional_attention"):
        if config.get(name):
            yield f"{name}={config[name]}"


def gemma3_layers(count: int) -> list[str]:
    """What each layer of Gemma 3 sees, as llama.cpp has it."""
    return ["full_attention" if (index + 1) % 6 == 0 else "sliding_attention" for index in range(count)]


def gemma3_query_scale(layers: int, width: int, hidden: int, heads: int) -> int:
    """`query_pre_attn_scalar` of Gemma 3, as llama.cpp has it."""
    return hidden // heads if layers == GEMMA3_27B_LAYERS else width
