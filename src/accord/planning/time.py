"""How long a run takes: its products by the speed they are measured at, what is no product by bytes, and the calls between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from accord.models.size import ModelSize, upper_layers
from accord.planning.flops import Flops, forward_flops, training_flops
from accord.planning.machine import Speeds
from accord.planning.memory import count_lora
from accord.planning.work import Part, Work

TOUCHED = 4.2
"""Numbers read and written a token and layer in a forward pass, for each number that the layer keeps: counted on the fused path (norms 7 a
number, residuals 3, rotary embedding 5, gated unit 5, adapters' additions 2 an output). A backward pass touches twice as many."""
CALLS = 90
"""Operations of one layer in a forward pass, as smallest ones; a backward pass has twice as many."""
SAMPLING_CALLS = 110
"""The same of one layer in a step of sampling."""
DRAWN = 8
"""Passes over the logits of a row in drawing its next token."""
WIDENED = {"bf16": 6.0, "int8": 7.0, "nf4": 24.0, "gguf": 16.0}
"""Bytes through memory that widening a held weight is like: read and written ones for bf16 and int8; nf4 looks its levels up; gguf, not measured, as
blocks of four bits, whose halves are taken apart."""
SPREAD = 0.3
"""What a time is given or taken: other programs, other lengths."""
EIGHT_BIT_PASSES = 300
"""What widening and rounding moments takes, in readings and writings of a float32 number: 22 ns a number where 52 GB/s go through memory."""


@dataclass(frozen=True)
class Training:
    """What is trained, as far as time goes."""

    rank: int | None = 16
    """As in `memory.predict`."""
    target_modules: str | Sequence[str] = "all-linear"
    lora_layers: float = 1.0
    checkpointing: bool = False
    below: int = 0
    """Adapters of the same shape that lie frozen below the trained one."""
    weight_bytes: float = 4
    held: str | None = None
    """As in `memory.predict`: widened in every pass."""
    merged: bool = True
    """True samples from a second weight set in `weight_bytes`. False widens the held one in every step."""
    optim: str = "adamw"


@dataclass(frozen=True)
class Seconds:
    """Of a run, by part."""

    parts: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def __str__(self) -> str:
        if len(self.parts) < 2:
            return duration(self.total)
        shares = sorted(self.parts.items(), key=lambda item: -item[1])
        return f"{duration(self.total)} ({', '.join(f'{name} {duration(seconds)}' for name, seconds in shares if seconds >= 0.01 * self.total)})"


def duration(seconds: float) -> str:
    """In words, to two figures."""
    for unit, size in (("days", 86400), ("hours", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            value = seconds / size
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def predict_seconds(size: ModelSize, work: Work, speeds: Speeds, training: Training) -> Seconds:
    """Of the whole run, model loading and what a reward function of the user takes apart."""
    parts: dict[str, float] = {}
    for part in work.parts:
        seconds = _sampling(size, part, speeds, training) if part.rows else _pass(size, part, speeds, training)
        parts[part.name] = parts.get(part.name, 0.0) + seconds
    parts["optimizer"] = work.steps * _step(size, speeds, training)
    return Seconds(parts)


def part_flops(size: ModelSize, part: Part, training: Training) -> Flops:
    """Products of a part that does not sample."""
    first, last = part.layers
    adapter = count_lora(size, training.rank, training.target_modules, training.lora_layers) if training.rank else 0
    if not part.trains:
        return forward_flops(size, part.volume, lora=adapter * training.below, layers=last - first, head=part.head)
    return training_flops(
        size,
        part.volume,
        rank=training.rank,
        below=adapter * training.below,
        target_modules=training.target_modules,
        lora_layers=training.lora_layers,
        layers=last - first,
        checkpointing=training.checkpointing,
        head=part.head,
    )


def _pass(size: ModelSize, part: Part, speeds: Speeds, training: Training) -> float:
    flops = part_flops(size, part, training)
    layers = size.layers * (part.layers[1] - part.layers[0])
    trained = len(upper_layers(size.layers, training.lora_layers if training.rank else 1.0))
    times = layers + (2 * trained + (layers if training.checkpointing else 0) if part.trains else 0)
    touched = part.volume.tokens * TOUCHED * size.layer_floats * training.weight_bytes * times
    return (
        flops.layers / speeds.products
        + flops.adapters / speeds.narrow
        + flops.attention / speeds.attention
        + flops.head / speeds.head
        + touched / speeds.memory
        + part.passes * _widening(size, speeds, training) * (times - (trained if part.trains else 0)) / size.layers
        + part.passes * times * CALLS * speeds.call
    )


def _sampling(size: ModelSize, part: Part, speeds: Speeds, training: Training) -> float:
    """A step reads every weight once and the cache once, and draws a token for each row."""
    weights = (size.layer_weights + size.hidden * size.vocabulary) * training.weight_bytes
    products = 2 * part.rows * (size.layer_weights + size.hidden * size.vocabulary) / speeds.products
    cache = part.cached * size.kv_floats * training.weight_bytes / speeds.memory
    drawing = DRAWN * part.rows * size.vocabulary * 4 / speeds.memory
    calls = size.layers * SAMPLING_CALLS * speeds.call
    widening = 0.0 if training.merged else _widening(size, speeds, training)
    return part.passes * (max(weights / speeds.streamed, products) + cache + drawing + calls + widening)


def _widening(size: ModelSize, speeds: Speeds, training: Training) -> float:
    """Seconds of widening every held weight once."""
    return WIDENED[training.held] * size.layer_weights / speeds.memory if training.held else 0.0


def _step(size: ModelSize, speeds: Speeds, training: Training) -> float:
    """Clip and AdamW: each trained number is read and written about ten times, and its moments widened and rounded where they are in eight bits."""
    if training.rank == 0:
        return 0.0
    trained = size.parameters if training.rank is None else count_lora(size, training.rank, training.target_modules, training.lora_layers)
    tensors = 2 * len(size.linears) if training.rank else 9 * size.layers
    passes = 10 + (EIGHT_BIT_PASSES if training.optim == "adamw_8bit" else 0)
    return passes * 4 * trained / speeds.memory + 12 * tensors * speeds.call


def roughly(seconds: float) -> str:
    """A time with what it may be off."""
    low, high = seconds * (1 - SPREAD), seconds * (1 + SPREAD)
    return f"about {duration(seconds)} ({duration(low)} to {duration(high)})" if math.isfinite(seconds) else "never"
