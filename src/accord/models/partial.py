"""Run only some of a model's decoder layers: what lies below the first trained layer is frozen, so its output is computed once and kept.

A row's kept states stand in `unit.data["lower"]`; `PolicyModel.forward` starts from them wherever they are valid for its stack.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from accord.data.packing import PackedBatch, Unit, pack, split_by_budget
from accord.models.packed_attention import TreeLayout

if TYPE_CHECKING:
    from accord.models.adapters import PolicyModel, Stack


@dataclass(frozen=True)
class LowerStates:
    """Input of decoder layer `layer` for every token of one unit."""

    layer: int
    """0-based: the first layer that still has to run."""
    adapters: tuple[str, ...]
    """The adapters below that layer that made these states, bottom first: valid for any stack with the same ones there."""
    states: Tensor
    """(T, d): its whole prompt, then its completions end to end."""
    model: int
    """`PolicyModel.number` of the model that made them: another one has other weights below, whatever its adapters are called."""

    def joins(self, other: LowerStates) -> bool:
        """Whether the two can enter the model side by side."""
        return (self.layer, self.adapters, self.model) == (other.layer, other.adapters, other.model)


class Skipped(nn.Module):
    """Stands in for a decoder layer that need not run: hands its input on, and remembers it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "layer", layer)  # not a submodule: its parameters are no part of this pass
        self.seen: Tensor | None = None

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        self.seen = hidden_states
        return hidden_states

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["layer"], name)


@contextmanager
def only_layers(layers: nn.ModuleList, first: int, stop: int) -> Iterator[None]:
    """Within this context only layers first <= index < stop run; the others pass their input on."""
    kept = {index: layers[index] for index in range(len(layers)) if not first <= index < stop}
    try:
        for index, layer in kept.items():
            layers[index] = Skipped(layer)
        yield
    finally:
        for index, layer in kept.items():
            layers[index] = layer


def kept_states(batch: PackedBatch, allowed: int) -> LowerStates | None:
    """The kept states of a whole batch, when every unit has them for the same layer, at most `allowed`, and the same adapters and model."""
    found: list[LowerStates] = [unit.data["lower"] for unit in batch.units if "lower" in unit.data]
    if not found or len(found) < len(batch.units):
        return None
    first = found[0]
    if first.layer > allowed or any(not one.joins(first) for one in found):
        return None
    states = torch.cat([first.states[: batch.prefix], *(one.states[batch.prefix :] for one in found)]) if len(found) > 1 else first.states
    return replace(first, states=states.to(batch.tokens.device))


@torch.no_grad()
def keep_lower_states(policy: PolicyModel, units: Sequence[Unit], stack: Stack, token_budget: int) -> int:
    """Set `unit.data["lower"]` where it is missing, running the frozen lower layers once. Returns the first layer that still runs.

    0 means that nothing is kept: a trained adapter (or the whole model) starts at the bottom, or the model cannot start midway.
    """
    layer = policy.frozen_depth(stack)
    if not layer or not policy.can_start_midway:
        return 0
    adapters = policy.adapters_below(stack, layer)
    missing = [unit for unit in units if "lower" not in unit.data]
    for part in split_by_budget(missing, token_budget):
        batch = pack(part, policy.device)
        states = policy.layer_input(batch.tokens, batch.positions, policy.layout(batch), stack, layer)
        prefix, *own = states.split([batch.prefix, *(unit.num_tokens - batch.prefix for unit in part)])
        for unit, mine in zip(part, own, strict=True):
            unit.data["lower"] = LowerStates(layer, adapters, torch.cat((prefix, mine)), policy.number)
    return layer


def midway_problem(policy: PolicyModel) -> str | None:
    """None when starting at a middle layer gives the model's own final states, else one line that says why it does not."""
    count = int(policy.model.get_input_embeddings().weight.shape[0])
    tokens = torch.arange(3, 12, device=policy.device) % count
    batch = pack([Unit(tuple(tokens.tolist()), ())], policy.device)
    layout, middle = TreeLayout(batch), policy.num_layers // 2
    try:
        with torch.no_grad():
            states = policy.layer_input(batch.tokens, batch.positions, layout, (), middle)
            whole = policy.hidden_states(batch.tokens, batch.positions, layout, ())[0]
            again = policy.hidden_states(batch.tokens, batch.positions, layout, (), start=LowerStates(middle, (), states, policy.number))[0]
    except Exception as error:  # any failure of the trial means the same: every pass runs all layers
        return f"{type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else 'no message'}"
    difference = float((whole - again).abs().max() / whole.abs().max().clamp_min(1e-6))
    return None if difference < 1e-4 else f"final states differ by a share of {difference:.1e}"
