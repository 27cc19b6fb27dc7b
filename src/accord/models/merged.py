"""A second weight set W + sum(s B A) to sample from: adapters cost nothing, and the weights may be laid out for fast products.

Training weights are never written; the second set lives as long as the context. How it is held depends on free memory (`holding`), and with it
the last bits of every sampled number: who must sample the same again decides once and passes the decision on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accord.models.allocator import give_back_freed
from accord.models.few_rows import few_rows_linear, runs_few_rows
from accord.models.free_memory import available_memory
from accord.models.fuse import read_together
from accord.models.int8 import int8_linear
from accord.models.prepacked import can_prepack, prepackable, prepacked_linear
from accord.models.small import SmallLinear

if TYPE_CHECKING:
    from accord.models.adapters import PolicyModel

Product = Callable[[Tensor, Tensor | None], Callable[..., Tensor]]
"""From weight and bias to a function x -> x weight^T + bias."""


class Holding(NamedTuple):
    """How weights are held while sampling."""

    merged: bool
    """In a second set; False runs adapters beside the base."""
    prepacked: bool
    """Reordered for fast products with few rows."""


PLAIN = Holding(merged=True, prepacked=False)


def holding(policy: PolicyModel, stack: Sequence[str], *, prepack: bool, int8: bool = False) -> Holding:
    """What memory has room for now.

    Args:
        prepack: True asks for reordered weights, and for a second set only where it fits. False makes the second set in any case.
        int8: True for a set a quarter of the size. It has a layout of its own.
    """
    prepacked = prepack and not int8 and can_prepack(policy.model)
    merged = not prepack or prepacked or _has_room(policy, _adapted(policy, stack)[0], int8=int8)
    return Holding(merged, prepacked)


@contextmanager
def merged_weights(
    policy: PolicyModel, stack: Sequence[str], held: Holding = PLAIN, *, packed: bool = True, rows: int = 1, int8: bool = False
) -> Iterator[None]:
    """Run `stack` from merged weights. A layer whose adapter is not plain LoRA on a float weight keeps running unmerged.

    Args:
        held: from `holding`.
        rows: how many rows a step has: reordered weights are laid out for so many, and for very few none are reordered.
        int8: True rounds the second set to int8 (`models.int8`, where `int8_problem` is None). False keeps fp32.
    """
    product: Product | None = None
    joins = True
    if int8:
        product = int8_linear
    elif held.prepacked and runs_few_rows(rows):
        product, joins = few_rows_linear, False  # joining would copy weights that nothing else copies
    elif held.prepacked:
        product = partial(prepacked_linear, rows=rows)
    swapped: list[tuple[nn.Module, nn.Parameter]] = []
    replaced: list[tuple[nn.Module, str, Any]] = []

    def replace(module: nn.Module, name: str, function: Any) -> None:
        replaced.append((module, name, module.__dict__.get(name)))
        module.__dict__[name] = function

    merging, rest = _adapted(policy, stack)
    if not held.merged:
        merging, rest = {}, {base: list(stack) for base in rest}

    def weight_of(base: nn.Linear) -> Tensor:
        return merging[base]() if base in merging else _dense(base)

    def make_second_set() -> None:
        if product is not None:
            for bases, parent in _products(policy, rest, packed=packed, joins=joins):
                biases: list[Tensor] = [base.bias for base in bases if base.bias is not None]
                function = product(_one([weight_of(base) for base in bases]), _one(biases) if biases else None)
                if parent is None:
                    replace(bases[0], "forward", function)
                    continue
                replace(parent, "joined", partial(_split, function, [base.out_features for base in bases]))
                for base in bases:
                    replace(base, "forward", _runs_joined)
        for base in merging:
            if product and prepackable(base):
                continue
            if isinstance(base, SmallLinear):
                replace(base, "forward", partial(F.linear, weight=weight_of(base), bias=base.bias))
            else:
                swapped.append((base, cast("nn.Parameter", base.weight)))
                base._parameters["weight"] = nn.Parameter(weight_of(base), requires_grad=False)

    give_back_freed()
    try:
        with torch.no_grad():
            make_second_set()
        with policy.using(stack, packed=packed):
            for layer in policy.tuner_layers():
                if (base := layer.get_base_layer()) in rest:
                    layer._active_adapter = rest[base]
            yield
    finally:
        for base, weight in swapped:
            base._parameters["weight"] = weight
        for module, name, before in replaced:
            del module.__dict__[name]
            if before is not None:
                module.__dict__[name] = before
        replaced.clear()
        give_back_freed()


def _adapted(policy: PolicyModel, stack: Sequence[str]) -> tuple[dict[nn.Linear, Callable[[], Tensor]], dict[Any, list[str]]]:
    """How to make the merged weight of each base layer that can be merged, and which adapters are left to run beside each base layer."""
    merging: dict[nn.Linear, Callable[[], Tensor]] = {}
    rest: dict[Any, list[str]] = {}
    for layer in policy.tuner_layers():
        base = layer.get_base_layer()
        rest[base] = list(stack)
        names = [name for name in stack if name in getattr(layer, "lora_A", {})]
        if names and _mergeable(layer, base, names):
            merging[base], rest[base] = partial(_merged, layer, base, names), [name for name in stack if name not in names]
    return merging, rest


def _has_room(policy: PolicyModel, merging: Iterable[nn.Linear], *, int8: bool) -> bool:
    """Whether memory holds a second set of these weights, with as much to spare. int8: True for a quarter of their size."""
    needed = sum(base.in_features * base.out_features * 4 for base in merging) / (4 if int8 else 1)
    return 2 * needed < available_memory(str(policy.device))


def _dense(base: nn.Linear) -> Tensor:
    return base.dense() if isinstance(base, SmallLinear) else base.weight.detach()


def _merged(layer: Any, base: nn.Linear, names: Sequence[str]) -> Tensor:
    weight = base.dense() if isinstance(base, SmallLinear) else base.weight.detach().clone()
    for name in names:
        weight += layer.get_delta_weight(name).to(weight.dtype)
    return weight


def _products(
    policy: PolicyModel, rest: dict[Any, list[str]], *, packed: bool, joins: bool
) -> Iterator[tuple[list[nn.Linear], nn.Module | None]]:
    """Every plain linear layer of the model once: with its neighbours that read the same input and the parent that runs them together, or alone.

    Args:
        joins: False has each alone.
    """
    done: set[Any] = {
        module for layer in policy.tuner_layers() for part in ("lora_A", "lora_B") for module in getattr(layer, part, {}).values()
    }
    for parent in policy.model.modules() if joins else ():
        bases: list[Any] = [getattr(layer, "base_layer", layer) for layer in read_together(parent, packed=packed)]
        alike = len({base.bias is None for base in bases if prepackable(base)}) == 1
        if bases and alike and all(prepackable(base) and not rest.get(base) for base in bases):
            done.update(bases)
            yield bases, parent
    for module in policy.model.modules():
        if prepackable(module) and module not in done:
            yield [cast("nn.Linear", module)], None


def _one(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def _split(product: Callable[[Tensor], Tensor], sizes: list[int], inputs: Tensor) -> tuple[Tensor, ...]:
    return product(inputs).split(sizes, dim=-1)


def _runs_joined(*_: Any, **__: Any) -> Tensor:
    raise RuntimeError("This layer runs as one product with its neighbours while sampling from merged weights, and never by itself.")


def _mergeable(layer: Any, base: Any, names: list[str]) -> bool:
    plain = not any(name in getattr(layer, "lora_variant", {}) or layer.lora_B[name].bias is not None for name in names)
    return plain and isinstance(base, nn.Linear) and (isinstance(base, SmallLinear) or base.weight.dtype == torch.float32)
