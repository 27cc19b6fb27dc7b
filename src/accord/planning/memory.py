"""How much memory a stage will take, from the config alone, and whether it is there: checked before any weight is read.

Sizes are in bytes, GB are 10^9 bytes. The parts: frozen base, adapters, gradients and Adam moments of what
is trained, activations of one micro-batch, one chunk of logits; while sampling, a merged copy of the weights and the KV cache instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from accord.models.free_memory import require

GB = 1e9
PROCESS = 0.42 * GB
"""Python with torch, transformers and peft imported, before any weight (measured on Linux: 0.38)."""
LOGIT_ROWS = 256
"""Rows of logits alive at a time (chunk_size of `objectives.logprobs.chunked_logprobs`)."""
LOGIT_COPIES = 3
"""Logits, their softmax and the gradient."""
SLACK = 1.05
"""What an allocator keeps beyond what was asked for, on the parts that come and go (with `models.allocator` on glibc)."""
SMALLEST_BUDGET, LARGEST_BUDGET, BUDGET_STEP = 256, 4096, 256
"""Tokens in a micro-batch: below 256 the processor idles, above 4096 nothing gets faster."""


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
    """Numbers that one layer keeps for the backward pass, per token, the attention mask aside."""
    score_heads: int
    """Attention heads whose scores are kept whole, because a soft cap rules out fused attention; else 0."""
    kv_floats: int
    """Numbers in the KV cache per token, all layers."""


@dataclass(frozen=True)
class MemoryNeed:
    """Predicted bytes of one stage, by part."""

    process: int
    weights: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    merged: int
    """Second weight set for sampling (adapted layers with their adapters added)."""
    kv_cache: int

    @property
    def total(self) -> int:
        """The peak: a step trains or samples, never both at once."""
        steady = self.process + self.weights + self.adapters + self.gradients + self.optimizer
        return steady + max(self.activations + self.logits, self.merged + self.kv_cache)

    def __str__(self) -> str:
        parts = ((item.name, getattr(self, item.name)) for item in fields(self))
        return f"{self.total / GB:.1f} GB (" + ", ".join(f"{name.replace('_', ' ')} {size / GB:.2f}" for name, size in parts if size) + ")"


def model_size(config: Any) -> ModelSize:
    """Sizes of the model of a transformers config, exactly, without allocating it.

    Args:
        config: a transformers config of a causal language model.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    head = model.get_output_embeddings()
    linears: list[tuple[str, int, int]] = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            linears.append((name, module.in_features, module.out_features))
        elif isinstance(module, Conv1D):
            linears.append((name, int(module.weight.shape[0]), int(module.weight.shape[1])))
    heads = int(text.num_attention_heads)
    width = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    kv_heads = int(getattr(text, "num_key_value_heads", None) or heads)
    return ModelSize(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        linears=tuple(linears),
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        vocabulary=int(model.get_input_embeddings().weight.shape[0]),
        layer_floats=_layer_floats(model, text, heads * width, kv_heads * width),
        score_heads=heads if getattr(text, "attn_logit_softcapping", None) else 0,
        kv_floats=2 * int(text.num_hidden_layers) * kv_heads * width,
    )


def count_parameters(config: Any) -> int:
    """Weights of the model of a config, tied ones once."""
    return model_size(config).parameters


def count_lora(size: ModelSize, rank: int, target_modules: str | Sequence[str] = "all-linear") -> int:
    """Trainable numbers of a LoRA adapter: rank * (inputs + outputs) for each adapted linear layer.

    Args:
        target_modules: peft's meaning: `all-linear`, or the last parts of the names of layers.
    """
    if isinstance(target_modules, str) and target_modules != "all-linear":
        target_modules = [target_modules]
    chosen = [
        (inputs, outputs)
        for name, inputs, outputs in size.linears
        if target_modules == "all-linear" or any(name == target or name.endswith(f".{target}") for target in target_modules)
    ]
    return rank * sum(inputs + outputs for inputs, outputs in chosen)


def predict(
    size: ModelSize,
    *,
    rank: int | None = 16,
    adapters: int = 1,
    trained_adapters: int = 1,
    token_budget: int = 1024,
    context: int = 512,
    weight_bytes: int = 4,
    checkpointing: bool = False,
    sample_rows: int = 0,
    sample_tokens: int = 0,
    target_modules: str | Sequence[str] = "all-linear",
) -> MemoryNeed:
    """Memory of one stage.

    Args:
        rank: of the LoRA adapters; None is full fine-tuning; 0 trains no weights of the model (heads on frozen features, sampling).
        adapters: in memory, the trained ones included.
        trained_adapters: with gradients and Adam moments.
        token_budget: tokens in a micro-batch.
        context: longest prompt + completion, in tokens.
        weight_bytes: 4 for float32, 2 for bfloat16. Adapters and their moments are float32.
        checkpointing: True keeps only the input of each layer. False keeps what every layer needs for its backward pass.
        sample_rows: answers sampled side by side; 0 for a stage that does not sample.
        sample_tokens: longest prompt + answer of a sampled row.
        target_modules: layers that LoRA adapts.
    """
    adapter = count_lora(size, rank, target_modules) if rank else 0
    trained = size.parameters if rank is None else adapter * trained_adapters
    training_bytes = weight_bytes if rank is None else 4
    per_token = activation_bytes(size, weight_bytes=weight_bytes, context=context, checkpointing=checkpointing, rank=rank or 0)
    layer = token_budget * weight_bytes * size.layer_floats if checkpointing else 0
    adapted = sum(inputs * outputs for _, inputs, outputs in size.linears)
    return MemoryNeed(
        process=int(PROCESS),
        weights=size.parameters * weight_bytes,
        adapters=adapter * adapters * 4,
        gradients=trained * training_bytes,
        optimizer=trained * 8,
        activations=int(SLACK * (token_budget * per_token + layer))
        if rank != 0
        else int(SLACK * 2 * token_budget * weight_bytes * size.layer_floats),
        logits=LOGIT_COPIES * LOGIT_ROWS * size.vocabulary * 4,
        merged=adapted * weight_bytes if sample_rows and adapters and rank else 0,
        kv_cache=int(SLACK * sample_rows * (sample_tokens * size.kv_floats * weight_bytes + 2 * size.vocabulary * 4)),
    )


def activation_bytes(size: ModelSize, *, weight_bytes: int = 4, context: int = 512, checkpointing: bool = False, rank: int = 16) -> int:
    """Bytes kept for the backward pass per token of a micro-batch, all layers."""
    if checkpointing:
        return size.layers * size.hidden * weight_bytes
    low_rank = rank * len(size.linears) // max(1, size.layers)
    # With a soft cap the mask (as floats) and the scores of every head are kept per layer; else the kernel keeps one sum a row.
    attention = context * (1 + 4 * size.score_heads) if size.score_heads else 0
    return size.layers * (size.layer_floats + low_rank + attention) * weight_bytes


def choose_token_budget(config: Any, free_bytes: float, *, weight_bytes: int = 4, context: int = 512, checkpointing: bool = False) -> int:
    """Tokens in a micro-batch that half of the free memory holds.

    Args:
        config: a transformers config, or the `ModelSize` of one.
        free_bytes: what is left after weights, adapters, gradients and optimizer.
    Returns:
        a multiple of 256 between 256 and 4096.
    """
    size = config if isinstance(config, ModelSize) else model_size(config)
    per_token = SLACK * activation_bytes(size, weight_bytes=weight_bytes, context=context, checkpointing=checkpointing)
    if checkpointing:
        per_token += SLACK * size.layer_floats * weight_bytes
    fitting = int(0.5 * max(0.0, free_bytes) / per_token)
    return max(SMALLEST_BUDGET, min(LARGEST_BUDGET, fitting // BUDGET_STEP * BUDGET_STEP))


def check_fits(need: MemoryNeed | float, have: float, *, what: str = "This", fitting: str = "", force: bool = False) -> None:
    """Refuse what cannot fit.

    Args:
        need: predicted peak, or bytes.
        have: bytes available to the process beyond what it holds already.
        what: who needs it, for the message: `DPO on smollm2-135m`.
        fitting: what would fit instead (see `suggest`).
        force: True goes on regardless. False raises.
    Raises:
        MachineError: (exit code 4) with what it needs, what there is and what would fit.
    """
    if not force:
        require(need.total if isinstance(need, MemoryNeed) else need, have, what=what, fitting=fitting)


def suggest(size: ModelSize, have: float, **settings: Any) -> str:
    """Changes to a stage's settings (those of `predict`) under which it fits in `have` bytes, best first; "" when nothing helps."""
    changes: list[tuple[str, dict[str, Any]]] = [
        ("micro-batches of 256 tokens", {"token_budget": SMALLEST_BUDGET}),
        ("gradient checkpointing", {"token_budget": SMALLEST_BUDGET, "checkpointing": True}),
        ("LoRA instead of full fine-tuning", {"rank": 16, "token_budget": SMALLEST_BUDGET, "checkpointing": True}),
        ("heads on frozen features", {"rank": 0, "token_budget": SMALLEST_BUDGET}),
    ]
    found: list[str] = []
    for name, change in changes:
        if "LoRA" in name and settings.get("rank", 16) is not None:
            continue
        if predict(size, **{**settings, **change}).total <= have:
            found.append(name)
    if settings.get("sample_rows", 0) > 1 and predict(size, **{**settings, "sample_rows": 1}).total <= have:
        found.append("fewer answers sampled side by side")
    if not found:
        small = max(0.0, have - PROCESS) / (4 * SLACK)
        return f"a model of at most {small / 1e6:.0f} million weights" if small > 1e6 else ""
    return ", or ".join(found[:2])


def _layer_floats(model: Any, text: Any, query: int, key: int) -> int:
    """Numbers kept per token and layer: inputs of norms and linears, the MLP's gate, product and activations, queries, keys, values.

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
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 and "norm" in name.rsplit(".", 2)[-2] and name.endswith("weight"):
            wide += parameter.shape[0] == hidden
            narrow += parameter.shape[0] != hidden
    norms = hidden * (wide // layers) + (query + key if narrow else 0)
    mlp = (3 if any(".gate_proj." in name for name, _ in model.named_parameters()) else 4.5) * inner
    return int(2 * hidden + norms + mlp + 2 * query + 2 * key)
