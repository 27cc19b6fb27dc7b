"""Take it home: a run folder as one merged transformers model that needs neither peft nor accord."""

from __future__ import annotations

import copy
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
        ConfigError: if an adapter cannot be merged exactly (a quantised base, a variant of LoRA).
        MachineError: if the folder cannot be written; nothing is left of it then.
    """
    state = {}
    with policy.merged(stack):
        left = [name for name, layer in policy.model.named_modules() if getattr(layer, "_active_adapter", None)]
        if left:
            raise ConfigError(
                f"{len(left)} layers (first: {left[0]}) carry adapters that do not merge exactly. Use --to adapter, and load that with peft."
            )
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
