"""How much memory a stage will take, from the config alone, and whether it is there: checked before any weight is read.

Sizes are in bytes, GB are 10^9 bytes. The parts: frozen base, adapters, gradients and Adam moments of what
is trained, activations of one micro-batch, one chunk of logits; while sampling, a merged copy of the weights and the KV cache instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from accord.models.free_memory import require
from accord.models.size import (
    SLACK,
    SMALLEST_BUDGET,
    ModelSize,
    activation_bytes,
    held_bytes,
    logit_bytes,
    model_size,
    moment_bytes,
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
    """Second weight set for sampling: adapted layers with their adapters added; in float32 all layers and the LM head, reordered."""
    kv_cache: int
    reference: int = 0
    """A frozen copy of all weights, where they are trained and a reference is read in every round."""
    buffers: int = 0
    """What is kept of rows and sampled answers: log-probs, values, states of frozen layers."""

    @property
    def total(self) -> int:
        """The peak: a step trains or samples, never both at once."""
        steady = self.process + self.weights + self.adapters + self.gradients + self.optimizer + self.reference + self.buffers
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
    weight_bytes: float = 4,
    compute_bytes: int | None = None,
    held: str | None = None,
    checkpointing: bool = False,
    sample_rows: int = 0,
    sample_tokens: int = 0,
    target_modules: str | Sequence[str] = "all-linear",
    lora_layers: float = 1.0,
    longest: int = 0,
    cache_tokens: float | None = None,
    reference_copy: bool = False,
    buffers: float = 0.0,
    head: bool = True,
    optim: str = "adamw",
) -> MemoryNeed:
    """Memory of one stage.

    Args:
        rank: of the LoRA adapters; None is full fine-tuning; 0 trains no weights of the model (heads on frozen features, sampling).
        adapters: in memory, the trained ones included.
        trained_adapters: with gradients and Adam moments.
        token_budget: tokens in a micro-batch.
        context: longest prompt + completion, in tokens.
        weight_bytes: 4 for float32, 2 for bfloat16. Adapters and their moments are float32.
        compute_bytes: of the numbers that are computed with, where weights are widened as they are used. None: as the weights.
        held: bf16, int8, nf4 or gguf where the linear layers are held so (`models.small`); the others take `weight_bytes`. None: all do. A second
            weight set for sampling is then no part of the need: it is made only where there is room.
        checkpointing: True keeps only the input of each layer. False keeps what every layer needs for its backward pass.
        sample_rows: answers sampled side by side; 0 for a stage that does not sample.
        sample_tokens: longest prompt + answer of a sampled row.
        target_modules: layers that LoRA adapts.
        lora_layers: share of the decoder layers, from the top, that LoRA adapts; the backward pass ends below them.
        longest: tokens of the longest row (a prompt with the answers that are compared), which goes through the model alone where it is
            above the budget.
        cache_tokens: tokens in the KV cache at most; None is sample_rows * sample_tokens, no prompt shared.
        reference_copy: True keeps a second, frozen set of all weights. False needs none: adapters are switched off, or values are kept.
        buffers: bytes kept of rows and answers.
        head: True reads log-probs. False stops at the hidden states, as reward models do.
        optim: adamw, or adamw_8bit, whose moments take a quarter.
    """
    tokens = max(token_budget, longest)
    number = compute_bytes or weight_bytes
    lora_layers = lora_layers if rank else 1.0
    adapter = count_lora(size, rank, target_modules, lora_layers) if rank else 0
    trained = size.parameters if rank is None else adapter * trained_adapters
    training_bytes = weight_bytes if rank is None else 4
    per_token = activation_bytes(
        size, weight_bytes=number, context=context, checkpointing=checkpointing, rank=rank or 0, lora_layers=lora_layers
    )
    layer = tokens * number * passing_floats(size, checkpointing=checkpointing)
    adapted = sum(inputs * outputs for _, inputs, outputs in size.linears)
    whole = size.hidden * size.vocabulary if weight_bytes == 4 else 0
    linear = sum(held_bytes(held, inputs, outputs) for _, inputs, outputs in size.linears) if held else adapted * weight_bytes
    cached = sample_rows * sample_tokens if cache_tokens is None else cache_tokens
    return MemoryNeed(
        process=int(PROCESS),
        weights=int((size.parameters - adapted) * weight_bytes + linear),
        adapters=adapter * adapters * 4,
        gradients=int(trained * training_bytes),
        optimizer=int(trained * moment_bytes(optim, training_bytes)),
        activations=int(SLACK * (tokens * per_token + layer)) if rank != 0 else int(SLACK * 2 * tokens * number * size.layer_floats),
        logits=logit_bytes(size) if head else 0,
        merged=int((adapted + whole) * weight_bytes) if sample_rows and not held and (whole or (adapters and rank)) else 0,
        kv_cache=int(SLACK * (cached * size.kv_floats * number + sample_rows * 2 * size.vocabulary * 4)),
        reference=int(size.parameters * weight_bytes) if reference_copy else 0,
        buffers=int(buffers),
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


@dataclass(frozen=True)
class Way:
    """A change under which a stage fits."""

    text: str
    flags: str
    """What to add to the command for it; "" where another model or method is meant."""

    def __str__(self) -> str:
        return f"{self.text}: {self.flags}" if self.flags else self.text


SMALL = f"--tokens_per_microbatch {SMALLEST_BUDGET}"
LEAN = f"--gradient_checkpointing true {SMALL}"
CHANGES: tuple[tuple[Way, dict[str, Any]], ...] = (
    (Way(f"micro-batches of {SMALLEST_BUDGET} tokens", SMALL), {}),
    (Way("LoRA on the upper half of the layers (lora_layers 0.5)", f"--lora_layers 0.5 {SMALL}"), {"lora_layers": 0.5}),
    (Way("gradient checkpointing", f"--gradient_checkpointing true {SMALL}"), {"checkpointing": True}),
    (Way("Adam's moments in eight bits", f"--optim adamw_8bit {SMALL}"), {"optim": "adamw_8bit"}),
    (
        Way("Adam's moments in eight bits and gradient checkpointing", f"--optim adamw_8bit {LEAN}"),
        {"optim": "adamw_8bit", "checkpointing": True},
    ),
    (Way("weights held in bf16, exact where the checkpoint is", f"--weights bf16 {LEAN}"), {"held": "bf16", "checkpointing": True}),
    (Way("weights held in four bits", f"--weights nf4 {LEAN}"), {"held": "nf4", "checkpointing": True}),
    (
        Way("weights held in four bits and LoRA on the upper half of the layers", f"--weights nf4 --lora_layers 0.5 {LEAN}"),
        {"held": "nf4", "checkpointing": True, "lora_layers": 0.5},
    ),
    (Way("LoRA instead of full fine-tuning", f"--lora_r 16 {LEAN}"), {"rank": 16, "checkpointing": True}),
    (Way("LoRA on weights held in four bits", f"--lora_r 16 --weights nf4 {LEAN}"), {"rank": 16, "held": "nf4", "checkpointing": True}),
    (Way("heads on frozen features", "--backbone heads"), {"rank": 0}),
)
"""What to try, best first; each with micro-batches of the smallest size."""


def ways_to_fit(
    size: ModelSize,
    have: float,
    *,
    heads: bool = True,
    outer: float | None = None,
    fewer: Sequence[tuple[str, float]] = (),
    sharded: bool = False,
    **settings: Any,
) -> list[Way]:
    """Changes to a stage's settings (those of `predict`) under which it fits in `have` bytes, best first.

    Args:
        heads: True where the method can train heads alone.
        outer: bytes of each number of embeddings and LM head where the other weights are held in fewer bits. None: as `weight_bytes`.
        fewer: flags under which only a share of the answers is sampled at once, most answers first, with that share.
        sharded: True where weights are split over processes: neither they nor their moments are held in fewer bits then.
    """
    found: list[Way] = []
    taken: list[dict[str, Any]] = []
    for way, change in CHANGES:
        if not _applies(change, settings, heads) or (sharded and change.keys() & {"held", "optim"}):
            continue
        if "optim" in change and any(one and one.items() <= change.items() for one in taken):
            continue  # half of it is enough
        tried = {**settings, "token_budget": SMALLEST_BUDGET, **change}
        if change.get("rank"):
            tried["reference_copy"] = False
        if "held" in change:
            number = settings.get("weight_bytes", 4)
            tried |= {"compute_bytes": settings.get("compute_bytes") or number, "weight_bytes": number if outer is None else outer}
        if predict(size, **tried).total <= have:
            found.append(way)
            taken.append(change)
    for flag, share in fewer:
        rows = max(1, round(settings.get("sample_rows", 0) * share))
        cached = settings.get("cache_tokens")
        tried = {**settings, "sample_rows": rows, "cache_tokens": cached and cached * share}
        if predict(size, **tried).total <= have:
            found.append(Way("fewer answers sampled side by side", flag))
            break
    return found


def _applies(change: Mapping[str, Any], settings: Mapping[str, Any], heads: bool) -> bool:
    """Whether a change is one, and of this method."""
    rank = settings.get("rank", 16)
    if "rank" in change:
        return rank is None if change["rank"] else heads and rank != 0
    if "optim" in change:
        return rank is None and settings.get("optim") != change["optim"]
    if "lora_layers" in change and (not rank or settings.get("lora_layers", 1.0) <= 0.5):
        return False
    if "held" in change:
        return rank is not None and not settings.get("held") and not (change["held"] == "bf16" and settings.get("weight_bytes", 4) < 4)
    return True


def suggest(size: ModelSize, have: float, **settings: Any) -> str:
    """The best two of `ways_to_fit` in words, or how large a model would fit; "" when nothing helps."""
    found = ways_to_fit(size, have, **settings)
    if not found:
        small = max(0.0, have - PROCESS) / (4 * SLACK)
        return f"a model of at most {small / 1e6:.0f} million weights" if small > 1e6 else ""
    return ", or ".join(str(way) for way in found[:2])
