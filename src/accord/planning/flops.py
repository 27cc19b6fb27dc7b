"""Products of matrices that a pass through the model takes, in FLOP, as torch's FlopCounterMode counts them on the packed, fused path.

A product of (m, k) and (k, n) is 2 m k n. What is no product (norms, activations, softmax) is not counted here; `planning.time` has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from accord.data.packing import Unit, shared_prefix, split_by_budget
from accord.models.size import ModelSize, upper_layers
from accord.models.tree_attention import pieces_of
from accord.planning.memory import count_lora

FIRST_READERS = ("q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn")
"""Linear layers that read a decoder layer's input: in the lowest trained layer nothing needs their gradient by that input."""


@dataclass(frozen=True)
class Volume:
    """How much goes through the model."""

    tokens: float = 0.0
    counted: float = 0.0
    """Tokens that reach the LM head."""
    pairs: float = 0.0
    """Queries times keys that attention multiplies, in each head of each layer; what a causal mask hides inside a call counts too."""

    def __add__(self, other: Volume) -> Volume:
        return Volume(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: float) -> Volume:
        return Volume(*(times * value for value in astuple(self)))


@dataclass(frozen=True)
class Flops:
    """FLOP of a pass, by where."""

    layers: float = 0.0
    adapters: float = 0.0
    attention: float = 0.0
    head: float = 0.0

    @property
    def total(self) -> float:
        return sum(astuple(self))

    def __add__(self, other: Flops) -> Flops:
        return Flops(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))


def volume_of(units: Iterable[Unit], token_budget: int) -> Volume:
    """What these units are together, in micro-batches of at most so many tokens, each sharing what its prompts begin with."""
    found = Volume()
    for part in split_by_budget(list(units), token_budget):
        found += packed_volume(shared_prefix(part), [unit_lengths(unit) for unit in part])
    return found


def unit_lengths(unit: Unit) -> tuple[int, list[int], int]:
    """Tokens of its prompt and of each answer, and how many are counted."""
    return len(unit.prompt_ids), [len(branch.ids) for branch in unit.branches], unit.num_counted


def packed_volume(prefix: int, rows: Sequence[tuple[int, Sequence[int], int]]) -> Volume:
    """One micro-batch.

    Args:
        prefix: tokens that all prompts begin with.
        rows: for each prompt its tokens (prefix included), those of each answer, and how many are counted.
    """
    spans = []
    place = prefix
    for prompt, answers, _ in rows:
        start, place = place, place + prompt - prefix
        first, branches = place, []
        for answer in answers:
            branches.append((place, place + answer))
            place += answer
        spans.append(((start, first), tuple(branches)))
    pieces = pieces_of(prefix, spans, join=True)
    pairs = sum((piece.end - piece.start) * piece.total for piece in pieces)
    return Volume(place, sum(counted for _, _, counted in rows), pairs)


def forward_flops(size: ModelSize, volume: Volume, *, lora: int = 0, layers: float = 1.0, head: bool = True) -> Flops:
    """One pass without gradient.

    Args:
        lora: weights of all adapters that run beside the base.
        layers: share of the decoder layers that run.
        head: True reads log-probs of the counted tokens. False stops at the hidden states.
    """
    running = len(upper_layers(size.layers, layers)) / size.layers
    return Flops(
        layers=2 * volume.tokens * size.layer_weights * running,
        adapters=2 * volume.tokens * lora,
        attention=4 * volume.pairs * size.query_floats * size.layers * running,
        head=2 * volume.counted * size.hidden * size.vocabulary if head else 0.0,
    )


def training_flops(
    size: ModelSize,
    volume: Volume,
    *,
    rank: int | None,
    below: int = 0,
    target_modules: str | Sequence[str] = "all-linear",
    lora_layers: float = 1.0,
    layers: float = 1.0,
    checkpointing: bool = False,
    head: bool = True,
) -> Flops:
    """One pass with its backward pass.

    Args:
        rank: of the LoRA adapter that is trained; None trains all weights.
        below: weights of frozen adapters in the stack.
        lora_layers: share of the decoder layers, from the top, that the adapter is on: the backward pass ends below them.
        layers: share of the decoder layers that run forward (fewer where the output of the frozen ones is kept).
        checkpointing: True runs the layers forward once more.
        head: True has a loss on log-probs. False has one on hidden states.
    """
    lora = count_lora(size, rank, target_modules, lora_layers) if rank else 0
    forward = forward_flops(size, volume, lora=lora + below, layers=layers, head=head)
    trained = len(upper_layers(size.layers, lora_layers if rank else 1.0)) / size.layers
    again = forward if checkpointing else Flops()
    tokens, products = volume.tokens, 2 * volume.tokens * size.layer_weights * trained
    head_product = 2 * volume.counted * size.hidden * size.vocabulary
    if rank is None:
        # By inputs and by weights; the trained LM head makes its logits once more (`objectives.logprobs`).
        backward = Flops(2 * products, 2 * tokens * below, 2.5 * forward.attention, 3 * head_product if head else 0.0)
    else:
        lowest = first_layer_weights(size, lora_layers) if _adapts_everything(target_modules) else 0
        backward = Flops(
            products - 2 * tokens * lowest,
            4 * tokens * lora + 2 * tokens * below,
            2.5 * forward.attention * trained / layers,
            head_product if head else 0.0,
        )
    return forward + Flops(again.layers, again.adapters, again.attention) + backward


def first_layer_weights(size: ModelSize, lora_layers: float) -> int:
    """Weights of the linear layers that read the input of the lowest trained layer."""
    layer = upper_layers(size.layers, lora_layers).start
    return sum(
        inputs * outputs for name, inputs, outputs in size.linears if f".{layer}." in name and name.rsplit(".", 1)[-1] in FIRST_READERS
    )


def _adapts_everything(target_modules: str | Sequence[str]) -> bool:
    return target_modules == "all-linear"
