"""How much memory a stage will take, from the config alone, and whether it is there: checked before any weight is read.

Sizes are in bytes, GB are 10^9 bytes. The parts: frozen base, adapters, gradients and Adam moments of what
is trained, activations of one micro-batch, one chunk of logits; while sampling, a merged copy of the weights and the KV cache instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from accord.models.free_memory import require
from accord.models.size import (
    SLACK,
    SMALLEST_BUDGET,
    ModelSize,
    activation_bytes,
    logit_bytes,
    model_size,
    passing_floats,
    upper_layers,
)

GB = 1e9
PROCESS = 0.42 * GB
"""Python with torch, transformers and peft imported, before any weight (measured on Linux: 0.38)."""


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


def count_parameters(config: Any) -> int:
    """Weights of the model of a config, tied ones once."""
    return model_size(config).parameters


def count_lora(size: ModelSize, rank: int, target_modules: str | Sequence[str] = "all-linear", lora_layers: float = 1.0) -> int:
    """Trainable numbers of a LoRA adapter: rank * (inputs + outputs) for each adapted linear layer.

    Args:
        target_modules: peft's meaning: `all-linear`, or the last parts of the names of layers.
        lora_layers: share of the decoder layers, from the top, that are adapted.
    """
    upper = upper_layers(size.layers, lora_layers)
    if isinstance(target_modules, str) and target_modules != "all-linear":
        target_modules = [target_modules]
    chosen = [
        (inputs, outputs)
        for name, inputs, outputs in size.linears
        if (target_modules == "all-linear" or any(name == target or name.endswith(f".{target}") for target in target_modules))
        and (lora_layers == 1 or _layer_of(name) in upper)
    ]
    return rank * sum(inputs + outputs for inputs, outputs in chosen)


def _layer_of(name: str) -> int:
    """The number in the name of a module of a decoder layer (`model.layers.3.mlp.up_proj`); -1 for one outside of them."""
    return next((int(part) for part in name.split(".") if part.isdigit()), -1)


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
    lora_layers: float = 1.0,
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
        lora_layers: share of the decoder layers, from the top, that LoRA adapts; the backward pass ends below them.
    """
    lora_layers = lora_layers if rank else 1.0
    adapter = count_lora(size, rank, target_modules, lora_layers) if rank else 0
    trained = size.parameters if rank is None else adapter * trained_adapters
    training_bytes = weight_bytes if rank is None else 4
    per_token = activation_bytes(
        size, weight_bytes=weight_bytes, context=context, checkpointing=checkpointing, rank=rank or 0, lora_layers=lora_layers
    )
    layer = token_budget * weight_bytes * passing_floats(size, checkpointing=checkpointing)
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
        logits=logit_bytes(size),
        merged=adapted * weight_bytes if sample_rows and adapters and rank else 0,
        kv_cache=int(SLACK * sample_rows * (sample_tokens * size.kv_floats * weight_bytes + 2 * size.vocabulary * 4)),
    )


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
        ("LoRA on the upper half of the layers (lora_layers 0.5)", {"token_budget": SMALLEST_BUDGET, "lora_layers": 0.5}),
        ("gradient checkpointing", {"token_budget": SMALLEST_BUDGET, "checkpointing": True}),
        ("LoRA instead of full fine-tuning", {"rank": 16, "token_budget": SMALLEST_BUDGET, "checkpointing": True}),
        ("heads on frozen features", {"rank": 0, "token_budget": SMALLEST_BUDGET}),
    ]
    found: list[str] = []
    for name, change in changes:
        rank = settings.get("rank", 16)
        if ("instead" in name and rank is not None) or ("upper half" in name and (not rank or settings.get("lora_layers", 1.0) <= 0.5)):
            continue
        if predict(size, **{**settings, **change}).total <= have:
            found.append(name)
    if settings.get("sample_rows", 0) > 1 and predict(size, **{**settings, "sample_rows": 1}).total <= have:
        found.append("fewer answers sampled side by side")
    if not found:
        small = max(0.0, have - PROCESS) / (4 * SLACK)
        return f"a model of at most {small / 1e6:.0f} million weights" if small > 1e6 else ""
    return ", or ".join(found[:2])
