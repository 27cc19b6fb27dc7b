"""What a model's shape says about memory: its sizes, what a forward pass keeps for the backward pass, and how many tokens fit at once.

Sizes are in bytes.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

LOGIT_ROWS = 256
"""Rows of logits alive at a time (chunk_size of `objectives.logprobs.chunked_logprobs`)."""
LOGIT_COPIES = 2
"""A chunk's logits and, where entropies are wanted, its probabilities; DPO and its like take one."""
SLACK = 1.05
"""What an allocator keeps beyond what was asked for, on the parts that come and go (with `models.allocator` on glibc)."""
SMALLEST_BUDGET, BUDGET_STEP = 256, 256
LARGEST_BUDGET = {"cpu": 1024}
"""Tokens in a micro-batch: below 256 the processor idles, above these nothing gets faster (on two cores 512 and 1024 are as fast as 2048)."""
LARGEST_ELSEWHERE = 4096
BLOCK = 64
"""Weights of nf4 that share a scale (`models.small`)."""
SCALE_BLOCK = 256
"""Scales of nf4 that share a scale of their own."""


@dataclass(frozen=True)
class ModelSize:
    """What memory depends on, read from a model that was built without storage."""

    parameters: int
    """Every weight once; tied embeddings count once."""
    linears: tuple[tuple[str, int, int], ...]
    """Name, inputs and outputs of every linear layer apart from the LM head: what LoRA's `all-linear` adapts."""
    layers: int
    hidden: int
    vocabulary: int
    layer_floats: int
    """Numbers that one layer makes and its backward pass reads, per token, the attention mask aside."""
    remade_floats: int
    """Those of them that are not kept but made again where the layers run fused with LoRA (`fused.Origin`)."""
    score_heads: int
    """Attention heads whose scores are kept whole, because a soft cap rules out fused attention; else 0."""
    kv_floats: int
    """Numbers in the KV cache per token, all layers."""
    query_floats: int
    """Numbers in the queries of one layer, per token."""
    layer_weights: int
    """Weights of all layers that one token is multiplied with: those of the linear layers, and of as many experts as it is sent to."""


def model_size(config: Any) -> ModelSize:
    """Sizes of the model of a transformers config, exactly, without allocating it.

    Args:
        config: a transformers config of a causal language model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return measured(AutoModelForCausalLM.from_config(config))


def measured(model: Any, adapters: Collection[str] = ()) -> ModelSize:
    """Sizes of a model that is there.

    Args:
        model: a transformers causal language model, bare or with adapters in it.
        adapters: their names; they are not counted.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    def own(name: str) -> bool:
        return not any(part in adapters for part in name.split("."))

    from accord.models.small import SmallLinear

    parameters = {name: parameter for name, parameter in model.named_parameters() if own(name)}
    text = model.config.get_text_config()
    head = model.get_output_embeddings()
    head = getattr(head, "base_layer", head)
    linears: list[tuple[str, int, int]] = []
    held = 0  # weights beyond the numbers of their codes: two of them stand in a byte
    for name, module in model.named_modules():
        if not own(name) or module is head:
            continue
        if isinstance(module, SmallLinear):
            held += module.in_features * module.out_features - module.weight.numel()
        if isinstance(module, nn.Linear):
            linears.append((name.removesuffix(".base_layer"), module.in_features, module.out_features))
        elif isinstance(module, Conv1D):
            linears.append((name.removesuffix(".base_layer"), int(module.weight.shape[0]), int(module.weight.shape[1])))
    heads = int(text.num_attention_heads)
    width = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    kv_heads = int(getattr(text, "num_key_value_heads", None) or heads)
    return ModelSize(
        parameters=sum(parameter.numel() for parameter in parameters.values()) + held,
        linears=tuple(linears),
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        vocabulary=int(model.get_input_embeddings().weight.shape[0]),
        layer_floats=_layer_floats(parameters, text, heads * width, kv_heads * width),
        remade_floats=_remade_floats(model, text),
        score_heads=heads if getattr(text, "attn_logit_softcapping", None) else 0,
        kv_floats=2 * int(text.num_hidden_layers) * kv_heads * width,
        query_floats=heads * width,
        layer_weights=sum(inputs * outputs for _, inputs, outputs in linears) + _expert_weights(parameters, text),
    )


def moment_bytes(optim: str, number_bytes: float) -> float:
    """Bytes of Adam's two moments of one trained number: with adamw_8bit a code each, and two bytes for 256 of them."""
    return 2 * (1 + 2 / 256) if optim == "adamw_8bit" else 2 * number_bytes


def held_bytes(kind: str, inputs: int, outputs: int) -> float:
    """Bytes of a linear layer's weight that is held as bf16, int8, nf4 or gguf (`models.small`), its scales included; gguf as Q8_0, the largest blocks."""
    numbers = inputs * outputs
    if kind == "gguf":
        return numbers * 34 / 32
    if kind == "bf16":
        return 2.0 * numbers
    return numbers + 4.0 * outputs if kind == "int8" else numbers * (0.5 + 1 / BLOCK + 4 / (BLOCK * SCALE_BLOCK))


def upper_layers(layers: int, share: float) -> range:
    """Indices of the decoder layers that `lora_layers` adapts: this share of them, from the top, rounded up."""
    return range(layers - math.ceil(share * layers), layers)


def activation_bytes(
    size: ModelSize, *, weight_bytes: float = 4, context: int = 512, checkpointing: bool = False, rank: int = 16, lora_layers: float = 1.0
) -> float:
    """Bytes kept for the backward pass per token of a micro-batch, in the layers that it runs through: frozen ones below keep nothing."""
    layers = len(upper_layers(size.layers, lora_layers))
    if checkpointing:
        return layers * size.hidden * weight_bytes
    low_rank = rank * len(size.linears) // max(1, size.layers)
    kept = size.layer_floats - (size.remade_floats if rank and weight_bytes >= 4 else 0)
    # With a soft cap the mask (as floats) and the scores of every head are kept per layer; else the kernel keeps one sum a row.
    attention = context * (1 + 4 * size.score_heads) if size.score_heads else 0
    return layers * (kept + low_rank + attention) * weight_bytes


def passing_floats(size: ModelSize, *, checkpointing: bool) -> int:
    """Numbers alive per token while the backward pass is in one layer: its gradients, and what it computed again under checkpointing."""
    return size.layer_floats * (2 if checkpointing else 1)


def logit_bytes(size: ModelSize) -> int:
    """Logits and probabilities of one chunk; gradients are written over them."""
    return LOGIT_COPIES * LOGIT_ROWS * size.vocabulary * 4


def choose_token_budget(
    size: ModelSize,
    free_bytes: float,
    *,
    device: str = "cpu",
    weight_bytes: int = 4,
    context: int = 512,
    checkpointing: bool = False,
    lora_layers: float = 1.0,
) -> int:
    """Tokens in a micro-batch that half of the free memory holds.

    Args:
        free_bytes: what is left after weights, adapters, gradients and optimizer.
        device: the kind of device (`cpu`, `cuda`): where more tokens at once stop being faster depends on it.
    Returns:
        a multiple of 256, from 256 to 1024 on a CPU, to 4096 elsewhere.
    """
    kept = activation_bytes(size, weight_bytes=weight_bytes, context=context, checkpointing=checkpointing, lora_layers=lora_layers)
    per_token = SLACK * (kept + passing_floats(size, checkpointing=checkpointing) * weight_bytes)
    fitting = int(0.5 * max(0.0, free_bytes) / per_token)
    return max(SMALLEST_BUDGET, min(LARGEST_BUDGET.get(device, LARGEST_ELSEWHERE), fitting // BUDGET_STEP * BUDGET_STEP))


def _expert_weights(parameters: dict[str, Tensor], text: Any) -> int:
    """Weights of the experts that one token is sent to, where they stand in one tensor a layer (experts first) and are no linear layers."""
    stacked = sum(parameter.numel() for parameter in parameters.values() if parameter.dim() == 3)
    experts = int(getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None) or 1)
    return stacked * int(getattr(text, "num_experts_per_tok", None) or 1) // experts


def _remade_floats(model: Any, text: Any) -> int:
    """The inputs of linear layers that `fuse` makes again: what a norm before them, or a gated unit, gave."""
    from accord.models.fuse import ACTIVATIONS, NORMS

    classes = {type(module).__name__ for module in model.modules()}
    gated = any(name.endswith(".gate_proj") for name, _ in model.named_modules()) and classes & set(ACTIVATIONS)
    experts = getattr(text, "num_experts_per_tok", None)
    return (2 * int(text.hidden_size) if classes & set(NORMS) else 0) + (int(text.intermediate_size) if gated and not experts else 0)


def _layer_floats(parameters: dict[str, Tensor], text: Any, query: int, key: int) -> int:
    """Numbers read per token and layer: inputs of norms and linears, the MLP's gate, product and activations, queries, keys, values.

    The coefficients were counted with saved-tensor hooks on the packed, fused path (tests/planning): 3 for the width of an MLP with a
    separate gate (4.5 for others, which are not fused), 2 for queries and the attention output, 2 for keys and values, 1 for each norm
    of full width.
    """
    hidden = int(text.hidden_size)
    inner = int(getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None) or 4 * hidden)
    experts = getattr(text, "num_experts_per_tok", None)
    if experts:
        inner = int(experts) * int(getattr(text, "moe_intermediate_size", None) or inner)
    layers = max(1, int(text.num_hidden_layers))
    wide = narrow = 0
    for name, parameter in parameters.items():
        if parameter.dim() == 1 and "norm" in name.rsplit(".", 2)[-2] and name.endswith("weight"):
            wide += parameter.shape[0] == hidden
            narrow += parameter.shape[0] != hidden
    norms = hidden * (wide // layers) + (query + key if narrow else 0)
    mlp = (3 if any(".gate_proj." in name for name in parameters) else 4.5) * inner
    return int(2 * hidden + norms + mlp + 2 * query + 2 * key)
