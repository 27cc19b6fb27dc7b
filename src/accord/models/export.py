"""Take it home: a run folder as one merged transformers model that needs neither peft nor accord."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accord.errors import ConfigError
from accord.models.adapters import PolicyModel, Stack
from accord.models.tokens import set_stops
from accord.writing import whole_folder


@torch.no_grad()
def export_merged(policy: PolicyModel, stack: Stack, tokenizer: Any, folder: Path) -> Path:
    """Write base + adapters as an ordinary model folder in float32: no peft, no accord needed to load it. The policy itself is not changed.

    The folder's generation config stops where this tokenizer and its template end an answer. A head that shares the embeddings' weight is
    written apart from them where adapters gave it another one.

    Raises:
        ConfigError: if adapters do not add up: two on one layer, one of them a variant of LoRA that reads the layer's weights (DoRA).
        MachineError: if the folder cannot be written; nothing is left of it then.
    """
    state = {}
    with policy.merged(stack), _merged_by_peft(policy, stack):
        for key, value in policy.model.state_dict().items():
            if ".lora_" in key or "lora_magnitude" in key:
                continue
            state[key.replace(".base_layer.", ".")] = value.detach().to("cpu", copy=True)
    model = _filled(policy, state)
    model.generation_config = copy.deepcopy(policy.model.generation_config)
    set_stops(model, tokenizer)
    with whole_folder(folder) as target:
        model.save_pretrained(target, safe_serialization=True)
        tokenizer.save_pretrained(target)
    return folder


@contextmanager
def _merged_by_peft(policy: PolicyModel, stack: Stack) -> Iterator[None]:
    """The adapters that `PolicyModel.merged` leaves beside their layers (variants of LoRA, those on embeddings) in these layers' weights."""
    before: list[tuple[Any, Any, Any]] = []
    try:
        for name, layer in policy.model.named_modules():
            left = getattr(layer, "_active_adapter", None) or ()
            found = [adapter for adapter in stack if adapter in left and adapter in _adapters_on(layer)]
            if not found:
                continue
            if len(found) > 1 and any(adapter in getattr(layer, "lora_variant", {}) for adapter in found):
                raise ConfigError(
                    f"{name} carries {len(found)} adapters, and one of them is of a kind that reads the layer's own weight (DoRA), so that they "
                    "do not add up to one. Export the run that the last one started from, or train that one on its merged model."
                )
            base = layer.get_base_layer()
            before.append((layer, base, base.weight))
            base.weight = torch.nn.Parameter(base.weight.detach().clone(), requires_grad=False)  # what shares it keeps its own
            layer.merge(adapter_names=found)
        yield
    finally:
        for layer, base, weight in before:
            base.weight = weight
            layer.merged_adapters.clear()


def _adapters_on(layer: Any) -> set[str]:
    """Names of the adapters that a layer has."""
    kinds: Sequence[str] = getattr(layer, "adapter_layer_names", ())
    return {name for kind in kinds for name in getattr(layer, kind, {})}


def _filled(policy: PolicyModel, state: dict[str, Tensor]) -> Any:
    """A model of the same kind with these weights, which are not all its own where two names share one: then they share it no longer."""
    config = copy.deepcopy(policy.model.config)
    model: Any = type(policy.model)(config).float()  # embeddings of a small base are bfloat16, which would round what adapters add
    model.load_state_dict(state)
    if any(not torch.equal(value, state[name].float()) for name, value in model.state_dict().items()):
        config.tie_word_embeddings = False
        model = type(policy.model)(config).float()
        model.load_state_dict(state)
    return model
